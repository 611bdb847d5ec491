/* The CUDA device's host side over the emulator: memory that ends, a card that breaks, weights that
 * change, uploads larger than the staging buffers, and what the program says without a GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"

static struct device *device_of_test(void)
{
    struct device *d;
    struct error err;
    if (cuda_device_open(&d, NULL, &err)) fail_msg("%s", err.text);
    return d;
}

static void refusals(void **state)
{
    struct device *d;
    struct error err;
    assert_int_equal(cuda_device_open(&d, "x", &err), ERR_INVALID);
    assert_int_equal(cuda_device_open(&d, "1", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "cuda:1"));
}

/* out of memory is an answer, and the device goes on */
static void memory_ends(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    void *small, *large;
    emulator_limit_memory((size_t)16 << 20);
    assert_int_equal(d->kernels->alloc(d, &large, (size_t)64 << 20, &err), ERR_NO_MEMORY);
    assert_non_null(strstr(err.text, "64 MiB"));
    assert_int_equal(d->kernels->alloc(d, &small, 4096, &err), 0);
    assert_int_equal(d->kernels->zero(d, small, 4096, &err), 0);
    assert_int_equal(d->kernels->finish(d, &err), 0);
    d->kernels->free(d, small);
    emulator_limit_memory(0);
    device_close(d);
}

/* a sticky error is ERR_DEVICE from then on: the engine's process must be replaced */
static void card_breaks(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    void *memory;
    float host[64];
    assert_int_equal(d->kernels->alloc(d, &memory, sizeof host, &err), 0);
    assert_int_equal(d->kernels->zero(d, memory, sizeof host, &err), 0);
    struct emulator_options options, broken;
    emulator_get(&options);
    broken = options;
    broken.fail_at = emulator_count().launches + 2;
    emulator_set(&broken);
    struct activation_args a = {
        .y = memory, .x = memory, .count = 64, .act = ACT_SILU, .dtype = DTYPE_F32};
    assert_int_equal(d->kernels->activation(d, &a, &err), 0);
    assert_int_equal(d->kernels->activation(d, &a, &err), ERR_DEVICE);
    assert_int_equal(d->kernels->finish(d, &err), ERR_DEVICE);
    assert_int_equal(d->kernels->download(d, host, memory, sizeof host, &err), ERR_DEVICE);
    assert_int_equal(d->kernels->activation(d, &a, &err), ERR_DEVICE);
    emulator_set(&options);
    emulator_clear();
    d->kernels->free(d, memory);
    device_close(d);
}

/* through both pinned buffers, several times each */
static void large_uploads(void **state)
{
    struct device *d = device_of_test();
    struct error err;
    size_t bytes = ((size_t)35 << 20) + 12345;
    uint8_t *from = alloc_zero(bytes, 1), *back = alloc_zero(bytes, 1);
    void *memory;
    for (size_t i = 0; i < bytes; i++) from[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(d->kernels->alloc(d, &memory, bytes, &err), 0);
    assert_int_equal(d->kernels->upload(d, memory, from, bytes, &err), 0);
    assert_int_equal(d->kernels->download(d, back, memory, bytes, &err), 0);
    assert_memory_equal(from, back, bytes);
    d->kernels->free(d, memory);
    free(from);
    free(back);
    device_close(d);
}

static void identity(float *w, int n, float factor)
{
    for (int i = 0; i < n * n; i++) w[i] = i % (n + 1) == 0 ? factor : 0;
}

/* a trained weight lives on the device and is packed again when its version moves on */
static void weights_that_change(void **state)
{
    enum { N = 8 };
    struct device *d = device_of_test();
    struct error err;
    float w[N * N], x[N], y[N];
    void *dw, *dx;
    assert_int_equal(d->kernels->alloc(d, &dw, sizeof w, &err), 0);
    assert_int_equal(d->kernels->alloc(d, &dx, 2 * sizeof x, &err), 0);
    for (int i = 0; i < N; i++) x[i] = (float)i;
    assert_int_equal(d->kernels->upload(d, dx, x, sizeof x, &err), 0);
    struct kernel_weight weight = {
        .data = dw, .dtype = DTYPE_F32, .rank = 2, .dim = {N, N}, .changes = true};
    for (int version = 1; version <= 3; version++) {
        identity(w, N, (float)version);
        assert_int_equal(d->kernels->upload(d, dw, w, sizeof w, &err), 0);
        weight.version = (uint64_t)version;
        struct linear_args a = {.y = (float *)dx + N,
                                .x = dx,
                                .w = &weight,
                                .m = 1,
                                .k = N,
                                .out = N,
                                .ldx = N,
                                .ldy = N,
                                .dtype = DTYPE_F32};
        assert_int_equal(d->kernels->linear(d, &a, &err), 0);
        assert_int_equal(d->kernels->download(d, y, (float *)dx + N, sizeof y, &err), 0);
        for (int i = 0; i < N; i++) assert_true(y[i] == (float)(version * i));
    }
    d->kernels->unpack(d, &weight);
    d->kernels->free(d, dw);
    d->kernels->free(d, dx);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),
        cmocka_unit_test(memory_ends),
        cmocka_unit_test(card_breaks),
        cmocka_unit_test(large_uploads),
        cmocka_unit_test(weights_that_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
