/* diffusion/upscale against torch (make_upscale.py), and against itself in tiles. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/upscale/upscaler.h"
#include "image/codec.h"
#include "image/resize.h"

static const char *folder;

static void read_picture(struct pixels *p, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/%s", folder, name);
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

static struct upscaler *open_upscaler(struct device *d, const char *name)
{
    struct upscaler *u;
    struct error err;
    char *path = alloc_printf("%s/%s", folder, name);
    if (upscaler_open(&u, d, path, PRECISION_FP32, &err)) fail_msg("%s", err.text);
    free(path);
    return u;
}

static double psnr(const struct pixels *a, const struct pixels *b, int channels)
{
    double squares = 0;
    int64_t n = (int64_t)a->width * a->height;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < channels; k++) {
            double d = (double)a->data[i * a->channels + k] - b->data[i * b->channels + k];
            squares += d * d;
        }
    return squares == 0 ? 120 : 10 * log10(65025.0 * (double)n * channels / squares);
}

static void each_form_agrees_with_torch(void **state)
{
    static const struct {
        const char *file, *picture;
        int factor;
    } cases[] = {{"x4.pth", "x4.png", 4},
                 {"x2.safetensors", "x2.png", 2},
                 {"old.safetensors", "old.png", 4}};
    struct device *d;
    assert_int_equal(device_open(&d, "cpu", NULL), 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct upscaler *u = open_upscaler(d, cases[i].file);
        struct pixels source = {0}, want = {0}, have = {0};
        struct error err;
        read_picture(&source, "source.png");
        read_picture(&want, cases[i].picture);
        assert_int_equal(upscaler_factor(u), cases[i].factor);
        if (upscaler_run(u, &have, &source, NULL, &err)) fail_msg("%s", err.text);
        double db = psnr(&have, &want, 3);
        printf("%s: %.1f dB\n", cases[i].file, db);
        assert_true(db >= 45);
        pixels_release(&source);
        pixels_release(&want);
        pixels_release(&have);
        upscaler_close(u);
    }
    device_close(d);
}

/* A picture of several tiles: its middle is what the middle gives alone. Alpha stays. */
static void tiles_meet_without_seams(void **state)
{
    struct device *d;
    struct pixels source = {0}, wide = {0}, rgba = {0}, all = {0}, middle = {0}, part = {0},
                  cut = {0};
    struct error err;
    assert_int_equal(device_open(&d, "cpu", NULL), 0);
    struct upscaler *u = open_upscaler(d, "x2.safetensors");
    read_picture(&source, "source.png");
    assert_int_equal(pixels_resize(&wide, &source, 260, 210, RESIZE_BICUBIC, &err), 0);
    assert_int_equal(pixels_convert(&rgba, &wide, 4, &err), 0);
    if (upscaler_run(u, &all, &rgba, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(all.channels, 4);
    assert_int_equal(all.data[3], 255);
    assert_int_equal(pixels_crop(&middle, &wide, 130, 120, 100, 90, &err), 0);
    if (upscaler_run(u, &part, &middle, NULL, &err)) fail_msg("%s", err.text);
    struct pixels inner = {0};
    assert_int_equal(pixels_crop(&cut, &all, 2 * (130 + 40), 2 * (120 + 40), 40, 20, &err), 0);
    assert_int_equal(pixels_crop(&inner, &part, 80, 80, 40, 20, &err), 0);
    double db = psnr(&cut, &inner, 3);
    printf("tiles: %.1f dB\n", db);
    assert_true(db >= 45);
    struct pixels *every[] = {&source, &wide, &rgba, &all, &middle, &part, &cut, &inner};
    for (size_t i = 0; i < COUNT_OF(every); i++) pixels_release(every[i]);
    upscaler_close(u);
    device_close(d);
}

static void other_files_are_refused(void **state)
{
    struct device *d;
    struct upscaler *u;
    struct error err = {0};
    assert_int_equal(device_open(&d, "cpu", NULL), 0);
    char *path = alloc_printf("%s/../reference/lora/peft.safetensors", folder);
    assert_int_equal(upscaler_open(&u, d, path, PRECISION_FP32, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no upscaler"));
    free(path);
    device_close(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_agrees_with_torch),
        cmocka_unit_test(tiles_meet_without_seams),
        cmocka_unit_test(other_files_are_refused),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_upscale FOLDER\n");
        return 2;
    }
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
