/*
 * A fresh engine and a warm one draw the same picture, every byte of it: how often a weight was used, what was drawn
 * before and what memory was touched leave no trace.
 *
 * usage: test_warm DATA
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/golden/golden.h"

static const char *data;

/* 64x128: no square, and more than one task. `steps` are uses of every weight, twice as many guided. */
static struct pixels draw(struct golden *g, const char *model, int width, int height, int steps)
{
    json_t *c = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:f,s:s,s:i}", "id", "warm", "model", model,
                          "prompt", "a red house", "negative", "fog", "width", width, "height",
                          height, "steps", steps, "cfg", 5.0, "sampler", "k_euler_a", "seed", 11);
    struct image_request r;
    struct pipeline_result result = {0};
    struct error err;
    golden_request(g, &r, c);
    if (pipeline_run(golden_model(g, c), &r, NULL, &result, &err)) fail_msg("%s", err.text);
    assert_int_equal(result.count, 1);
    struct pixels p = result.images[0];
    result.images[0] = (struct pixels){0};
    pipeline_result_release(&result);
    image_request_release(&r);
    json_decref(c);
    return p;
}

static void expect_same(const struct pixels *a, const struct pixels *b, const char *when)
{
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    size_t bytes = (size_t)(a->width * a->height * a->channels);
    if (memcmp(a->data, b->data, bytes) != 0) fail_msg("other bytes %s", when);
}

static void fresh_and_warm(void **state)
{
    static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_INT8};
    static const char *const models[] = {"sd1", "sdxl"};
    for (size_t i = 0; i < COUNT_OF(precisions); i++) {
        struct golden warm, fresh;
        golden_open(&warm, data, precisions[i]);
        for (size_t k = 0; k < COUNT_OF(models); k++) {
            struct pixels first = draw(&warm, models[k], 64, 128, 3);
            /* past the eight uses after which packed weights are kept, in other shapes too */
            struct pixels other = draw(&warm, models[k], 128, 64, 5);
            struct pixels again = draw(&warm, models[k], 64, 128, 3);
            expect_same(&first, &again, "in a warm engine");
            golden_open(&fresh, data, precisions[i]);
            struct pixels third = draw(&fresh, models[k], 64, 128, 3);
            expect_same(&again, &third, "in a fresh engine");
            golden_close(&fresh);
            struct pixels *all[] = {&first, &other, &again, &third};
            for (size_t j = 0; j < COUNT_OF(all); j++) pixels_release(all[j]);
        }
        golden_close(&warm);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fresh_and_warm)};
    if (argc < 2) {
        fprintf(stderr, "usage: test_warm DATA\n");
        return 2;
    }
    data = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
