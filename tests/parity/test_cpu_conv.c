/* Convolutions and their gradients. Part of test_cpu. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/parity/test_cpu.h"

static struct conv2d_args conv_args(struct parity_run *run, const struct conv_case *c)
{
    struct conv2d_args a = c->a;
    a.dtype = run->dtype;
    a.w = &run->weight;
    a.epilogue.bias_dtype = run->real;
    return a;
}

static int run_conv2d(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_args a = conv_args(run, c);
    a.x = run->data[0];
    a.y = run->data[2];
    a.epilogue.bias = c->flags & 1 ? run->data[3] : NULL;
    a.epilogue.row = c->flags & 2 ? run->data[4] : NULL;
    a.epilogue.add = c->flags & 8 ? run->data[2] : c->flags & 4 ? run->data[5] : NULL;
    return run->k->conv2d(run->d, &a, err);
}

static int run_conv2d_dx(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_grad_args g = {.conv = conv_args(run, c),
                                 .dy = run->data[2],
                                 .dx = run->data[0],
                                 .accumulate = c->accumulate};
    return run->k->conv2d_dx(run->d, &g, err);
}

static int run_conv2d_dw(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_grad_args g = {.conv = conv_args(run, c), .dy = run->data[2], .dw = run->data[1]};
    g.conv.x = run->data[0];
    return run->k->conv2d_dw(run->d, &g, err);
}

static void conv_name(struct parity_case *c, const char *what, const struct conv_case *v)
{
    const struct conv2d_args *a = &v->a;
    snprintf(c->name, sizeof c->name,
             "%s n%lld %lldx%lldx%lld -> %lldx%lldx%lld kernel %dx%d stride %d pad %d,%d up %d "
             "circular %d flags %d act %d",
             what, (long long)a->n, (long long)a->h, (long long)a->w_px, (long long)a->c,
             (long long)a->oh, (long long)a->ow, (long long)a->out, a->kh, a->kw, a->stride,
             a->pad_top, a->pad_left, a->upsample, a->circular, v->flags, a->epilogue.act);
}

void conv_once(struct conv_case v)
{
    struct conv2d_args *a = &v.a;
    int64_t in = a->n * a->h * a->w_px * a->c, out = a->n * a->oh * a->ow * a->out;
    int64_t taps = a->c * a->kh * a->kw;
    a->epilogue.rows_per_image = a->oh * a->ow;
    struct parity_case c = {
        .run = run_conv2d, .args = &v, .rank = 4, .dim = {a->out, a->c, a->kh, a->kw}};
    conv_name(&c, "conv2d", &v);
    parity_operand(&c, OPERAND_ACTIVATION, false, in, 1);
    parity_operand(&c, OPERAND_WEIGHT, false, a->out * taps, 1 / sqrt((double)taps));
    parity_operand(&c, OPERAND_ACTIVATION, true, out, 1);
    parity_operand(&c, OPERAND_REAL, false, a->out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, a->n * a->out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
    c = (struct parity_case){
        .run = run_conv2d_dx, .args = &v, .rank = 4, .dim = {a->out, a->c, a->kh, a->kw}};
    conv_name(&c, "conv2d_dx", &v);
    parity_operand(&c, OPERAND_ACTIVATION, true, in, 1);
    parity_operand(&c, OPERAND_WEIGHT, false, a->out * taps, 1 / sqrt((double)taps));
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
    c = (struct parity_case){.run = run_conv2d_dw, .args = &v};
    conv_name(&c, "conv2d_dw", &v);
    parity_operand(&c, OPERAND_ACTIVATION, false, in, 1);
    parity_operand(&c, OPERAND_REAL, true, a->out * taps, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
}

void conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t out, int kernel, int stride, int pad,
          int up, bool circular, int flags)
{
    struct conv_case v = {.a = {.n = n,
                                .h = h,
                                .w_px = w,
                                .c = c,
                                .out = out,
                                .kh = kernel,
                                .kw = kernel,
                                .stride = stride,
                                .pad_top = pad,
                                .pad_left = pad,
                                .upsample = up,
                                .circular = circular},
                          .flags = flags,
                          .accumulate = flags & 1};
    v.a.oh = (h * up + 2 * pad - kernel) / stride + 1;
    v.a.ow = (w * up + 2 * pad - kernel) / stride + 1;
    v.a.epilogue.act = flags & 16 ? ACT_SILU : ACT_NONE;
    conv_once(v);
}

void test_conv2d(void **unused)
{
    for (int circular = 0; circular < 2; circular++) {
        conv(2, 6, 5, 20, 33, 3, 1, 1, 1, circular, 7);
        conv(1, 4, 6, 3, 5, 3, 1, 1, 1, circular, 1);
        conv(2, 6, 4, 17, 16, 3, 2, 1, 1, circular, 0);
        conv(2, 5, 3, 18, 35, 3, 1, 1, 2, circular, 23); /* by phases */
        conv(1, 3, 4, 7, 3, 5, 1, 2, 2, circular, 1);    /* enlarged, but no phases */
    }
    for (int flags = 0; flags < 32; flags++) conv(2, 3, 3, 9, 18, 3, 1, 1, 1, false, flags);
    conv(2, 4, 4, 40, 24, 1, 1, 0, 1, false, 3);
    conv(1, 7, 7, 5, 6, 1, 2, 0, 1, false, 0);
    conv(1, 2, 2, 130, 40, 3, 1, 1, 1, false, 0);      /* several slices of K */
    conv(1, 21, 20, 8, 8, 3, 1, 1, 1, false, 8);       /* several tasks of rows */
    conv(1, 14, 14, 3, 10, 14, 14, 0, 1, false, 0);    /* a patch embedding */
    for (int circular = 0; circular < 2; circular++) { /* enough channels and tiles for Winograd */
        conv(2, 14, 14, 64, 64, 3, 1, 1, 1, circular, 7);
        conv(1, 21, 19, 70, 97, 3, 1, 1, 1, circular, 29);
    }
    conv(1, 70, 66, 64, 64, 3, 1, 1, 1, false, 0); /* several bands */
    /* a border on two sides only, as the VAE's encoder has it */
    struct conv_case v = {.a = {.n = 1,
                                .h = 6,
                                .w_px = 8,
                                .c = 12,
                                .out = 14,
                                .kh = 3,
                                .kw = 3,
                                .stride = 2,
                                .oh = 3,
                                .ow = 4,
                                .upsample = 1}};
    conv_once(v);
    v.a.upsample = 0;
    v.a.pad_top = 1;
    v.a.kw = 1;
    conv_once(v);
}

/* Numbers of `dtype` with a mean to lose digits to. */
static void *numbers(int64_t count, enum dtype dtype)
{
    void *to = alloc_zero((size_t)count, dtype_bytes(dtype));
    for (int64_t i = 0; i < count; i++) dtype_set(to, dtype, i, 3 * parity_uniform() - 1);
    return to;
}

struct norm_conv_case {
    int64_t n, h, w, c, out, groups;
    bool circular, add, row;
    enum activation act, after;
    size_t band;
};

/* In bands of a few lines: every bit as the norm and the convolution one after the other. */
static void norm_conv_once(struct norm_conv_case v, enum dtype dtype, enum dtype stored)
{
    struct device *d = cpu_opened("2");
    if (v.band) cpu_state(d)->band_most = v.band;
    int64_t in = v.n * v.h * v.w * v.c, count = v.n * v.h * v.w * v.out;
    void *x = numbers(in, dtype), *h = alloc_zero((size_t)in, 4),
         *row = numbers(v.n * v.out, dtype);
    void *y[2] = {numbers(count, dtype), alloc_zero((size_t)count, 4)};
    memcpy(y[1], y[0], (size_t)count * dtype_bytes(dtype));
    void *weight = numbers(v.out * v.c * 9, stored), *bias = numbers(v.out, DTYPE_F32);
    float *gamma = numbers(v.c, DTYPE_F32), *beta = numbers(v.c, DTYPE_F32);
    struct error err = {0};
    for (int fused = 0; fused < 2; fused++) {
        struct kernel_weight w = {
            .data = weight, .dtype = stored, .rank = 4, .dim = {v.out, v.c, 3, 3}};
        struct norm_conv2d_args a = {.gamma = gamma,
                                     .beta = beta,
                                     .weight_dtype = DTYPE_F32,
                                     .groups = v.groups,
                                     .eps = 1e-6,
                                     .act = v.act};
        a.conv = (struct conv2d_args){.y = y[fused],
                                      .x = x,
                                      .w = &w,
                                      .n = v.n,
                                      .h = v.h,
                                      .w_px = v.w,
                                      .c = v.c,
                                      .oh = v.h,
                                      .ow = v.w,
                                      .out = v.out,
                                      .kh = 3,
                                      .kw = 3,
                                      .stride = 1,
                                      .pad_top = 1,
                                      .pad_left = 1,
                                      .upsample = 1,
                                      .circular = v.circular,
                                      .dtype = dtype};
        a.conv.epilogue = (struct epilogue_args){.bias = bias,
                                                 .bias_dtype = DTYPE_F32,
                                                 .row = v.row ? row : NULL,
                                                 .rows_per_image = v.h * v.w,
                                                 .act = v.after,
                                                 .add = v.add ? y[fused] : NULL};
        if (fused) {
            assert_int_equal(d->kernels->norm_conv2d(d, &a, &err), 0);
        } else {
            struct group_norm_args norm = {.y = h,
                                           .x = x,
                                           .gamma = gamma,
                                           .beta = beta,
                                           .n = v.n,
                                           .rows = v.h * v.w,
                                           .c = v.c,
                                           .groups = v.groups,
                                           .eps = 1e-6,
                                           .act = v.act,
                                           .dtype = dtype,
                                           .weight_dtype = DTYPE_F32};
            assert_int_equal(d->kernels->group_norm(d, &norm, &err), 0);
            a.conv.x = h;
            assert_int_equal(d->kernels->conv2d(d, &a.conv, &err), 0);
        }
        d->kernels->unpack(d, &w);
    }
    if (memcmp(y[0], y[1], (size_t)count * dtype_bytes(dtype)) != 0)
        fail_msg("norm_conv2d %lldx%lldx%lldx%lld -> %lld circular %d, %s, weights %s: other bits "
                 "than one after the other",
                 (long long)v.n, (long long)v.h, (long long)v.w, (long long)v.c, (long long)v.out,
                 v.circular, dtype_name(dtype), dtype_name(stored));
    void *all[] = {x, h, row, y[0], y[1], weight, bias, gamma, beta};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    device_close(d);
}

void test_norm_conv2d(void **unused)
{
    static const struct norm_conv_case cases[] = {
        {2, 13, 6, 32, 40, 8, false, true, true, ACT_SILU, ACT_NONE, 1000},
        {2, 13, 6, 32, 40, 8, true, false, false, ACT_NONE, ACT_SILU, 1000},
        {1, 30, 5, 64, 3, 32, false, false, false, ACT_SILU, ACT_NONE, 5000},
        {1, 9, 4, 6, 17, 3, true, true, false, ACT_SILU, ACT_NONE, 1},
        {1, 2, 3, 8, 8, 2, true, false, false, ACT_SILU, ACT_NONE, 0},
        {1, 1, 1, 8, 8, 2, false, true, false, ACT_SILU, ACT_NONE, 0},
        /* rows of A read where they lie: one line in tiles, several lines a task, one pixel, three outputs */
        {2, 7, 31, 128, 33, 32, false, true, true, ACT_SILU, ACT_NONE, 30000},
        {1, 9, 5, 128, 3, 32, true, false, false, ACT_SILU, ACT_NONE, 1},
        {1, 50, 17, 256, 64, 32, false, true, false, ACT_SILU, ACT_SILU, 100000},
        {1, 5, 1, 256, 16, 32, true, false, false, ACT_NONE, ACT_NONE, 1},
        /* enough channels and tiles for Winograd, an odd count of lines */
        {1, 29, 18, 64, 70, 32, false, true, false, ACT_SILU, ACT_NONE, 50000},
        {2, 29, 18, 64, 64, 32, true, false, true, ACT_SILU, ACT_NONE, 50000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        norm_conv_once(cases[i], DTYPE_F32, DTYPE_F32);
        norm_conv_once(cases[i], DTYPE_F32, DTYPE_F16);
        norm_conv_once(cases[i], DTYPE_BF16, DTYPE_F16);
        norm_conv_once(cases[i], DTYPE_BF16, DTYPE_F32);
    }
}
