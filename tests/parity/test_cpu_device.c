/* The device itself: the same bits with any number of threads, and what it refuses. Part of test_cpu. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/parity/test_cpu.h"

struct device *cpu_opened(const char *options)
{
    struct device *d = NULL;
    struct error err = {0};
    if (cpu_device_open(&d, options, &err)) fail_msg("%s", err.text);
    return d;
}

/* one product with a weight, three slices of K, by each thread count */
void test_same_for_all_threads(void **unused)
{
    enum { M = 61, K = 1300, OUT = 150 };
    float *x = alloc_zero(M * K, 4), *w = alloc_zero(OUT * K, 4), *y[3];
    for (int i = 0; i < M * K; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int i = 0; i < OUT * K; i++) w[i] = (float)parity_uniform() - 0.5f;
    for (int threads = 1; threads <= 3; threads++) {
        char options[8];
        snprintf(options, sizeof options, "%d", threads);
        struct device *d = cpu_opened(options);
        struct kernel_weight weight = {.data = w, .dtype = DTYPE_F32, .rank = 2, .dim = {OUT, K}};
        y[threads - 1] = alloc_zero(M * OUT, 4);
        struct linear_args a = {.y = y[threads - 1],
                                .x = x,
                                .w = &weight,
                                .m = M,
                                .k = K,
                                .out = OUT,
                                .ldx = K,
                                .ldy = OUT,
                                .dtype = DTYPE_F32};
        struct error err = {0};
        assert_int_equal(d->kernels->linear(d, &a, &err), 0);
        d->kernels->unpack(d, &weight);
        assert_null(weight.packed);
        device_close(d);
    }
    assert_memory_equal(y[0], y[1], M * OUT * 4);
    assert_memory_equal(y[0], y[2], M * OUT * 4);
    for (int i = 0; i < 3; i++) free(y[i]);
    free(x);
    free(w);
}

void test_refuses(void **unused)
{
    struct device *d = NULL;
    struct error err = {0};
    assert_int_equal(cpu_device_open(&d, "0", &err), ERR_INVALID);
    assert_int_equal(cpu_device_open(&d, "two", &err), ERR_INVALID);
    const char *before = getenv("KILN_CPU");
    char *kept = before ? alloc_string(before) : NULL;
    setenv("KILN_CPU", "sse9", 1);
    assert_int_equal(cpu_device_open(&d, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "sse9"));
    if (kept)
        setenv("KILN_CPU", kept, 1);
    else
        unsetenv("KILN_CPU");
    free(kept);
    d = cpu_opened("1");
    uint16_t half[4] = {0};
    struct activation_args a = {.y = half, .x = half, .count = 4, .dtype = DTYPE_F16};
    assert_int_equal(d->kernels->activation(d, &a, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "F16"));
    device_close(d);
}
