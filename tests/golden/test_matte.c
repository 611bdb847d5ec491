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

static void each_form_cuts_the_same(void **state)
{
    static const char *const forms[] = {"u2net.safetensors", "u2net.onnx", "u2net-norms.onnx"};
    struct pixels source = {0}, want = {0};
    read_picture(&source, "source.png");
    read_picture(&want, "cut.png");
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct matte *m = open_matte(forms[i]);
        struct pixels have = {0};
        struct error err;
        if (matte_run(m, &have, &source, NULL, &err)) fail_msg("%s", err.text);
        int most = furthest(&have, &want);
        printf("%s: at most %d of 255 apart\n", forms[i], most);
        assert_true(most <= 1); /* a mask value that falls on the other side of a step */
        pixels_release(&have);
        matte_close(m);
    }
    pixels_release(&source);
    pixels_release(&want);
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
