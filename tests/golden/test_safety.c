/* diffusion/safety against torch (make_safety.py), and what it does with files that are not right. */
#include <jansson.h>
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
#include "base/buf.h"
#include "diffusion/safety/notice.h"
#include "diffusion/safety/safety.h"
#include "image/resize.h"
#include "tests/golden/answers.h"

/* a heap whose n-th call fails (linked with --wrap); 0: never */
static int heap_countdown;

void *__real_alloc_try(size_t count, size_t size);
void *__wrap_alloc_try(size_t count, size_t size);
void *__wrap_alloc_try(size_t count, size_t size)
{
    return heap_countdown && --heap_countdown == 0 ? NULL : __real_alloc_try(count, size);
}

void *__real_alloc_try_aligned(size_t alignment, size_t bytes);
void *__wrap_alloc_try_aligned(size_t alignment, size_t bytes);
void *__wrap_alloc_try_aligned(size_t alignment, size_t bytes)
{
    return heap_countdown && --heap_countdown == 0 ? NULL
                                                   : __real_alloc_try_aligned(alignment, bytes);
}

static int try_open(struct safety **s, const char *model, const char *rules, struct error *err)
{
    char *model_path = answers_path(model);
    char *rules_path = answers_path(rules);
    char *vocab = answers_path("tokenizer");
    int rc = safety_open(s, answers.device, model_path, rules_path, vocab, err);
    free(model_path);
    free(rules_path);
    free(vocab);
    return rc;
}

static struct safety *must_open(const char *model)
{
    struct safety *s;
    struct error err = {0};
    if (try_open(&s, model, "rules.tsv", &err)) fail_msg("%s", err.text);
    return s;
}

static void vectors_and_cosines_agree_with_torch(void **state)
{
    static const char *const files[] = {"model.safetensors", "openclip.safetensors"};
    json_t *picture;
    size_t k;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct safety *s = must_open(files[i]);
        assert_int_equal(safety_rules(s)->count,
                         json_array_size(json_object_get(answers.expected, "phrases")));
        json_array_foreach(json_object_get(answers.expected, "pictures"), k, picture)
        {
            float vector[16], similarity[16];
            struct pixels p;
            struct error err;
            const char *name = json_string_value(json_object_get(picture, "name"));
            answers_picture(&p, name);
            assert_int_equal(safety_width(s), 16);
            if (safety_look(s, &p, vector, similarity, &err)) fail_msg("%s", err.text);
            double a = answers_distance(vector, json_object_get(picture, "vector"));
            double b = answers_distance(similarity, json_object_get(picture, "similarity"));
            printf("%s %s: vector %.1e, cosines %.1e\n", files[i], name, a, b);
            assert_true(a < 1e-4 && b < 1e-4);
            pixels_release(&p);
        }
        safety_close(s);
    }
}

/* rules.tsv with every threshold of a role moved to where all or no pictures match. */
static enum safety_verdict verdict_at(double person, double young, double concept,
                                      const char *prompt)
{
    char path[] = "/tmp/kiln-safety-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fputs("setting\tdrawn_sure\t0.9\nsetting\tphoto_above\t0.9\nsetting\tdrawn_share\t0.1\n"
          "setting\tdrawn_doubt\t0\nsetting\tother_share\t1\nsetting\tother_doubt\t0\n"
          "setting\tmatches\t1\nsuspect\t old\ndrawn\t1\t-\t-\tdrawing\nlewd\t1\t-\t-\tvase\n",
          f);
    fprintf(f, "person\t%g\t-\t-\twoman\n", person);
    fprintf(f, "young\t%g\t1\t-\tlittle child\n", young);
    fprintf(f, "concept\t%g\t-\t-\tblue cup\n", concept);
    fclose(f);
    struct safety *s;
    struct pixels p;
    struct error err = {0};
    enum safety_verdict v;
    if (try_open(&s, "model.safetensors", path, &err)) fail_msg("%s", err.text);
    answers_picture(&p, "wide");
    assert_int_equal(safety_check(s, &p, prompt, &v, &err), 0);
    pixels_release(&p);
    safety_close(s);
    unlink(path);
    return v;
}

static void a_check_ends_in_each_verdict(void **state)
{
    assert_int_equal(verdict_at(-1, 1, 1, NULL), SAFETY_OK);
    assert_int_equal(verdict_at(1, 1, -1, "a pot"), SAFETY_OK); /* nobody there to look at */
    assert_int_equal(verdict_at(-1, 1, -1, "a pot"), SAFETY_NSFW);
    /* the second look begins at 1 without, at the first threshold with a suspect prompt */
    assert_int_equal(verdict_at(-1, -1, -1, "a pot"), SAFETY_NSFW);
    assert_int_equal(verdict_at(-1, -1, -1, "a pot ### blurry, Old"), SAFETY_CSAM);
    assert_int_equal(verdict_at(-1, -1, 1, "a pot ### blurry, old"), SAFETY_OK);
}

/* A copy of the model with `bytes` of it, the last `spoilt` of them set to 0xff (halves: NaN). */
static char *spoil(const char *name, size_t cut, size_t spoilt)
{
    struct buf b;
    struct error err;
    char *from = answers_path("model.safetensors"),
         *to = alloc_printf("/tmp/kiln-safety-%d-%s", (int)getpid(), name);
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_read_file(&b, from, &err), 0);
    memset(b.data + b.length - spoilt, 0xff, spoilt);
    buf_truncate(&b, b.length - cut);
    assert_int_equal(buf_write_file(&b, to, 0600, &err), 0);
    buf_release(&b);
    free(from);
    return to;
}

static void what_is_not_whole_is_refused(void **state)
{
    struct safety *s;
    struct error err = {0};
    assert_int_equal(try_open(&s, "no-such-file.safetensors", "rules.tsv", &err), ERR_NOT_FOUND);
    assert_int_equal(try_open(&s, "model.safetensors", "no-such-table.tsv", &err), ERR_NOT_FOUND);
    char *other = answers_path("../upscale/x2.safetensors");
    char *absolute = realpath(other, NULL);
    assert_non_null(absolute);
    assert_int_equal(try_open(&s, absolute, "rules.tsv", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no CLIP vision transformer"));
    free(other);
    free(absolute);
    char *shorter = spoil("short.safetensors", 4000, 0);
    assert_int_equal(try_open(&s, shorter, "rules.tsv", &err), ERR_FORMAT);
    unlink(shorter);
    free(shorter);
}

/* The file ends with the projection of pictures: phrases are fine, pictures have no numbers. */
static void weights_that_are_no_numbers_are_no_model(void **state)
{
    char *path = spoil("nan.safetensors", 0, 512);
    struct safety *s = NULL;
    struct error err = {0};
    assert_int_equal(try_open(&s, path, "rules.tsv", &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no numbers"));
    assert_null(s);
    unlink(path);
    free(path);
}

/* Whichever allocation fails: no model, or a failed check; never a verdict. */
static void an_empty_heap_is_a_failed_check(void **state)
{
    int opened = 0, checked = 0;
    struct safety *s = NULL;
    struct error err = {0};
    for (int n = 1; !s; n++, opened++) {
        heap_countdown = n;
        int rc = try_open(&s, "model.safetensors", "rules.tsv", &err);
        bool met = heap_countdown == 0;
        heap_countdown = 0;
        assert_true(rc ? rc == ERR_NO_MEMORY && met : !met);
    }
    struct pixels p;
    answers_picture(&p, "wide");
    for (bool met = true; met; checked++) {
        enum safety_verdict v = SAFETY_OK;
        heap_countdown = checked + 1;
        int rc = safety_check(s, &p, "a pot ### old", &v, &err);
        met = heap_countdown == 0;
        heap_countdown = 0;
        assert_true(!met || rc == 0 || (rc == ERR_NO_MEMORY && v == SAFETY_FAILED));
        if (rc) assert_int_equal(v, SAFETY_FAILED);
    }
    printf("%d calls when opening, %d when checking\n", opened - 1, checked - 1);
    assert_true(opened > 3 && checked > 3);
    pixels_release(&p);
    safety_close(s);
}

static void alpha_and_grey_are_pictures_too(void **state)
{
    struct safety *s = must_open("model.safetensors");
    struct pixels rgb, grey, alpha;
    struct error err = {0};
    float a[16], b[16];
    answers_picture(&rgb, "wide");
    assert_int_equal(pixels_convert(&alpha, &rgb, 4, &err), 0);
    assert_int_equal(pixels_convert(&grey, &rgb, 1, &err), 0);
    assert_int_equal(safety_look(s, &rgb, NULL, a, &err), 0);
    assert_int_equal(safety_look(s, &alpha, NULL, b, &err), 0);
    assert_memory_equal(a, b, (size_t)safety_rules(s)->count * sizeof *a);
    assert_int_equal(safety_look(s, &grey, NULL, b, &err), 0);
    pixels_release(&rgb);
    pixels_release(&grey);
    pixels_release(&alpha);
    safety_close(s);
}

static void a_notice_keeps_no_pixel(void **state)
{
    struct error err;
    for (int channels = 1; channels <= 4; channels += channels == 1 ? 2 : 1) {
        struct pixels a, b;
        bool two = false;
        assert_int_equal(pixels_new(&a, 96, 64, channels, &err), 0);
        assert_int_equal(pixels_new(&b, 96, 64, channels, &err), 0);
        size_t bytes = (size_t)(96 * 64 * channels);
        for (size_t i = 0; i < bytes; i++) a.data[i] = (uint8_t)(i * 31), b.data[i] = (uint8_t)~i;
        notice_replace(&a);
        notice_replace(&b);
        assert_memory_equal(a.data, b.data, bytes);
        for (size_t i = 0; i < bytes; i += (size_t)channels) two = two || a.data[i] != a.data[0];
        assert_true(two); /* a sign on a ground */
        pixels_release(&a);
        pixels_release(&b);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_and_cosines_agree_with_torch),
        cmocka_unit_test(a_check_ends_in_each_verdict),
        cmocka_unit_test(what_is_not_whole_is_refused),
        cmocka_unit_test(weights_that_are_no_numbers_are_no_model),
        cmocka_unit_test(an_empty_heap_is_a_failed_check),
        cmocka_unit_test(alpha_and_grey_are_pictures_too),
        cmocka_unit_test(a_notice_keeps_no_pixel),
    };
    if (!answers_open(argc, argv, "expected.json")) return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    answers_close();
    return failed;
}
