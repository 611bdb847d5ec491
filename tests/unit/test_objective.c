/* What a denoiser is asked: pyramid noise, cuts and masks of a training's examples. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "dataset/bucket.h"
#include "dataset/region_mask.h"
#include "diffusion/train/objective.h"

#define H 24
#define W 32
#define C 4
#define COUNT (H * W * C)

static struct objective pyramid_of(int levels, double discount)
{
    struct objective o;
    objective_init(&o, PREDICTION_EPSILON);
    o.pyramid = levels;
    o.pyramid_discount = discount;
    return o;
}

static void draw(float *noise, const struct objective *o, int64_t step)
{
    struct noise_cpu g;
    objective_seed(&g, 3, step, 0);
    objective_draw(o, &g, noise, H, W, C);
}

/* Mean over images of the variance of 8 x 8 block means: 1/64 for white noise. */
static double coarse_variance(const struct objective *o, double *deviation)
{
    static float noise[COUNT];
    double sum = 0, squares = 0;
    for (int64_t step = 0; step < 40; step++) {
        draw(noise, o, step);
        for (int i = 0; i < COUNT; i++) squares += (double)noise[i] * (double)noise[i];
        for (int block = 0; block < H / 8 * (W / 8); block++)
            for (int c = 0; c < C; c++) {
                double mean = 0;
                for (int i = 0; i < 64; i++) {
                    int y = block / (W / 8) * 8 + i / 8, x = block % (W / 8) * 8 + i % 8;
                    mean += (double)noise[(y * W + x) * C + c] / 64;
                }
                sum += mean * mean;
            }
    }
    *deviation = sqrt(squares / (40. * COUNT));
    return sum / (40. * (H / 8) * (W / 8) * C);
}

static void pyramid_noise_has_coarse_parts(void **state)
{
    struct objective white = pyramid_of(0, .3), some = pyramid_of(6, .3), more = pyramid_of(6, .6);
    double deviation, a = coarse_variance(&white, &deviation);
    assert_true(fabs(deviation - 1) < .01 && fabs(a * 64 - 1) < .15);
    double b = coarse_variance(&some, &deviation);
    assert_true(fabs(deviation - 1) < .02 && b > 1.5 * a);
    double c = coarse_variance(&more, &deviation);
    assert_true(fabs(deviation - 1) < .05 && c > 2 * b);
    static float once[COUNT], again[COUNT];
    draw(once, &some, 7);
    draw(again, &some, 7);
    assert_memory_equal(once, again, sizeof once);
    draw(again, &some, 8);
    assert_memory_not_equal(once, again, sizeof once);
}

static void random_cuts_stay_inside(void **state)
{
    struct bucket b = {512, 448};
    for (int i = 0; i < 200; i++) {
        double u = i % 10 / 9., v = i / 10 % 10 / 9., zoom = 1 + i % 7 / 6.;
        struct cover c = bucket_cut(b, 1000, 700, zoom, u, v);
        assert_true(c.left >= 0 && c.top >= 0);
        assert_true(c.left + b.width <= c.width && c.top + b.height <= c.height);
        if (u == 1) assert_int_equal(c.left + b.width, c.width);
    }
    struct cover middle = bucket_cover(b, 1000, 700), same = bucket_cut(b, 1000, 700, 1, .5, .5);
    assert_memory_equal(&middle, &same, sizeof same);
}

static void check_cell(const float *mask, int w, int x, int y, double value)
{
    if (!(fabs((double)mask[y * w + x] - value) < 1e-6))
        fail_msg("the mask at %d,%d is %g, not %g", x, y, (double)mask[y * w + x], value);
}

static void masks_follow_regions(void **state)
{
    char oven[] = "oven", roof[] = "roof", ignore[] = "Ignore", kerb[] = "kerb";
    /* a picture of 80x80, a grid of 10x10 cells */
    double ring[] = {40, 40, 80, 40, 80, 80, NAN, NAN, 60, 44, 76, 44, 76, 60};
    struct region regions[] = {
        {.kind = REGION_BOX, .label = oven, .x = 8, .y = 8, .w = 20, .h = 16},
        {.kind = REGION_POLYGON,
         .label = roof,
         .x = 40,
         .y = 40,
         .w = 40,
         .h = 40,
         .point = ring,
         .point_count = 7},
        {.kind = REGION_BOX, .label = ignore, .x = 8, .y = 8, .w = 8, .h = 8},
        {.kind = REGION_LINE, .label = kerb, .x = 0, .y = 60, .w = 30, .h = 10},
    };
    struct annotated a = {.region = regions, .region_count = 4};
    struct mask_part whole = {0, 0, 80, 80};
    float *mask = region_mask(&a, &whole, 10, 10, .25);
    assert_non_null(mask);
    check_cell(mask, 10, 0, 0, .25); /* outside */
    check_cell(mask, 10, 1, 1, 0);   /* ignored, though in the box */
    check_cell(mask, 10, 2, 2, 1);
    check_cell(mask, 10, 3, 2, .25 + .75 / 2);       /* half of the cell */
    check_cell(mask, 10, 1, 8, .25);                 /* a line has no inside */
    check_cell(mask, 10, 5, 5, .25 + .75 * 10 / 16); /* the diagonal; points on it count */
    check_cell(mask, 10, 5, 8, .25);
    check_cell(mask, 10, 8, 5, .25 + .75 / 2); /* the inner ring is a hole */
    check_cell(mask, 10, 9, 8, 1);
    free(mask);
    /* the lower right quarter alone, on a finer grid */
    struct mask_part quarter = {40, 40, 40, 40};
    mask = region_mask(&a, &quarter, 10, 10, 0);
    check_cell(mask, 10, 9, 9, .625);
    check_cell(mask, 10, 0, 5, 0);
    check_cell(mask, 10, 9, 7, 1);
    free(mask);
    /* nothing but what is to be ignored: the rest counts wholly; nothing marked: no mask */
    struct annotated ignored = {.region = &regions[2], .region_count = 1};
    mask = region_mask(&ignored, &whole, 10, 10, .25);
    check_cell(mask, 10, 1, 1, 0);
    check_cell(mask, 10, 5, 5, 1);
    free(mask);
    struct annotated line = {.region = &regions[3], .region_count = 1};
    assert_null(region_mask(&line, &whole, 10, 10, .25));
    assert_null(region_mask(NULL, &whole, 10, 10, .25));
    a.region_count = 2;
    assert_null(region_mask(&a, &whole, 10, 10, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pyramid_noise_has_coarse_parts),
        cmocka_unit_test(random_cuts_stay_inside),
        cmocka_unit_test(masks_follow_regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
