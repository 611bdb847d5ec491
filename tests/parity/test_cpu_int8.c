/* Products of 8 bits: integers exactly, numbers nearly. Part of test_cpu. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/parity/test_cpu.h"

struct int8_case {
    int64_t n, h, w, c, out;
    int kernel, stride, pad;
    bool circular;
};

static struct conv2d_args args_of(const struct int8_case *v, struct kernel_weight *w, void *y,
                                  const void *x, enum dtype dtype)
{
    return (struct conv2d_args){.y = y,
                                .x = x,
                                .w = w,
                                .n = v->n,
                                .h = v->h,
                                .w_px = v->w,
                                .c = v->c,
                                .oh = (v->h + 2 * v->pad - v->kernel) / v->stride + 1,
                                .ow = (v->w + 2 * v->pad - v->kernel) / v->stride + 1,
                                .out = v->out,
                                .kh = v->kernel,
                                .kw = v->kernel,
                                .stride = v->stride,
                                .pad_top = v->pad,
                                .pad_left = v->pad,
                                .upsample = 1,
                                .circular = v->circular,
                                .dtype = dtype};
}

static int run_case(struct device *d, const struct int8_case *v, struct conv2d_args *a,
                    struct error *err)
{
    if (v->kernel > 1 || v->h > 1) return d->kernels->conv2d(d, a, err);
    struct linear_args l = {.y = a->y,
                            .x = a->x,
                            .w = a->w,
                            .m = v->n * v->w,
                            .k = v->c,
                            .out = v->out,
                            .ldx = v->c,
                            .ldy = v->out,
                            .dtype = a->dtype};
    return d->kernels->linear(d, &l, err);
}

/* The largest span of what a part may hold, and so a factor of one. */
static int64_t part_of(int64_t c)
{
    int64_t count = 1;
    while (c / count > 1152 || c % count || c / count % 4) count++;
    return c / count;
}

/* Activations -z..255-z with both ends in each part of a pixel, weights -127..127 with an end in each row: all
 * factors are one, and every result is an integer below 2^24 that a plain loop knows. */
static void exact_once(struct int8_case v)
{
    struct device *d = cpu_opened("2");
    int64_t in = v.n * v.h * v.w * v.c, k = v.c * v.kernel * v.kernel, part = part_of(v.c);
    float *x = alloc_zero((size_t)in, 4), *w = alloc_zero((size_t)(v.out * k), 4);
    for (int64_t i = 0; i < in; i += part) {
        int64_t zero = parity_between(0, 255);
        for (int64_t j = 0; j < part; j++) x[i + j] = (float)(parity_between(0, 255) - zero);
        x[i] = (float)-zero;
        x[i + part - 1] = (float)(255 - zero);
    }
    for (int64_t i = 0; i < v.out * k; i++) w[i] = (float)parity_between(-127, 127);
    for (int64_t o = 0; o < v.out; o++) w[o * k + parity_between(0, k - 1)] = o % 2 ? 127 : -127;
    struct kernel_weight weight = {.data = w,
                                   .dtype = DTYPE_F32,
                                   .rank = 4,
                                   .dim = {v.out, v.c, v.kernel, v.kernel},
                                   .eight_bits = true};
    struct conv2d_args a = args_of(&v, &weight, NULL, x, DTYPE_F32);
    int64_t count = v.n * a.oh * a.ow * v.out;
    float *y = alloc_zero((size_t)count, 4);
    struct error err = {0};
    a.y = y;
    if (run_case(d, &v, &a, &err)) fail_msg("%s", err.text);
    for (int64_t i = 0; i < count; i++) {
        int64_t o = i % v.out, pixel = i / v.out, px = pixel % a.ow, py = pixel / a.ow % a.oh;
        int64_t image = pixel / a.ow / a.oh, want = 0;
        for (int64_t tap = 0; tap < v.kernel * v.kernel; tap++) {
            int64_t sy = py * v.stride + tap / v.kernel - v.pad;
            int64_t sx = px * v.stride + tap % v.kernel - v.pad;
            if (v.circular) sy = (sy + v.h) % v.h, sx = (sx + v.w) % v.w;
            if (sy < 0 || sx < 0 || sy >= v.h || sx >= v.w) continue;
            const float *from = x + ((image * v.h + sy) * v.w + sx) * v.c;
            for (int64_t c = 0; c < v.c; c++)
                want += (int64_t)from[c] * (int64_t)w[(o * v.c + c) * v.kernel * v.kernel + tap];
        }
        assert_true(llabs(want) < 1 << 24);
        if (y[i] != (float)want)
            fail_msg("int8 %lldx%lldx%lld -> %lld kernel %d: element %lld is %.1f, not %lld",
                     (long long)v.h, (long long)v.w, (long long)v.c, (long long)v.out, v.kernel,
                     (long long)i, (double)y[i], (long long)want);
    }
    d->kernels->unpack(d, &weight);
    free(x);
    free(w);
    free(y);
    device_close(d);
}

void test_int8_exact(void **unused)
{
    static const struct int8_case cases[] = {
        {1, 1, 9, 4, 3, 1, 1, 0, false},     {2, 1, 31, 64, 70, 1, 1, 0, false},
        {1, 1, 5, 2560, 33, 1, 1, 0, false}, /* three parts, of 640 */
        {1, 1, 3, 1156, 16, 1, 1, 0, false}, /* parts of 68 */
        {2, 5, 7, 20, 40, 3, 1, 1, false},   {1, 6, 4, 36, 17, 3, 1, 1, true},
        {1, 7, 9, 8, 65, 3, 2, 1, false},    {1, 2, 3, 128, 32, 3, 1, 1, false},
        {1, 20, 25, 12, 8, 1, 1, 0, false}, /* several tasks of rows */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) exact_once(cases[i]);
}

/* Normal numbers: both sides are rounded to a 255th of their span, which for normal ones is about 7 deviations, and
 * so off by 0.8 % of a deviation each, root mean square; together 1.1 %. A wrong factor or zero gives
 * tens of percents. */
void test_int8_near(void **unused)
{
    static const struct int8_case cases[] = {{2, 1, 50, 320, 96, 1, 1, 0, false},
                                             {1, 9, 8, 64, 48, 3, 1, 1, false}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16}, stored[] = {DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 4; i++) {
        const struct int8_case *v = &cases[i / 2];
        const enum dtype dtype = dtypes[i % 2];
        struct device *d = cpu_opened("2");
        int64_t in = v->n * v->h * v->w * v->c, k = v->c * v->kernel * v->kernel;
        void *x = alloc_zero((size_t)in, 4), *w = alloc_zero((size_t)(v->out * k), 4);
        for (int64_t j = 0; j < in; j++) {
            double sum = -6;
            for (int u = 0; u < 12; u++) sum += parity_uniform();
            dtype_set(x, dtype, j, sum);
        }
        for (int64_t j = 0; j < v->out * k; j++) {
            double sum = -6;
            for (int u = 0; u < 12; u++) sum += parity_uniform();
            dtype_set(w, stored[i % 2], j, sum / sqrt((double)k));
        }
        float *y[2];
        for (int eight = 0; eight < 2; eight++) {
            struct kernel_weight weight = {.data = w,
                                           .dtype = stored[i % 2],
                                           .rank = 4,
                                           .dim = {v->out, v->c, v->kernel, v->kernel},
                                           .eight_bits = eight == 1};
            struct conv2d_args a = args_of(v, &weight, NULL, x, dtype);
            int64_t count = v->n * a.oh * a.ow * v->out;
            void *result = alloc_zero((size_t)count, 4);
            y[eight] = alloc_zero((size_t)count, 4);
            struct error err = {0};
            a.y = result;
            if (run_case(d, v, &a, &err)) fail_msg("%s", err.text);
            dtype_convert(y[eight], DTYPE_F32, result, dtype, count);
            d->kernels->unpack(d, &weight);
            free(result);
            if (!eight) continue;
            double off = 0, size = 0;
            for (int64_t j = 0; j < count; j++) {
                off += pow((double)(y[1][j] - y[0][j]), 2);
                size += pow((double)y[0][j], 2);
            }
            double relative = sqrt(off / size);
            if (!(relative > 1e-4 && relative < 0.014))
                fail_msg("int8 case %d, %s: off by %.2f %%", i, dtype_name(dtype), 100 * relative);
        }
        free(y[0]);
        free(y[1]);
        free(x);
        free(w);
        device_close(d);
    }
}

/* GEGLU in the product's epilogue: what the two kernels give one after the other, but for the exponential's last
 * digits. */
void test_int8_geglu(void **unused)
{
    enum { M = 37, K = 68, OUT = 192 };
    struct device *d = cpu_opened("2");
    float *x = alloc_zero(M * K, 4), *w = alloc_zero(OUT * K, 4), *bias = alloc_zero(OUT, 4);
    float *z = alloc_zero(M * OUT, 4), *want = alloc_zero(M * OUT, 4), *y = alloc_zero(M * OUT, 4);
    for (int i = 0; i < M * K; i++) x[i] = (float)(2 * parity_uniform() - 1);
    for (int i = 0; i < OUT * K; i++) w[i] = (float)(0.5 * parity_uniform() - 0.25);
    for (int i = 0; i < OUT; i++) bias[i] = (float)parity_uniform();
    struct kernel_weight weight = {
        .data = w, .dtype = DTYPE_F32, .rank = 2, .dim = {OUT, K}, .eight_bits = true};
    struct linear_args a = {.y = z,
                            .x = x,
                            .w = &weight,
                            .m = M,
                            .k = K,
                            .out = OUT,
                            .ldx = K,
                            .ldy = OUT,
                            .dtype = DTYPE_F32,
                            .epilogue = {.bias = bias, .bias_dtype = DTYPE_F32}};
    struct geglu_args g = {.y = want, .x = z, .rows = M, .d = OUT / 2, .dtype = DTYPE_F32};
    struct error err = {0};
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    assert_int_equal(d->kernels->geglu(d, &g, &err), 0);
    a.y = y;
    a.ldy = OUT / 2;
    assert_int_equal(d->kernels->linear_geglu(d, &a, &err), 0);
    for (int i = 0; i < M * OUT / 2; i++)
        if (!(fabs((double)(y[i] - want[i])) <= 1e-6 * (1 + fabs((double)want[i]))))
            fail_msg("int8 geglu: element %d is %g, not %g", i, (double)y[i], (double)want[i]);
    d->kernels->unpack(d, &weight);
    float *all[] = {x, w, bias, z, want, y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    device_close(d);
}
