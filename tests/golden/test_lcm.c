/* A UNet that is told the guidance scale, and has another count of levels and blocks than the
 * families: read from its shapes, one call against diffusers (make_lcm.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/unet/unet.h"

static const char *folder;

static struct weight_store *open_store(const char *name)
{
    struct weight_store *s;
    struct error err;
    char *path = alloc_printf("%s/%s", folder, name);
    if (weight_store_open(&s, path, &err)) fail_msg("%s", err.text);
    free(path);
    return s;
}

static void the_scale_is_embedded(void **state)
{
    struct weight_store *s = open_store("unet.safetensors"),
                        *golden = open_store("golden.safetensors");
    struct device *d;
    struct pass_memory memory;
    struct unet_config config;
    struct unet m;
    struct error err;
    struct weight_loading l = {.store = s, .prefix = "", .component = "the UNet"};
    if (unet_detect(&config, s, "", &l.dialect, &err)) fail_msg("%s", err.text);
    assert_int_equal(config.levels, 2);
    assert_int_equal(config.blocks[0], 1);
    assert_int_equal(config.guidance, 32);
    config.groups = 8;
    assert_int_equal(unet_init(&m, &config, &err), 0);
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = &err};
    unet_visit(&v, &m);
    if (v.failed || weight_loading_check(&l, &err)) fail_msg("%s", err.text);
    assert_int_equal(weight_store_ignored(s, NULL), 0);
    m.guidance_scale = 4.5;

    struct pass p;
    struct unet_context c;
    assert_int_equal(device_open(&d, "cpu", NULL), 0);
    pass_memory_init(&memory, d, 0);
    pass_start(&p, &memory, DTYPE_F32, NULL);
    const float *x = weight_store_find(golden, "x")->data,
                *y = weight_store_find(golden, "y")->data;
    struct tensor text =
        pass_input(&p, weight_store_find(golden, "text")->data, 3, TENSOR_DIM(1, 77, 16));
    assert_int_equal(unet_context_init(&c, &p, &m, text, (struct tensor){0}), 0);
    struct tensor t = op_to_channels_last(&p, pass_input(&p, x, 4, TENSOR_DIM(1, 4, 8, 16)));
    t = unet_forward(&p, &m, t, (double[]){499}, &c, NULL);
    float have[4 * 8 * 16];
    pass_output(&p, have, op_to_channels_first(&p, t));
    if (pass_finish(&p, &err)) fail_msg("%s", err.text);
    double off = 0, norm = 0;
    for (size_t i = 0; i < COUNT_OF(have); i++) {
        off += pow((double)(have[i] - y[i]), 2);
        norm += pow((double)y[i], 2);
    }
    printf("%.2g\n", sqrt(off / norm));
    assert_true(sqrt(off / norm) <= 1e-5);
    unet_context_release(&c);
    unet_release(&m, d);
    pass_memory_release(&memory);
    device_close(d);
    weight_store_close(s);
    weight_store_close(golden);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_scale_is_embedded)};
    if (argc < 2) {
        fprintf(stderr, "usage: test_lcm FOLDER\n");
        return 2;
    }
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
