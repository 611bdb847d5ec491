/* A prompt on its way to chunks: choices, ###, brackets, tags, tokens, borders. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/text/chunks.h"
#include "diffusion/text/dynamic_prompt.h"
#include "fuzz.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("a (photo:1.3) of ((a)) [cat] \\(x\\) BREAK <lora:one:0.8:0.5> embedding:e, q"),
    FUZZ_TEXT("{a|b|{c|d}} ### blurry, {x|y}"),
    FUZZ_TEXT(
        "Cafe\xcc\x81 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x8e\xa8 don't 2025 <|endoftext|> \xc4\xb0"),
    FUZZ_TEXT(
        "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q "
        "q q q q q q q q q q q q q q q q q q q q q q q q q q q q qqq (qqqqqqqqqqqq:0.5) q"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

/* All bytes, no merges but one: enough for every path of the tokenizer. */
static struct vocab *small_vocab(void)
{
    static struct vocab *v;
    if (v) return v;
    struct error err = {0};
    if (vocab_open_folder(&v, SMALL_VOCAB, &err)) KILN_ASSERT(false, "%s", err.text);
    return v;
}

static void check_chunks(const struct chunks *c, const struct vocab *v)
{
    KILN_ASSERT(c->count >= 1);
    for (int i = 0; i < c->count; i++) {
        const int32_t *id = c->id + i * CHUNK_TOKENS;
        int ends = 0;
        KILN_ASSERT(id[0] == vocab_start(v));
        for (int k = 0; k < CHUNK_TOKENS; k++) {
            KILN_ASSERT(id[k] >= 0 && id[k] < vocab_count(v), "%d", (int)id[k]);
            KILN_ASSERT(isfinite(c->weight[i * CHUNK_TOKENS + k]));
            ends += id[k] == vocab_end(v);
        }
        KILN_ASSERT(ends >= 1);
    }
}

static void run(const char *text, enum prompt_rules rules)
{
    static float vectors[3 * 8];
    static char name[] = "e";
    const struct embedding e = {.name = name, .part = {{8, 3, vectors}}, .parts = 1, .strength = 1};
    struct prompt p;
    struct error err = {0};
    if (prompt_parse(&p, text, rules, &err)) {
        KILN_ASSERT(err.text[0]);
        return;
    }
    for (int i = 0; i < p.span_count; i++) KILN_ASSERT(isfinite(p.spans[i].weight));
    struct chunks c;
    if (chunks_build(&c, &p, small_vocab(), 0, 8, &e, 1, &err) == 0) {
        check_chunks(&c, small_vocab());
        chunks_release(&c);
    } else {
        KILN_ASSERT(err.text[0]);
    }
    prompt_release(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = alloc_string_n((const char *)data, size), *positive, *negative;
    char *chosen = dynamic_prompt_expand(text, size);
    KILN_ASSERT(strlen(chosen) <= strlen(text));
    prompt_split(chosen, &positive, &negative);
    run(positive, PROMPT_HORDE);
    run(negative, PROMPT_LOCAL);
    run(text, PROMPT_LOCAL);
    free(text);
    free(chosen);
    free(positive);
    free(negative);
    return 0;
}
