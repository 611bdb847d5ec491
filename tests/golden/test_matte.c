/* diffusion/matte against torch (make_matte.py): the mask, the picture, every form of weights. */
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
#include "diffusion/matte/matte.h"
#include "image/codec.h"
#include "image/resize.h"

static const char *folder;
static struct device *device;

static void read_picture(struct pixels *p, const char *name)
{
    struct error err;
    char *path = alloc_printf("%s/%s", folder, name);
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

static struct matte *open_matte(const char *name)
{
    struct matte *m;
    struct error err;
    char *path = alloc_printf("%s/%s", folder, name);
    if (matte_open(&m, device, path, &err)) fail_msg("%s", err.text);
    free(path);
    return m;
}

static int furthest(const struct pixels *a, const struct pixels *b)
{
    int most = 0;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, b->channels);
    for (int i = 0; i < a->width * a->height * a->channels; i++)
        most = abs(a->data[i] - b->data[i]) > most ? abs(a->data[i] - b->data[i]) : most;
    return most;
}

/* The reference's cut of an opaque picture has the mask for its alpha. */
static void alpha_of(struct pixels *mask, const struct pixels *cut)
{
    assert_int_equal(cut->channels, 4);
    assert_int_equal(pixels_new(mask, cut->width, cut->height, 1, NULL), 0);
    for (int i = 0; i < cut->width * cut->height; i++) mask->data[i] = cut->data[i * 4 + 3];
}

static void each_form_cuts_the_same(void **state)
{
    static const char *const forms[] = {"u2net.safetensors", "u2net.onnx", "u2net-norms.onnx"};
    struct pixels source = {0}, cut = {0}, want = {0};
    read_picture(&source, "source.png");
    read_picture(&cut, "cut.png");
    alpha_of(&want, &cut);
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct matte *m = open_matte(forms[i]);
        struct pixels mask = {0}, have = {0}, again = {0};
        struct error err;
        if (matte_mask(m, &mask, &source, &err)) fail_msg("%s", err.text);
        int most = furthest(&mask, &want);
        printf("%s: at most %d of 255 apart\n", forms[i], most);
        assert_true(most <= 1); /* a mask value that falls on the other side of a step */
        if (matte_run(m, &have, &source, NULL, &err)) fail_msg("%s", err.text);
        if (matte_cut(&again, &source, &mask, NULL, &err)) fail_msg("%s", err.text);
        assert_int_equal(furthest(&have, &again), 0);
        pixels_release(&mask);
        pixels_release(&have);
        pixels_release(&again);
        matte_close(m);
    }
    pixels_release(&source);
    pixels_release(&cut);
    pixels_release(&want);
}

/* Without a pixel that is surely foreground the mask itself fades colour and alpha, as rembg does. */
static void a_faint_mask_fades(void **state)
{
    struct pixels source = {0}, cut = {0}, mask = {0}, have = {0};
    struct error err;
    read_picture(&source, "source.png");
    read_picture(&cut, "cut.png");
    alpha_of(&mask, &cut);
    for (int i = 0; i < mask.width * mask.height; i++)
        mask.data[i] = mask.data[i] > 200 ? 200 : mask.data[i];
    if (matte_cut(&have, &source, &mask, NULL, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < mask.width * mask.height; i++) {
        assert_int_equal(have.data[i * 4 + 3], mask.data[i]);
        for (int k = 0; k < 3; k++) {
            int faded = (source.data[i * 3 + k] * mask.data[i] + 127) / 255;
            assert_in_range(have.data[i * 4 + k], faded > 0 ? faded - 1 : 0, faded + 1);
        }
    }
    struct pixels *every[] = {&source, &cut, &mask, &have};
    for (size_t i = 0; i < COUNT_OF(every); i++) pixels_release(every[i]);
}

/* A clear pixel of the source stays clear; grey comes out as RGBA. */
static void alpha_is_kept(void **state)
{
    struct matte *m = open_matte("u2net.onnx");
    struct pixels source = {0}, rgba = {0}, grey = {0}, have = {0};
    struct error err;
    read_picture(&source, "source.png");
    assert_int_equal(pixels_convert(&rgba, &source, 4, &err), 0);
    rgba.data[(20 * rgba.width + 40) * 4 + 3] = 0;
    if (matte_run(m, &have, &rgba, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(have.data[(20 * have.width + 40) * 4 + 3], 0);
    pixels_release(&have);
    assert_int_equal(pixels_convert(&grey, &source, 1, &err), 0);
    if (matte_run(m, &have, &grey, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(have.channels, 4);
    struct pixels *every[] = {&source, &rgba, &grey, &have};
    for (size_t i = 0; i < COUNT_OF(every); i++) pixels_release(every[i]);
    matte_close(m);
}

static bool always(void *context)
{
    return true;
}

static void other_files_are_refused(void **state)
{
    struct matte *m;
    struct error err = {0};
    char *path = alloc_printf("%s/../upscale/x2.safetensors", folder);
    assert_int_equal(matte_open(&m, device, path, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "no U2-Net"));
    free(path);
    m = open_matte("u2net.onnx");
    struct pixels source = {0}, have = {0};
    struct pipeline_hooks hooks = {.canceled = always};
    read_picture(&source, "source.png");
    assert_int_equal(matte_run(m, &have, &source, &hooks, &err), ERR_CANCELED);
    pixels_release(&source);
    matte_close(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_cuts_the_same),
        cmocka_unit_test(a_faint_mask_fades),
        cmocka_unit_test(alpha_is_kept),
        cmocka_unit_test(other_files_are_refused),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_matte FOLDER\n");
        return 2;
    }
    folder = argv[1];
    if (device_open(&device, "cpu", NULL)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(device);
    return rc;
}
