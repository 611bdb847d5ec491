/* diffusion/vae/taesd against diffusers' AutoencoderTiny (make_taesd.py). */
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
#include "diffusion/vae/taesd.h"

static const char *folder;

static void check_file(const char *name)
{
    struct device *d;
    struct taesd *t;
    struct weight_store *s, *golden;
    struct error err;
    struct pass_memory memory;
    char *path = alloc_printf("%s/%s", folder, name);
    char *want_path = alloc_printf("%s/golden.safetensors", folder);
    assert_int_equal(device_open(&d, "cpu", NULL), 0);
    if (weight_store_open(&s, path, &err)) fail_msg("%s", err.text);
    if (weight_store_open(&golden, want_path, &err)) fail_msg("%s", err.text);
    assert_true(taesd_known(s));
    assert_false(taesd_known(golden));
    if (taesd_open(&t, d, s, &err)) fail_msg("%s", err.text);
    pass_memory_init(&memory, d, 0);
    const float *z = weight_store_find(golden, "z")->data,
                *y = weight_store_find(golden, "y")->data;
    int64_t h = 48, w = 40, n = h * w;
    float *have = alloc_zero((size_t)n * 3, sizeof *have);
    if (taesd_decode_picture(t, &memory, DTYPE_F32, z, 6, 5, have, &err)) fail_msg("%s", err.text);
    double off = 0, norm = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < 3; c++) {
            double want = (double)y[c * n + i];
            off += pow((double)have[i * 3 + c] - want, 2);
            norm += want * want;
        }
    printf("%s: %.2g\n", name, sqrt(off / norm));
    assert_true(sqrt(off / norm) <= 1e-5);
    free(have);
    taesd_close(t);
    pass_memory_release(&memory);
    weight_store_close(s);
    weight_store_close(golden);
    device_close(d);
    free(path);
    free(want_path);
}

static void both_dialects_agree(void **state)
{
    check_file("diffusers.safetensors");
    check_file("taesd_decoder.pth");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_dialects_agree)};
    if (argc < 2) {
        fprintf(stderr, "usage: test_taesd FOLDER\n");
        return 2;
    }
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
