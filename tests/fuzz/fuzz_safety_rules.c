/* The table of the safety check: whatever is taken can judge and read a prompt. */
#include <math.h>

#include "base/error.h"
#include "diffusion/safety/safety_rules.h"
#include "fuzz.h"

#define SETTINGS                                                                                   \
    "setting\tdrawn_sure\t0.5\nsetting\tphoto_above\t0.6\nsetting\tdrawn_share\t0.1\n"             \
    "setting\tdrawn_doubt\t0.05\nsetting\tother_share\t0.5\nsetting\tother_doubt\t0.25\n"          \
    "setting\tmatches\t2\n"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("# ours\n\n" SETTINGS "suspect\t old\ndrawn\t0.3\t-\t-\tdrawing\n"
              "person\t0.3\t-\tdp\tphoto of a man\nlewd\t0.3\t-\t-\tvase\n"
              "young\t0.3\t0.5\td\tchild\nyoung\t0.3\t0.5\t-\tchildren\n"
              "concept\t0.3\t0.2\t-\tcup\npair\tchild\tchildren\n"),
    FUZZ_TEXT(SETTINGS),
    FUZZ_TEXT("young\t-1\t1\tdp-\t\xc3\xa9\n"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safety_rules *r;
    struct error err = {0};
    static float similarity[SAFETY_PHRASES_MAX];
    if (safety_rules_parse(&r, (const char *)data, size, "a table", &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    KILN_ASSERT(r->count >= SAFETY_ROLE_COUNT && r->count <= SAFETY_PHRASES_MAX);
    for (int i = 0; i < r->count; i++) similarity[i] = 0.1f * (float)(i % 7);
    KILN_ASSERT(safety_rules_judge(r, similarity, false) < SAFETY_FAILED);
    similarity[r->count - 1] = NAN;
    KILN_ASSERT(safety_rules_judge(r, similarity, true) == SAFETY_FAILED);
    safety_rules_suspect(r, "a ### o l d, (old:1.3)");
    safety_rules_close(r);
    return 0;
}
