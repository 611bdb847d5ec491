/* diffusion/safety/safety_rules: each role, each way to a verdict, each broken table. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/safety/safety_rules.h"

#define SETTINGS                                                                                   \
    "setting\tdrawn_sure\t0.5\nsetting\tphoto_above\t0.6\nsetting\tdrawn_share\t0.1\n"             \
    "setting\tdrawn_doubt\t0.05\nsetting\tother_share\t0.5\nsetting\tother_doubt\t0.25\n"          \
    "setting\tmatches\t2\n"
#define PHRASES                                                                                    \
    "drawn\t0.3\t-\t-\tdrawing\n"                                                                  \
    "person\t0.3\t-\td\twoman\n"                                                                   \
    "person\t0.3\t-\tp\tphoto of a man\n"                                                          \
    "lewd\t0.3\t-\t-\tvase\n"                                                                      \
    "young\t0.3\t0.5\td\tchild\n"                                                                  \
    "young\t0.3\t0.5\td\tchildren\n"                                                               \
    "young\t0.3\t0.5\t-\tsmall\n"                                                                  \
    "concept\t0.3\t-\t-\tbrick\n"                                                                  \
    "concept\t0.3\t0.2\t-\tcup\n"
static const char whole[] =
    "# ours\n\n" SETTINGS "suspect\t old\n" PHRASES "pair\tchild\tchildren\n";

enum phrase { DRAWING, WOMAN, PHOTO, VASE, CHILD, CHILDREN, SMALL, BRICK, CUP, PHRASES_COUNT };

static int open_text(struct safety_rules **r, const char *text, struct error *err)
{
    char path[] = "/tmp/kiln-rules-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    int rc = safety_rules_open(r, path, err);
    unlink(path);
    return rc;
}

static int open_whole(void **state)
{
    struct error err = {0};
    struct safety_rules *r;
    if (open_text(&r, whole, &err)) fail_msg("%s", err.text);
    assert_int_equal(r->count, PHRASES_COUNT);
    assert_int_equal(r->pairs, 1);
    assert_int_equal(r->suspects, 1);
    *state = r;
    return 0;
}

static int close_whole(void **state)
{
    safety_rules_close(*state);
    return 0;
}

struct seen {
    enum phrase phrase;
    double similarity;
};

/* Everything at 0.1 but what is named; ends with similarity 0. */
static enum safety_verdict judge(void **state, bool suspect, const struct seen *seen)
{
    float s[PHRASES_COUNT];
    for (int i = 0; i < PHRASES_COUNT; i++) s[i] = 0.1f;
    for (; seen->similarity != 0; seen++) s[seen->phrase] = (float)seen->similarity;
    return safety_rules_judge(*state, s, suspect);
}
#define JUDGE(suspect, ...) judge(state, suspect, (const struct seen[]){__VA_ARGS__, {0, 0}})

static void nothing_is_ok(void **state)
{
    assert_int_equal(JUDGE(false, {WOMAN, 0.1}), SAFETY_OK);
    assert_int_equal(JUDGE(false, {WOMAN, 0.9}), SAFETY_OK);
    assert_int_equal(JUDGE(false, {CHILD, 0.9}), SAFETY_OK); /* a child is no offence */
}

static void a_concept_needs_somebody(void **state)
{
    static const enum phrase subjects[] = {WOMAN, PHOTO, VASE, CHILD};
    assert_int_equal(JUDGE(false, {BRICK, 0.9}), SAFETY_OK);
    for (size_t i = 0; i < COUNT_OF(subjects); i++) {
        assert_int_equal(JUDGE(false, {BRICK, 0.31}, {subjects[i], 0.31}), SAFETY_NSFW);
        assert_int_equal(JUDGE(false, {BRICK, 0.3}, {subjects[i], 0.31}), SAFETY_OK);
        assert_int_equal(JUDGE(false, {BRICK, 0.31}, {subjects[i], 0.3}), SAFETY_OK);
    }
}

static void danger_and_nsfw_is_csam(void **state)
{
    assert_int_equal(JUDGE(false, {CHILD, 0.51}, {BRICK, 0.31}), SAFETY_CSAM);
    assert_int_equal(JUDGE(false, {SMALL, 0.51}, {CUP, 0.31}), SAFETY_CSAM);
    assert_int_equal(JUDGE(false, {CHILD, 0.5}, {BRICK, 0.31}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CHILD, 0.51}, {BRICK, 0.3}), SAFETY_OK);
}

/* Half the way to danger, twice; two words for one thing are one. */
static void the_second_look_counts(void **state)
{
    assert_int_equal(JUDGE(false, {CHILD, 0.41}, {SMALL, 0.41}, {BRICK, 0.4}), SAFETY_CSAM);
    assert_int_equal(JUDGE(false, {CHILD, 0.41}, {SMALL, 0.39}, {BRICK, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CHILD, 0.42}, {CHILDREN, 0.41}, {BRICK, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CHILD, 0.41}, {CHILDREN, 0.42}, {BRICK, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CHILD, 0.42}, {CHILDREN, 0.41}, {SMALL, 0.41}, {BRICK, 0.4}),
                     SAFETY_CSAM);
    /* a suspect prompt: a quarter of the way */
    assert_int_equal(JUDGE(false, {CHILD, 0.36}, {SMALL, 0.36}, {BRICK, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(true, {CHILD, 0.36}, {SMALL, 0.36}, {BRICK, 0.4}), SAFETY_CSAM);
    /* persons count in drawings only */
    assert_int_equal(JUDGE(false, {WOMAN, 0.9}, {CHILD, 0.41}, {BRICK, 0.4}), SAFETY_NSFW);
}

static void drawings_have_their_own_thresholds(void **state)
{
    /* CUP at 0.2 there, BRICK is unreliable there; a tenth of the way to danger */
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {WOMAN, 0.4}), SAFETY_OK);
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {BRICK, 0.35}, {DRAWING, 0.4}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}, {CHILD, 0.33}, {WOMAN, 0.33}),
                     SAFETY_CSAM);
    assert_int_equal(JUDGE(false, {BRICK, 0.35}, {DRAWING, 0.4}, {CHILD, 0.33}, {WOMAN, 0.33}),
                     SAFETY_DOUBT);
    assert_int_equal(JUDGE(false, {BRICK, 0.35}, {DRAWING, 0.4}, {CHILD, 0.51}), SAFETY_DOUBT);
    /* SMALL does not count in the second look at drawings */
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}, {CHILD, 0.33}, {SMALL, 0.33}),
                     SAFETY_NSFW);
    assert_int_equal(JUDGE(true, {CUP, 0.25}, {DRAWING, 0.4}, {CHILD, 0.315}, {WOMAN, 0.31}),
                     SAFETY_CSAM);
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}, {CHILD, 0.315}, {WOMAN, 0.31}),
                     SAFETY_NSFW);
}

static void a_photo_is_no_drawing(void **state)
{
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}, {PHOTO, 0.61}), SAFETY_OK);
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.4}, {PHOTO, 0.6}), SAFETY_NSFW);
    assert_int_equal(JUDGE(false, {CUP, 0.25}, {DRAWING, 0.51}, {PHOTO, 0.61}), SAFETY_NSFW);
}

static void what_is_no_number_has_failed(void **state)
{
    float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < COUNT_OF(bad); k++)
        for (int i = 0; i < PHRASES_COUNT; i++) {
            float s[PHRASES_COUNT] = {0};
            s[i] = bad[k];
            assert_int_equal(safety_rules_judge(*state, s, false), SAFETY_FAILED);
        }
}

static void the_negative_prompt_is_read(void **state)
{
    static const struct {
        const char *prompt;
        bool suspect;
    } cases[] = {
        {NULL, false},
        {"", false},
        {"an old man", false},
        {"a house ### blurry", false},
        {"a house ### bold", false}, /* the word begins with a space */
        {"a house ### old", true},
        {"a house###Old", true},
        {"a house ### ugly,OLD_man", true},
        {"a house ### (old:1.3)", true},
        {"a house ### o l d", true},
        {"a house ### a b", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (safety_rules_suspect(*state, cases[i].prompt) != cases[i].suspect)
            fail_msg("'%s'", cases[i].prompt);
}

static void half_a_table_is_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "empty"},
        {"\xff\n", "no UTF-8"},
        {PHRASES, "drawn_sure is missing"},
        {SETTINGS "setting\tmatches\t3\n" PHRASES, "line 8: this setting stands here twice"},
        {SETTINGS "setting\tother\t3\n" PHRASES, "no such setting"},
        {"setting\tmatches\tnan\n", "no number"},
        {"setting\tmatches\t-1\n", "no number"},
        {SETTINGS "drawn\t0.3\t-\t-\tdrawing\n", "no phrase has the role person"},
        {SETTINGS PHRASES "older\t0.3\t-\t-\tman\n", "no role"},
        {SETTINGS PHRASES "person\t1.5\t-\t-\tman\n", "line 17: the threshold is no cosine"},
        {SETTINGS PHRASES "person\tnan\t-\t-\tman\n", "the threshold is no cosine"},
        {SETTINGS PHRASES "person\t0.3\tx\t-\tman\n", "the second threshold"},
        {SETTINGS PHRASES "young\t0.3\t-\t-\tbaby\n", "danger threshold"},
        {SETTINGS PHRASES "young\t0.3\t0.2\t-\tbaby\n", "danger threshold"},
        {SETTINGS PHRASES "person\t0.3\t-\tq\tman\n", "flags"},
        {SETTINGS PHRASES "person\t0.3\t-\t-\n", "five columns"},
        {SETTINGS PHRASES "person\t0.3\t-\t-\t\n", "five columns"},
        {SETTINGS PHRASES "person\t0.3\t-\t-\tman\tx\n", "five columns"},
        {SETTINGS PHRASES "pair\tchild\tbrick\n", "a pair names two phrases"},
        {SETTINGS PHRASES "pair\tchild\tchild\n", "a pair names two phrases"},
        {SETTINGS PHRASES "suspect\t\n", "one text"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct safety_rules *r = NULL;
        struct error err = {0};
        int rc = open_text(&r, cases[i].text, &err);
        if (rc != ERR_FORMAT || r || !strstr(err.text, cases[i].words))
            fail_msg("case %zu: %d \"%s\"", i, rc, err.text);
    }
}

static void phrases_have_a_limit(void **state)
{
    size_t room = sizeof whole + (SAFETY_PHRASES_MAX + 8) * 40, n;
    char *text = alloc_zero(room, 1);
    struct safety_rules *r = NULL;
    struct error err = {0};
    n = str_copy(text, room, whole);
    for (int i = PHRASES_COUNT; i <= SAFETY_PHRASES_MAX; i++)
        n += (size_t)snprintf(text + n, room - n, "person\t0.3\t-\t-\tman %d\n", i);
    assert_int_equal(open_text(&r, text, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "1024 phrases"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_ok),
        cmocka_unit_test(a_concept_needs_somebody),
        cmocka_unit_test(danger_and_nsfw_is_csam),
        cmocka_unit_test(the_second_look_counts),
        cmocka_unit_test(drawings_have_their_own_thresholds),
        cmocka_unit_test(a_photo_is_no_drawing),
        cmocka_unit_test(what_is_no_number_has_failed),
        cmocka_unit_test(the_negative_prompt_is_read),
        cmocka_unit_test(half_a_table_is_refused),
        cmocka_unit_test(phrases_have_a_limit),
    };
    return cmocka_run_group_tests(tests, open_whole, close_whole);
}
