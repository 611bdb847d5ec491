/* Transparent pictures (LayerDiffuse) against make_layered.py: the decoder of alpha by itself, whole
 * pictures of the tiny SD1 and SDXL models, and what is refused. */
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
#include "diffusion/layered/alpha_decoder.h"
#include "golden.h"
#include "image/codec.h"

static const char *reference, *folder;

static char *path_of(const char *name)
{
    return alloc_printf("%s/%s", folder, name);
}

static struct weight_store *open_store(const char *name)
{
    struct weight_store *s;
    struct error err;
    char *path = path_of(name);
    if (weight_store_open(&s, path, &err)) fail_msg("%s", err.text);
    free(path);
    return s;
}

static void the_decoder_sees_what_the_reference_sees(void **state)
{
    enum { H = 64, W = 128, N = H * W };
    struct weight_store *golden = open_store("decoder.safetensors");
    struct alpha_decoder *d;
    struct device *device;
    struct pass_memory memory;
    struct error err;
    char *path = path_of("layer_sd15_vae_transparent_decoder.safetensors");
    assert_int_equal(device_open(&device, "cpu", NULL), 0);
    if (alpha_decoder_open(&d, device, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(alpha_decoder_multiple(d), 64);
    pass_memory_init(&memory, device, 0);
    const float *x = weight_store_find(golden, "x")->data,
                *z = weight_store_find(golden, "z")->data,
                *y = weight_store_find(golden, "median")->data;
    float *picture = alloc_zero(3 * N, sizeof *picture), *rgba = alloc_zero(4 * N, sizeof *rgba);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 3; c++) picture[i * 3 + c] = x[c * N + i];
    if (alpha_decode_picture(d, &memory, DTYPE_F32, picture, z, H, W, rgba, NULL, NULL, &err))
        fail_msg("%s", err.text);
    double off = 0, norm = 0;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 4; c++) {
            double want = (double)y[c * N + i]; /* alpha first */
            off += pow((double)rgba[i * 4 + (c + 3) % 4] - want, 2);
            norm += want * want;
        }
    printf("decoder: %.2g\n", sqrt(off / norm));
    assert_true(sqrt(off / norm) <= 1e-5);
    assert_int_equal(
        alpha_decode_picture(d, &memory, DTYPE_F32, picture, z, 32, W, rgba, NULL, NULL, &err),
        ERR_INVALID);
    assert_non_null(strstr(err.text, "multiples of 64, not 128 x 32"));
    free(picture);
    free(rgba);
    alpha_decoder_close(d);
    pass_memory_release(&memory);
    device_close(device);
    weight_store_close(golden);
    free(path);
}

static double db_of(const struct pixels *a, const struct pixels *b, int from, int to)
{
    double sum = 0;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 4);
    assert_int_equal(b->channels, 4);
    int64_t n = (int64_t)a->width * a->height;
    for (int64_t i = 0; i < n; i++)
        for (int c = from; c < to; c++)
            sum += pow((double)a->data[i * 4 + c] - (double)b->data[i * 4 + c], 2);
    return sum > 0 ? 10 * log10(255 * 255 * (double)(n * (to - from)) / sum) : INFINITY;
}

static void read_png(struct pixels *p, const char *name)
{
    struct error err;
    char *path = path_of(name);
    *p = (struct pixels){0};
    if (image_read(p, NULL, path, &err)) fail_msg("%s", err.text);
    free(path);
}

static void draw(struct golden *g, const json_t *c, bool transparent, struct pipeline_result *made)
{
    struct image_request r;
    struct pipeline_hooks hooks = {.layered = folder};
    struct error err;
    golden_request(g, &r, c);
    r.transparent = transparent;
    if (pipeline_run(golden_model(g, c), &r, &hooks, made, &err)) fail_msg("%s", err.text);
    assert_int_equal(made->count, 1);
    assert_int_equal(made->note_count, 0);
    image_request_release(&r);
}

static json_t *cases(void)
{
    char *path = path_of("cases.json");
    json_t *list = json_load_file(path, 0, NULL);
    assert_non_null(list);
    free(path);
    return list;
}

static void check_pictures(enum precision precision, double least)
{
    struct golden g;
    json_t *list = cases(), *c;
    size_t i;
    golden_open(&g, reference, precision);
    json_array_foreach(list, i, c)
    {
        struct pipeline_result first = {0}, plain = {0}, again = {0};
        struct pixels want;
        char *name = alloc_printf("%s.png", golden_string(c, "id", ""));
        read_png(&want, name);
        draw(&g, c, true, &first);
        double colour = db_of(&first.images[0], &want, 0, 3),
               alpha = db_of(&first.images[0], &want, 3, 4);
        printf("%s: colour %.1f dB, alpha %.1f dB\n", golden_string(c, "id", ""), colour, alpha);
        assert_true(colour >= least && alpha >= least);
        draw(&g, c, false, &plain); /* and the model is as it was */
        assert_int_equal(plain.images[0].channels, 3);
        draw(&g, c, true, &again);
        assert_memory_equal(first.images[0].data, again.images[0].data,
                            (size_t)want.width * (size_t)want.height * 4);
        pipeline_result_release(&first);
        pipeline_result_release(&plain);
        pipeline_result_release(&again);
        pixels_release(&want);
        free(name);
    }
    json_decref(list);
    golden_close(&g);
}

static void pictures_are_the_references(void **state)
{
    check_pictures(PRECISION_FP32, 45);
}

static void bf16_is_near(void **state)
{
    check_pictures(PRECISION_BF16, 30);
}

static void refuse(struct golden *g, const json_t *c, const char *model, const char *layered,
                   int code, const char *words)
{
    struct image_request r;
    struct pipeline_hooks hooks = {.layered = layered};
    struct pipeline_result made = {0};
    struct error err;
    json_t *other = json_deep_copy(c);
    if (model) json_object_set_new(other, "model", json_string(model));
    golden_request(g, &r, other);
    r.transparent = true;
    assert_int_equal(pipeline_run(golden_model(g, other), &r, &hooks, &made, &err), code);
    if (!strstr(err.text, words)) fail_msg("\"%s\" lacks \"%s\"", err.text, words);
    assert_int_equal(made.count, 0);
    image_request_release(&r);
    json_decref(other);
}

static void what_cannot_be_is_refused(void **state)
{
    struct golden g;
    json_t *list = cases(), *sd1 = json_array_get(list, 0);
    golden_open(&g, reference, PRECISION_FP32);
    refuse(&g, sd1, "sd2", folder, ERR_UNSUPPORTED, "for SD 1.x and SDXL, not SD 2.x");
    refuse(&g, sd1, NULL, NULL, ERR_NOT_FOUND, "kiln models get layer_diffuse");
    refuse(&g, sd1, NULL, "/nowhere", ERR_NOT_FOUND, "layer_sd15_vae_transparent_decoder");
    json_decref(list);
    golden_close(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_decoder_sees_what_the_reference_sees),
        cmocka_unit_test(pictures_are_the_references),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    if (argc < 3) {
        fprintf(stderr, "usage: test_layered REFERENCE FOLDER\n");
        return 2;
    }
    reference = argv[1];
    folder = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
