/*
 * Soft edges against pymatting, as rembg's alpha_matting calls it (make_matting.py).
 *
 * usage: test_matting DATA
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/matte/matte.h"
#include "diffusion/matte/matting.h"
#include "image/codec.h"
#include "image/resize.h"

static const char *data;

static void read_picture(struct pixels *p, const char *name, const char *tail, int channels)
{
    struct error err;
    struct pixels raw;
    char *path = alloc_printf("%s/%s%s.png", data, name, tail);
    if (image_read(&raw, NULL, path, &err)) fail_msg("%s", err.text);
    if (pixels_convert(p, &raw, channels, &err)) fail_msg("%s: %s", path, err.text);
    pixels_release(&raw);
    free(path);
}

static void edges_are_pymatting_s(void **state)
{
    static const char *const names[] = {"wide", "tall"};
    for (size_t k = 0; k < COUNT_OF(names); k++) {
        struct pixels rgb, mask, want, have;
        struct error err;
        int off[2] = {0}, most[2] = {0};
        read_picture(&rgb, names[k], "", 3);
        read_picture(&mask, names[k], "_mask", 1);
        read_picture(&want, names[k], "_cut", 4);
        if (matte_cut(&have, &rgb, &mask, NULL, &err)) fail_msg("%s", err.text);
        int n = rgb.width * rgb.height;
        for (int i = 0; i < n * 4; i++) {
            int d = abs(have.data[i] - want.data[i]), alpha = i % 4 == 3;
            off[alpha] += d > 0;
            if (d > most[alpha]) most[alpha] = d;
        }
        print_message("%s: alpha differs in %d of %d (at most %d), colours in %d (at most %d)\n",
                      names[k], off[1], n, most[1], off[0], most[0]);
        /* both cut numbers off to bytes */
        assert_true(most[0] <= 1 && most[1] <= 1);
        assert_true(off[1] <= n / 100 && off[0] <= n * 3 / 100);
        struct pixels *every[] = {&rgb, &mask, &want, &have};
        for (size_t i = 0; i < COUNT_OF(every); i++) pixels_release(every[i]);
    }
}

/* Worked by hand: 10 x 10 squares reach 5 to the left and 4 to the right; outside is background. */
static void the_trimap_is_shrunk(void **state)
{
    struct pixels mask;
    struct error err;
    uint8_t trimap[40 * 30];
    assert_int_equal(pixels_new(&mask, 40, 30, 1, &err), 0);
    for (int i = 0; i < 40 * 30; i++) mask.data[i] = i % 40 >= 20 ? 255 : 0;
    if (matting_trimap(trimap, &mask, &err)) fail_msg("%s", err.text);
    for (int y = 0; y < 30; y++)
        for (int x = 0; x < 40; x++) {
            enum trimap want = x <= 15 ? TRIMAP_BACKGROUND : TRIMAP_UNSURE;
            if (x >= 25 && x <= 35 && y >= 5 && y <= 25) want = TRIMAP_FOREGROUND;
            assert_int_equal(trimap[y * 40 + x], want);
        }
    pixels_release(&mask);
}

/* A picture of two plain colours with a known mix between them: closed form is exact there. */
static void a_mix_of_two_colours_is_found(void **state)
{
    enum { W = 48, H = 24 };
    struct pixels rgb;
    struct error err;
    uint8_t trimap[W * H];
    double *alpha = alloc_zero(W * H, sizeof *alpha);
    float *colour = alloc_zero(W * H * 3, sizeof *colour);
    const int fore[3] = {240, 60, 20}, back[3] = {0, 120, 200};
    assert_int_equal(pixels_new(&rgb, W, H, 3, &err), 0);
    for (int i = 0; i < W * H; i++) {
        int x = i % W, share = x < 12        ? 0
                               : x > 36      ? 20
                               : x - 16 < 0  ? 0
                               : x - 16 > 20 ? 20
                                             : x - 16;
        for (int k = 0; k < 3; k++)
            rgb.data[i * 3 + k] = (uint8_t)(back[k] + (fore[k] - back[k]) * share / 20);
        trimap[i] = x < 10 ? TRIMAP_BACKGROUND : x > 40 ? TRIMAP_FOREGROUND : TRIMAP_UNSURE;
    }
    if (matting_alpha(alpha, &rgb, trimap, NULL, NULL, &err)) fail_msg("%s", err.text);
    if (matting_colour(colour, &rgb, alpha, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < W * H; i++) {
        int x = i % W;
        double want = x < 16 ? 0 : x > 36 ? 1 : (x - 16) / 20.0;
        assert_true(fabs(alpha[i] - want) < 1e-3);
        for (int k = 0; k < 3 && want > 0.5; k++)
            assert_true(fabs((double)colour[i * 3 + k] * 255 - fore[k]) < 8);
    }
    pixels_release(&rgb);
    free(alpha);
    free(colour);
}

static bool always(void *context)
{
    return true;
}

static void what_cannot_be_solved_is_said(void **state)
{
    struct pixels rgb;
    struct error err;
    uint8_t trimap[12 * 12];
    double alpha[12 * 12];
    assert_int_equal(pixels_new(&rgb, 12, 12, 3, &err), 0);
    memset(rgb.data, 77, 12 * 12 * 3);
    memset(trimap, TRIMAP_UNSURE, sizeof trimap);
    assert_int_equal(matting_alpha(alpha, &rgb, trimap, NULL, NULL, &err), ERR_INVALID);
    trimap[0] = TRIMAP_BACKGROUND;
    assert_int_equal(matting_alpha(alpha, &rgb, trimap, NULL, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "foreground"));
    trimap[143] = TRIMAP_FOREGROUND;
    assert_int_equal(matting_alpha(alpha, &rgb, trimap, always, NULL, &err), ERR_CANCELED);
    /* one colour everywhere: any answer is an answer, within 0..1 */
    int rc = matting_alpha(alpha, &rgb, trimap, NULL, NULL, &err);
    for (int i = 0; !rc && i < 12 * 12; i++) assert_true(alpha[i] >= 0 && alpha[i] <= 1);
    assert_true(rc == 0 || rc == ERR_INVALID);
    pixels_release(&rgb);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    data = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(edges_are_pymatting_s),
                                       cmocka_unit_test(the_trimap_is_shrunk),
                                       cmocka_unit_test(a_mix_of_two_colours_is_found),
                                       cmocka_unit_test(what_cannot_be_solved_is_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
