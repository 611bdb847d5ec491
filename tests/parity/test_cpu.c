/* The CPU back end against the plain kernels: every kernel, odd sizes and tails, every epilogue,
 * every instruction set that this machine has, fp32 and bf16. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/str.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_packed.h"
#include "tests/parity/parity.h"

static struct device *device; /* the one under test; see each_path */

static void check(struct parity_case *c)
{
    struct parity_case copy = *c;
    for (int half = 0; half < 2; half++) {
        /* rounding to bf16 comes second, so the values of the first run stay exact */
        parity_check(&copy, device, half ? DTYPE_BF16 : DTYPE_F32);
    }
    /* weights of 16 bits are packed call by call; bf16 last but one, so that all can hold the values */
    static const enum dtype pairs[][2] = {{DTYPE_BF16, DTYPE_BF16},
                                          {DTYPE_BF16, DTYPE_F16},
                                          {DTYPE_F32, DTYPE_F16},
                                          {DTYPE_F32, DTYPE_BF16}};
    for (size_t i = 0; copy.rank && i < COUNT_OF(pairs); i++)
        parity_check_stored(&copy, device, pairs[i][0], pairs[i][1]);
    parity_case_release(c);
}

#define RUN(function, type)                                                                        \
    static int function(struct parity_run *run, const void *args, struct error *err)               \
    {                                                                                              \
        struct type a = *(const struct type *)args;

#define RUN_END(kernel)                                                                            \
    return run->k->kernel(run->d, &a, err);                                                        \
    }

/* ---- linear ---- */

struct linear_case {
    struct linear_args a;
    bool bias, row, add, in_place;
};

static int run_linear(struct parity_run *run, const void *args, struct error *err)
{
    const struct linear_case *c = args;
    struct linear_args a = c->a;
    a.dtype = run->dtype;
    a.w = &run->weight;
    a.x = run->data[0];
    a.y = run->data[2];
    a.epilogue.bias = c->bias ? run->data[3] : NULL;
    a.epilogue.bias_dtype = run->real;
    a.epilogue.row = c->row ? run->data[4] : NULL;
    a.epilogue.add = c->in_place ? run->data[2] : c->add ? run->data[5] : NULL;
    return run->k->linear(run->d, &a, err);
}

static void linear_once(int64_t m, int64_t k, int64_t out, int64_t gap, enum activation act,
                        int flags)
{
    struct linear_case l = {.a = {.m = m,
                                  .k = k,
                                  .out = out,
                                  .ldx = k + gap,
                                  .ldy = out + gap,
                                  .epilogue = {.act = act, .rows_per_image = (m + 1) / 2}},
                            .bias = flags & 1,
                            .row = flags & 2,
                            .add = flags & 4,
                            .in_place = flags & 8};
    struct parity_case c = {.run = run_linear, .args = &l, .rank = 2, .dim = {out, k}};
    snprintf(c.name, sizeof c.name, "linear %lldx%lldx%lld gap %lld act %d flags %d", (long long)m,
             (long long)out, (long long)k, (long long)gap, act, flags);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (k + gap), 1);
    parity_operand(&c, OPERAND_WEIGHT, false, out * k, 1 / sqrt((double)k));
    parity_operand(&c, OPERAND_ACTIVATION, true, m * (out + gap), 1);
    parity_operand(&c, OPERAND_REAL, false, out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, 2 * out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    check(&c);
}

static void linear(void **unused)
{
    for (int act = 0; act < ACT_COUNT; act++) linear_once(17, 40, 33, 0, act, 7);
    for (int flags = 0; flags < 16; flags++) linear_once(31, 21, 37, 3, ACT_SILU, flags);
    static const int64_t edge[] = {1, 2, 13, 14, 15, 16, 28, 29, 32, 64, 65};
    for (size_t i = 0; i < COUNT_OF(edge); i++) {
        linear_once(edge[i], 19, 16, 0, ACT_NONE, 1);
        linear_once(9, edge[i], 16, 0, ACT_NONE, 1);
        linear_once(9, 19, edge[i], 0, ACT_NONE, 1);
    }
    linear_once(400, 77, 70, 0, ACT_NONE, 1);  /* several tasks of rows */
    linear_once(30, 1111, 50, 1, ACT_GELU, 7); /* several slices of K */
    linear_once(5, 600, 1100, 0, ACT_NONE, 0); /* several tasks of columns */
    for (int i = 0; i < 6; i++)
        linear_once(parity_between(1, 120), parity_between(1, 700), parity_between(1, 200),
                    parity_between(0, 5), ACT_NONE, (int)parity_between(0, 15));
}

RUN(run_linear_dx, linear_dx_args)
a.dtype = run->dtype;
a.w = &run->weight;
a.dy = run->data[0];
a.dx = run->data[2];
RUN_END(linear_dx)

RUN(run_linear_dw, linear_dw_args)
a.dtype = run->dtype;
a.dy = run->data[0];
a.x = run->data[1];
a.dw = run->data[2];
RUN_END(linear_dw)

static void linear_grad_once(int64_t m, int64_t k, int64_t out, int64_t gap, bool accumulate)
{
    struct linear_dx_args dx = {
        .m = m, .k = k, .out = out, .ldx = k + gap, .ldy = out + gap, .accumulate = accumulate};
    struct parity_case c = {.run = run_linear_dx, .args = &dx, .rank = 2, .dim = {out, k}};
    snprintf(c.name, sizeof c.name, "linear_dx %lldx%lldx%lld", (long long)m, (long long)out,
             (long long)k);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    parity_operand(&c, OPERAND_WEIGHT, false, out * k, 1 / sqrt((double)out));
    parity_operand(&c, OPERAND_ACTIVATION, true, m * (k + gap), 1);
    check(&c);
    struct linear_dw_args dw = {.m = m, .k = k, .out = out, .ldx = k + gap, .ldy = out + gap};
    c = (struct parity_case){.run = run_linear_dw, .args = &dw};
    snprintf(c.name, sizeof c.name, "linear_dw %lldx%lldx%lld", (long long)m, (long long)out,
             (long long)k);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (k + gap), 1);
    parity_operand(&c, OPERAND_REAL, true, out * k, 1);
    check(&c);
}

static void linear_grad(void **unused)
{
    linear_grad_once(1, 1, 1, 0, false);
    linear_grad_once(64, 32, 64, 0, false);
    linear_grad_once(77, 45, 61, 2, true);
    linear_grad_once(600, 33, 20, 0, false);
    linear_grad_once(15, 300, 530, 1, true);
}

/* ---- convolution ---- */

struct conv_case {
    struct conv2d_args a;
    int flags;
    bool accumulate;
};

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

static void conv_once(struct conv_case v)
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
    check(&c);
    c = (struct parity_case){
        .run = run_conv2d_dx, .args = &v, .rank = 4, .dim = {a->out, a->c, a->kh, a->kw}};
    conv_name(&c, "conv2d_dx", &v);
    parity_operand(&c, OPERAND_ACTIVATION, true, in, 1);
    parity_operand(&c, OPERAND_WEIGHT, false, a->out * taps, 1 / sqrt((double)taps));
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    check(&c);
    c = (struct parity_case){.run = run_conv2d_dw, .args = &v};
    conv_name(&c, "conv2d_dw", &v);
    parity_operand(&c, OPERAND_ACTIVATION, false, in, 1);
    parity_operand(&c, OPERAND_REAL, true, a->out * taps, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    check(&c);
}

/* n h w c out kernel stride pad up circular; output as a model would have it */
static void conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t out, int kernel, int stride,
                 int pad, int up, bool circular, int flags)
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

static void conv2d(void **unused)
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

/* ---- norms ---- */

struct norm_case {
    struct group_norm_args group;
    struct layer_norm_args layer;
    bool gamma, in_place, accumulate;
};

static struct group_norm_args group_args(struct parity_run *run, const struct norm_case *c)
{
    struct group_norm_args a = c->group;
    a.dtype = run->dtype;
    a.weight_dtype = run->real;
    a.x = run->data[0];
    a.gamma = c->gamma ? run->data[2] : NULL;
    a.beta = c->gamma ? run->data[3] : NULL;
    a.mean = run->data[4];
    a.rstd = run->data[5];
    return a;
}

static int run_group_norm(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct group_norm_args a = group_args(run, c);
    a.y = c->in_place ? run->data[0] : run->data[1];
    return run->k->group_norm(run->d, &a, err);
}

static int run_group_norm_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct group_norm_args a = group_args(run, c);
    size_t bytes = (size_t)(a.n * a.rows * a.c) * dtype_bytes(a.dtype);
    a.y = alloc_zero(1, bytes);
    int rc = run->k->group_norm(run->d, &a, err);
    free(a.y);
    struct group_norm_grad_args g = {.forward = a,
                                     .dy = run->data[1],
                                     .dx = run->data[6],
                                     .dgamma = run->data[7],
                                     .dbeta = run->data[8],
                                     .accumulate = c->accumulate};
    return rc ? rc : run->k->group_norm_grad(run->d, &g, err);
}

static void norm_operands(struct parity_case *c, int64_t count, int64_t width, int64_t groups,
                          bool grad, const struct norm_case *v)
{
    parity_operand(c, OPERAND_ACTIVATION, !grad && v->in_place, count, 1);
    for (int64_t i = 0; i < count; i++) c->operand[0].value[i] += 3; /* a mean to lose digits to */
    parity_operand(c, OPERAND_ACTIVATION, !grad, count, 1);
    parity_operand(c, OPERAND_REAL, false, width, 1);
    parity_operand(c, OPERAND_REAL, false, width, 1);
    parity_operand(c, OPERAND_REAL, true, groups, 1);
    parity_operand(c, OPERAND_REAL, true, groups, 1);
    if (!grad) return;
    parity_operand(c, OPERAND_ACTIVATION, true, count, 1);
    parity_operand(c, OPERAND_REAL, true, width, 1);
    parity_operand(c, OPERAND_REAL, true, width, 1);
}

static void group_once(int64_t n, int64_t rows, int64_t c, int64_t groups, enum activation act,
                       bool gamma, bool other)
{
    struct norm_case v = {
        .group = {.n = n, .rows = rows, .c = c, .groups = groups, .eps = 1e-5, .act = act},
        .gamma = gamma,
        .in_place = other,
        .accumulate = other};
    for (int grad = 0; grad < 2; grad++) {
        struct parity_case p = {.run = grad ? run_group_norm_grad : run_group_norm, .args = &v};
        snprintf(p.name, sizeof p.name, "group_norm%s n%lld rows %lld c %lld groups %lld act %d",
                 grad ? "_grad" : "", (long long)n, (long long)rows, (long long)c,
                 (long long)groups, act);
        norm_operands(&p, n * rows * c, c, n * groups, grad, &v);
        check(&p);
    }
}

static void group_norm(void **unused)
{
    group_once(2, 9, 32, 8, ACT_NONE, true, false);
    group_once(1, 200, 60, 6, ACT_SILU, true, true);
    group_once(3, 65, 130, 10, ACT_SILU, true, false);
    group_once(1, 1, 32, 2, ACT_NONE, false, false);
    group_once(2, 300, 7, 1, ACT_SILU, true, true);
}

static struct layer_norm_args layer_args(struct parity_run *run, const struct norm_case *c)
{
    struct layer_norm_args a = c->layer;
    a.dtype = run->dtype;
    a.weight_dtype = run->real;
    a.x = run->data[0];
    a.gamma = c->gamma ? run->data[2] : NULL;
    a.beta = c->gamma ? run->data[3] : NULL;
    a.mean = run->data[4];
    a.rstd = run->data[5];
    return a;
}

static int run_layer_norm(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct layer_norm_args a = layer_args(run, c);
    a.y = c->in_place ? run->data[0] : run->data[1];
    return run->k->layer_norm(run->d, &a, err);
}

static int run_layer_norm_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct layer_norm_args a = layer_args(run, c);
    a.y = alloc_zero((size_t)(a.rows * a.d), dtype_bytes(a.dtype));
    int rc = run->k->layer_norm(run->d, &a, err);
    free(a.y);
    struct layer_norm_grad_args g = {.forward = a,
                                     .dy = run->data[1],
                                     .dx = run->data[6],
                                     .dgamma = run->data[7],
                                     .dbeta = run->data[8],
                                     .accumulate = c->accumulate};
    return rc ? rc : run->k->layer_norm_grad(run->d, &g, err);
}

static void layer_once(int64_t rows, int64_t d, bool gamma, bool other)
{
    struct norm_case v = {.layer = {.rows = rows, .d = d, .eps = 1e-5},
                          .gamma = gamma,
                          .in_place = other,
                          .accumulate = other};
    for (int grad = 0; grad < 2; grad++) {
        struct parity_case p = {.run = grad ? run_layer_norm_grad : run_layer_norm, .args = &v};
        snprintf(p.name, sizeof p.name, "layer_norm%s %lldx%lld", grad ? "_grad" : "",
                 (long long)rows, (long long)d);
        norm_operands(&p, rows * d, d, rows, grad, &v);
        check(&p);
    }
}

static void layer_norm(void **unused)
{
    layer_once(5, 64, true, false);
    layer_once(77, 100, true, true);
    layer_once(3, 7, false, false);
    layer_once(40, 320, true, false);
}

/* ---- attention ---- */

struct attention_case {
    struct attention_args a;
    bool accumulate, lse;
};

static struct attention_args attention_args_of(struct parity_run *run,
                                               const struct attention_case *c)
{
    struct attention_args a = c->a;
    a.dtype = run->dtype;
    a.q = run->data[0];
    a.k = run->data[1];
    a.v = run->data[2];
    a.y = run->data[3];
    return a;
}

static int run_attention(struct parity_run *run, const void *args, struct error *err)
{
    const struct attention_case *c = args;
    struct attention_args a = attention_args_of(run, c);
    if (c->lse) a.lse = run->data[4];
    return run->k->attention(run->d, &a, err);
}

static int run_attention_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct attention_case *c = args;
    struct attention_args a = attention_args_of(run, c);
    a.lse = run->data[4];
    int rc = run->k->attention(run->d, &a, err);
    struct attention_grad_args g = {.forward = a,
                                    .dy = run->data[5],
                                    .dq = run->data[6],
                                    .dk = run->data[7],
                                    .dv = run->data[8],
                                    .accumulate = c->accumulate};
    return rc ? rc : run->k->attention_grad(run->d, &g, err);
}

static void attention_once(int64_t n, int64_t heads, int64_t lq, int64_t lk, int64_t d, bool causal,
                           int64_t gap, double spread)
{
    int64_t ld = heads * d + gap;
    struct attention_case v = {.a = {.n = n,
                                     .heads = heads,
                                     .lq = lq,
                                     .lk = lk,
                                     .d = d,
                                     .ldq = ld,
                                     .ldk = ld,
                                     .ldv = ld,
                                     .ldy = ld,
                                     .scale = 1 / sqrt((double)d),
                                     .causal = causal},
                               .accumulate = gap > 0};
    for (int i = 0; i < 3; i++) { /* inference, with sums, backward */
        int grad = i == 2;
        v.lse = i == 1;
        struct parity_case c = {.run = grad ? run_attention_grad : run_attention, .args = &v};
        snprintf(c.name, sizeof c.name, "attention%s n%lld heads %lld %lldx%lld d %lld causal %d",
                 grad ? "_grad" : "", (long long)n, (long long)heads, (long long)lq, (long long)lk,
                 (long long)d, causal);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lq * ld, spread);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lk * ld, 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lk * ld, 1);
        parity_operand(&c, OPERAND_ACTIVATION, !grad, n * lq * ld, 1);
        parity_operand(&c, OPERAND_REAL, !grad, n * heads * lq, 1);
        if (grad) {
            parity_operand(&c, OPERAND_ACTIVATION, false, n * lq * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lq * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lk * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lk * ld, 1);
        }
        check(&c);
    }
}

static void attention(void **unused)
{
    attention_once(2, 2, 60, 77, 40, false, 0, 1);
    attention_once(1, 3, 77, 77, 64, true, 0, 1);
    attention_once(1, 1, 5, 1, 8, false, 0, 1);
    attention_once(2, 1, 33, 78, 80, false, 5, 1);
    attention_once(1, 2, 70, 300, 13, false, 2, 8); /* two blocks of keys, a rising maximum */
    attention_once(1, 1, 270, 270, 160, true, 0, 4);
    attention_once(1, 1, 20, 30, 512, false, 0, 1);
    attention_once(1, 1, 40, 600, 17, false, 0, 6);
    attention_once(2, 3, 7, 40, 16, false, 0, 1);
    attention_once(1, 1, 300, 1101, 16, false, 3, 2); /* two parts of keys, blocks of queries */
    attention_once(1, 1, 1100, 1100, 8, true, 0, 2);
}

/* ---- pointwise ---- */

RUN(run_geglu, geglu_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(geglu)

RUN(run_geglu_grad, geglu_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.dy = run->data[1];
a.dx = run->data[2];
RUN_END(geglu_grad)

static void geglu(void **unused)
{
    static const int64_t sizes[][2] = {{11, 37}, {50, 160}, {1, 17000}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        int64_t rows = sizes[i][0], d = sizes[i][1];
        struct geglu_args a = {.rows = rows, .d = d, .accumulate = i == 1};
        struct parity_case c = {.run = run_geglu, .args = &a, .name = "geglu"};
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d * 2, 2);
        parity_operand(&c, OPERAND_ACTIVATION, true, rows * d, 1);
        check(&c);
        c = (struct parity_case){.run = run_geglu_grad, .args = &a, .name = "geglu_grad"};
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d * 2, 2);
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, rows * d * 2, 1);
        check(&c);
    }
}

RUN(run_activation, activation_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(activation)

RUN(run_activation_grad, activation_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.dy = run->data[1];
a.dx = run->data[2];
RUN_END(activation_grad)

static void activation(void **unused)
{
    for (int act = 0; act < ACT_COUNT; act++)
        for (int long_one = 0; long_one < 2; long_one++) {
            int64_t count = long_one ? 33333 : 221;
            struct activation_args a = {.count = count, .act = act, .accumulate = long_one};
            struct parity_case c = {.run = run_activation, .args = &a};
            snprintf(c.name, sizeof c.name, "activation %d, %lld", act, (long long)count);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 4);
            parity_operand(&c, OPERAND_ACTIVATION, true, count, 1);
            check(&c);
            c = (struct parity_case){.run = run_activation_grad, .args = &a};
            snprintf(c.name, sizeof c.name, "activation_grad %d, %lld", act, (long long)count);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 4);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, count, 1);
            check(&c);
        }
}

struct pair_case {
    struct add_args add;
    struct mul_args mul;
    bool none;
};

static int run_add(struct parity_run *run, const void *args, struct error *err)
{
    const struct pair_case *c = args;
    struct add_args a = c->add;
    a.dtype = run->dtype;
    a.a = run->data[0];
    a.b = c->none ? NULL : run->data[1];
    a.y = run->data[2];
    return run->k->add(run->d, &a, err);
}

static int run_mul(struct parity_run *run, const void *args, struct error *err)
{
    const struct pair_case *c = args;
    struct mul_args a = c->mul;
    a.dtype = run->dtype;
    a.a = run->data[0];
    a.b = run->data[1];
    a.y = run->data[2];
    return run->k->mul(run->d, &a, err);
}

static void pairs(void **unused)
{
    static const int64_t sizes[][2] = {
        {5, 5}, {40000, 40000}, {51, 17}, {36000, 18000}, {40000, 8}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct pair_case v = {
            .add = {.count = sizes[i][0], .b_count = sizes[i][1], .alpha = 0.75, .beta = -1.5},
            .mul = {.count = sizes[i][0], .accumulate = i % 2},
            .none = i == 1,
        };
        struct parity_case c = {.run = run_add, .args = &v};
        snprintf(c.name, sizeof c.name, "add %lld %lld", (long long)sizes[i][0],
                 (long long)sizes[i][1]);
        parity_operand(&c, OPERAND_ACTIVATION, false, sizes[i][0], 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, sizes[i][1], 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, sizes[i][0], 1);
        check(&c);
        for (int repeats = 0; repeats < 2; repeats++) {
            c = (struct parity_case){.run = run_mul, .args = &v, .name = "mul"};
            v.mul.b_count = repeats ? sizes[i][1] : 0;
            for (int o = 0; o < 3; o++)
                parity_operand(&c, OPERAND_ACTIVATION, o == 2,
                               o == 1 && repeats ? sizes[i][1] : sizes[i][0], 1);
            check(&c);
        }
    }
}

/* ---- moving ---- */

struct copy_case {
    struct copy_args a;
    bool y_real, x_real;
};

static int run_copy(struct parity_run *run, const void *args, struct error *err)
{
    const struct copy_case *c = args;
    struct copy_args a = c->a;
    a.x = run->data[0];
    a.y = run->data[1];
    a.x_dtype = c->x_real ? run->real : run->dtype;
    a.y_dtype = c->y_real ? run->real : run->dtype;
    return run->k->copy(run->d, &a, err);
}

static void copies(void **unused)
{
    static const int64_t sizes[][4] = {
        {3, 5, 5, 9}, {1, 50000, 50000, 50000}, {9, 33, 40, 33}, {700, 64, 64, 64}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (int flags = 0; flags < 8; flags++) {
            const int64_t *s = sizes[i];
            struct copy_case v = {.a = {.rows = s[0],
                                        .cols = s[1],
                                        .ldy = s[2],
                                        .ldx = s[3],
                                        .accumulate = flags & 1},
                                  .y_real = flags & 2,
                                  .x_real = flags & 4};
            struct parity_case c = {.run = run_copy, .args = &v};
            snprintf(c.name, sizeof c.name, "copy %lldx%lld flags %d", (long long)s[0],
                     (long long)s[1], flags);
            parity_operand(&c, v.x_real ? OPERAND_REAL : OPERAND_ACTIVATION, false, s[0] * s[3], 1);
            parity_operand(&c, v.y_real ? OPERAND_REAL : OPERAND_ACTIVATION, true, s[0] * s[2], 1);
            check(&c);
        }
}

RUN(run_transpose, transpose_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(transpose)

static void transpose(void **unused)
{
    static const int64_t sizes[][3] = {{1, 3, 5}, {2, 33, 40}, {3, 4, 100}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct transpose_args a = {.n = sizes[i][0], .a = sizes[i][1], .b = sizes[i][2]};
        struct parity_case c = {.run = run_transpose, .args = &a, .name = "transpose"};
        parity_operand(&c, OPERAND_ACTIVATION, false, a.n * a.a * a.b, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, a.n * a.a * a.b, 1);
        check(&c);
    }
}

static int run_column_sum(struct parity_run *run, const void *args, struct error *err)
{
    struct column_sum_args a = *(const struct column_sum_args *)args;
    a.sum_dtype = a.sum_dtype == DTYPE_F32 ? run->real : run->dtype;
    a.dtype = run->dtype;
    a.x = run->data[0];
    a.sum = run->data[1];
    return run->k->column_sum(run->d, &a, err);
}

static void column_sum(void **unused)
{
    static const int64_t sizes[][3] = {{1, 1, 1}, {2, 100, 37}, {3, 64, 16}, {1, 500, 5}};
    for (size_t i = 0; i < 2 * COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i / 2];
        struct column_sum_args a = {.groups = s[0],
                                    .rows = s[1],
                                    .cols = s[2],
                                    .sum_dtype = i % 2 ? DTYPE_F32 : DTYPE_BF16};
        struct parity_case c = {.run = run_column_sum, .args = &a, .name = "column_sum"};
        parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2], 1);
        parity_operand(&c, i % 2 ? OPERAND_REAL : OPERAND_ACTIVATION, true, s[0] * s[2], 1);
        check(&c);
    }
}

RUN(run_upsample, upsample_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(upsample)

RUN(run_upsample_grad, upsample_args)
a.dtype = run->dtype;
a.dy = run->data[1];
a.dx = run->data[0];
RUN_END(upsample_grad)

static void upsample(void **unused)
{
    static const int64_t sizes[][6] = {
        {2, 3, 4, 20, 6, 8}, {1, 5, 4, 7, 8, 9}, {1, 4, 4, 16, 3, 3}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i];
        struct upsample_args a = {.n = s[0],
                                  .h = s[1],
                                  .w = s[2],
                                  .c = s[3],
                                  .oh = s[4],
                                  .ow = s[5],
                                  .accumulate = i == 1};
        for (int grad = 0; grad < 2; grad++) {
            struct parity_case c = {
                .run = grad ? run_upsample_grad : run_upsample, .args = &a, .name = "upsample"};
            parity_operand(&c, OPERAND_ACTIVATION, grad, s[0] * s[1] * s[2] * s[3], 1);
            parity_operand(&c, OPERAND_ACTIVATION, !grad, s[0] * s[4] * s[5] * s[3], 1);
            check(&c);
        }
    }
}

RUN(run_max_pool, max_pool_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(max_pool)

RUN(run_bilinear, bilinear_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(bilinear)

static void windows(void **unused)
{
    /* n h w c oh ow kernel stride pad */
    static const int64_t sizes[][9] = {{2, 6, 8, 20, 3, 4, 2, 2, 0},
                                       {1, 5, 7, 7, 3, 4, 2, 2, 0}, /* windows over the edge */
                                       {1, 9, 10, 16, 5, 5, 3, 2, 1},
                                       {1, 1, 3, 3, 1, 2, 2, 2, 0}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i];
        struct max_pool_args pool = {.n = s[0],
                                     .h = s[1],
                                     .w = s[2],
                                     .c = s[3],
                                     .oh = s[4],
                                     .ow = s[5],
                                     .kernel = (int)s[6],
                                     .stride = (int)s[7],
                                     .pad = (int)s[8]};
        struct parity_case c = {.run = run_max_pool, .args = &pool, .name = "max_pool"};
        parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2] * s[3], 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, s[0] * s[4] * s[5] * s[3], 1);
        check(&c);
        for (int larger = 0; larger < 2; larger++) {
            struct bilinear_args b = {.n = s[0],
                                      .h = s[1],
                                      .w = s[2],
                                      .c = s[3],
                                      .oh = larger ? 2 * s[1] + 1 : s[4],
                                      .ow = larger ? 2 * s[2] : s[5]};
            c = (struct parity_case){.run = run_bilinear, .args = &b, .name = "bilinear"};
            parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2] * s[3], 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, s[0] * b.oh * b.ow * s[3], 1);
            check(&c);
        }
    }
}

static const int32_t tokens[] = {3, 0, 9, 3, 3, 1};

static int run_embedding(struct parity_run *run, const void *args, struct error *err)
{
    struct embedding_args a = *(const struct embedding_args *)args;
    a.dtype = run->dtype;
    a.id = tokens;
    a.table = &run->weight;
    a.y = run->data[1];
    return run->k->embedding(run->d, &a, err);
}

static int run_embedding_grad(struct parity_run *run, const void *args, struct error *err)
{
    struct embedding_args a = *(const struct embedding_args *)args;
    a.dtype = run->dtype;
    a.id = tokens;
    a.dy = run->data[0];
    a.dtable = run->data[1];
    return run->k->embedding_grad(run->d, &a, err);
}

static void embedding(void **unused)
{
    struct embedding_args a = {.count = COUNT_OF(tokens), .d = 37};
    struct parity_case c = {
        .run = run_embedding, .args = &a, .name = "embedding", .rank = 2, .dim = {10, 37}};
    parity_operand(&c, OPERAND_WEIGHT, false, 370, 1);
    parity_operand(&c, OPERAND_ACTIVATION, true, a.count * a.d, 1);
    check(&c);
    c = (struct parity_case){.run = run_embedding_grad, .args = &a, .name = "embedding_grad"};
    parity_operand(&c, OPERAND_ACTIVATION, false, a.count * a.d, 1);
    parity_operand(&c, OPERAND_REAL, true, 370, 1);
    check(&c);
}

/* ---- training ---- */

struct mse_case {
    struct mse_args a;
    bool weight;
};

static int run_mse(struct parity_run *run, const void *args, struct error *err)
{
    const struct mse_case *c = args;
    struct mse_args a = c->a;
    a.dtype = run->dtype;
    a.y = run->data[0];
    a.target = run->data[1];
    a.weight = c->weight ? run->data[2] : NULL;
    a.loss = run->data[3];
    a.dy = run->data[4];
    int rc = run->k->mse(run->d, &a, err);
    return rc ? rc : run->k->mse_grad(run->d, &a, err);
}

static void mse(void **unused)
{
    for (int i = 0; i < 4; i++) {
        struct mse_case v = {.a = {.count = i < 2 ? 19 : 50000, .scale = 1.5}, .weight = i % 2};
        struct parity_case c = {.run = run_mse, .args = &v, .name = "mse"};
        parity_operand(&c, OPERAND_ACTIVATION, false, v.a.count, 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, v.a.count, 1);
        parity_operand(&c, OPERAND_REAL, false, v.a.count, 1);
        parity_operand(&c, OPERAND_REAL, true, 1, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, v.a.count, 1);
        check(&c);
    }
}

RUN(run_adamw, adamw_args)
a.param = run->data[0];
a.m = run->data[1];
a.v = run->data[2];
a.grad = run->data[3];
RUN_END(adamw)

static void adamw(void **unused)
{
    for (int i = 0; i < 2; i++) {
        struct adamw_args a = {.count = i ? 40000 : 21,
                               .step = 1 + 5 * i,
                               .lr = 1e-2,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.01,
                               .grad_scale = 0.5};
        struct parity_case c = {.run = run_adamw, .args = &a, .name = "adamw"};
        for (int o = 0; o < 4; o++) parity_operand(&c, OPERAND_REAL, o < 3, a.count, 1);
        for (int64_t j = 0; j < a.count; j++) {
            double *v = &c.operand[2].value[j];
            *v = *v * *v;
        }
        check(&c);
    }
}

static int run_norm(struct parity_run *run, const void *args, struct error *err)
{
    struct norm_args a = *(const struct norm_args *)args;
    double sum = 0;
    a.dtype = run->dtype;
    a.x = run->data[0];
    a.sum_of_squares = &sum;
    int rc = run->k->norm(run->d, &a, err);
    dtype_set(run->data[1], run->real, 0, sum);
    return rc;
}

static void norm(void **unused)
{
    for (int i = 0; i < 2; i++) {
        struct norm_args a = {.count = i ? 70001 : 3};
        struct parity_case c = {.run = run_norm, .args = &a, .name = "norm"};
        parity_operand(&c, OPERAND_ACTIVATION, false, a.count, 1);
        parity_operand(&c, OPERAND_REAL, true, 1, 1);
        check(&c);
    }
}

/* ---- the device itself ---- */

static void *cpu_open(const char *options)
{
    struct device *d = NULL;
    struct error err = {0};
    if (cpu_device_open(&d, options, &err)) fail_msg("%s", err.text);
    return d;
}

/* one product with a weight, three slices of K, by each thread count */
static void same_for_all_threads(void **unused)
{
    enum { M = 61, K = 1300, OUT = 150 };
    float *x = alloc_zero(M * K, 4), *w = alloc_zero(OUT * K, 4), *y[3];
    for (int i = 0; i < M * K; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int i = 0; i < OUT * K; i++) w[i] = (float)parity_uniform() - 0.5f;
    for (int threads = 1; threads <= 3; threads++) {
        char options[8];
        snprintf(options, sizeof options, "%d", threads);
        struct device *d = cpu_open(options);
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

/* Winograd's form made from the weight itself, and from the form that a loader asked for */
static void winograd_from_either_form(void **unused)
{
    enum { H = 22, C = 66, OUT = 70 };
    float *x = alloc_zero(H * H * C, 4), *w = alloc_zero(OUT * C * 9, 4), *y[2];
    for (int i = 0; i < H * H * C; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int i = 0; i < OUT * C * 9; i++) w[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_open("2");
    for (int loaded = 0; loaded < 2; loaded++) {
        struct kernel_weight weight = {
            .data = w, .dtype = DTYPE_F32, .rank = 4, .dim = {OUT, C, 3, 3}};
        struct error err = {0};
        if (loaded) assert_int_equal(d->kernels->pack(d, &weight, DTYPE_F32, &err), 0);
        y[loaded] = alloc_zero(H * H * OUT, 4);
        struct conv2d_args a = {.y = y[loaded],
                                .x = x,
                                .w = &weight,
                                .n = 1,
                                .h = H,
                                .w_px = H,
                                .c = C,
                                .oh = H,
                                .ow = H,
                                .out = OUT,
                                .kh = 3,
                                .kw = 3,
                                .stride = 1,
                                .pad_top = 1,
                                .pad_left = 1,
                                .dtype = DTYPE_F32};
        assert_int_equal(d->kernels->conv2d(d, &a, &err), 0);
        d->kernels->unpack(d, &weight);
    }
    double worst = 0;
    for (int i = 0; i < H * H * OUT; i++) {
        double off = fabs((double)y[0][i] - y[1][i]);
        if (!(off <= worst)) worst = off;
    }
    assert_true(worst < 1e-4); /* sums of other roundings; values are near 5 */
    device_close(d);
    free(x);
    free(w);
    free(y[0]);
    free(y[1]);
}

/* counts that let a weight be packed call by call, see cpu_unpacked.h */
static void whole_blocks(void **unused)
{
    linear_once(3, 1280, 7000, 0, ACT_NONE, 1); /* more columns than are packed at once */
    linear_grad_once(13, 61, 640, 1, true);
    for (int circular = 0; circular < 2; circular++) { /* whole blocks of K, both ways */
        conv(2, 5, 4, 32, 64, 3, 1, 1, 1, circular, 7);
        conv(1, 6, 8, 96, 32, 3, 2, 1, 1, circular, 1); /* the last slice is one block */
        conv(1, 4, 5, 160, 35, 3, 1, 1, 1, circular, 16);
        conv(1, 4, 5, 35, 96, 3, 1, 1, 1, circular, 1);
        conv(1, 6, 6, 64, 32, 2, 2, 0, 1, circular, 0);
        conv(2, 3, 4, 64, 32, 3, 1, 1, 2, circular, 23);
    }
    conv(1, 9, 8, 32, 16, 4, 1, 1, 1, false, 0);
    struct conv_case v = {.a = {.n = 1,
                                .h = 6,
                                .w_px = 8,
                                .c = 64,
                                .out = 32,
                                .kh = 3,
                                .kw = 1,
                                .stride = 2,
                                .pad_top = 1,
                                .oh = 3,
                                .ow = 4}};
    conv_once(v);
}

/* a weight of a file is packed for each call, then for good: no bit of the result may tell; a derivative
 * between the calls ends the keeping */
static void kept_after_some_calls(void **unused)
{
    enum { H = 5, C = 64, OUT = 96, CALLS = 12 };
    float x[H * H * C], w[OUT * C * 9];
    for (int i = 0; i < H * H * C; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int i = 0; i < OUT * C * 9; i++) w[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_open("2");
    for (int kind = 0; kind < 8; kind++) {
        enum dtype act = kind & 1 ? DTYPE_BF16 : DTYPE_F32;
        int side = kind & 2 ? 3 : 1;
        uint16_t half[OUT * C * 9];
        float in[H * H * C], dx[H * H * C], y[2][H * H * OUT] = {{0}};
        dtype_convert(in, act, x, DTYPE_F32, H * H * C);
        dtype_convert(half, DTYPE_BF16, w, DTYPE_F32, OUT * C * 9);
        struct kernel_weight weight = {
            .data = half, .dtype = DTYPE_BF16, .rank = 4, .dim = {OUT, C, side, side}};
        for (int call = 0; call < CALLS; call++) {
            struct conv2d_args a = {.y = y[call > 0],
                                    .x = in,
                                    .w = &weight,
                                    .n = 1,
                                    .h = H,
                                    .w_px = H,
                                    .c = C,
                                    .oh = H,
                                    .ow = H,
                                    .out = OUT,
                                    .kh = side,
                                    .kw = side,
                                    .stride = 1,
                                    .pad_top = side / 2,
                                    .pad_left = side / 2,
                                    .dtype = act};
            struct conv2d_grad_args grad = {.conv = a, .dx = dx, .dy = y[0]};
            struct error err = {0};
            assert_int_equal(d->kernels->conv2d(d, &a, &err), 0);
            if (call) assert_memory_equal(y[0], y[1], sizeof y[0]);
            if (kind & 4 && call == CALLS - 2)
                assert_int_equal(d->kernels->conv2d_dx(d, &grad, &err), 0);
        }
        /* floats of a bfloat16 file would take twice its room */
        const struct packed *p = weight.packed;
        bool kept = (kind & 1) && !(kind & 4);
        assert_true(!!(p && p->form[PACK_FORWARD][kind & 1]) == kept);
        assert_true(!(p && p->form[PACK_BACKWARD][kind & 1]));
        d->kernels->unpack(d, &weight);
    }
    device_close(d);
}

/* every float type that a checkpoint may hold, at an odd address */
static void weights_of_any_dtype(void **unused)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_F8_E4M3};
    enum { M = 5, K = 38, OUT = 35 };
    float x[M * K], w[OUT * K];
    for (int i = 0; i < M * K; i++) x[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_open("2");
    for (size_t t = 0; t < COUNT_OF(dtypes); t++) {
        char *memory = alloc_zero(OUT * K * 8 + 1, 1), *data = memory + 1;
        for (int i = 0; i < OUT * K; i++)
            w[i] = (float)parity_between(-3, 3) * 0.25f; /* exact in all */
        dtype_convert(memory, dtypes[t], w, DTYPE_F32, OUT * K);
        memmove(data, memory, OUT * K * dtype_bytes(dtypes[t]));
        for (int half = 0; half < 2; half++) {
            enum dtype act = half ? DTYPE_BF16 : DTYPE_F32;
            float in[M * K], y[2][M * OUT];
            dtype_convert(in, act, x, DTYPE_F32, M * K);
            for (int other = 0; other < 2; other++) {
                struct kernel_weight weight = {.data = other ? (const void *)data : w,
                                               .dtype = other ? dtypes[t] : DTYPE_F32,
                                               .rank = 2,
                                               .dim = {OUT, K}};
                struct linear_args a = {.y = y[other],
                                        .x = in,
                                        .w = &weight,
                                        .m = M,
                                        .k = K,
                                        .out = OUT,
                                        .ldx = K,
                                        .ldy = OUT,
                                        .dtype = act};
                struct error err = {0};
                assert_int_equal(d->kernels->linear(d, &a, &err), 0);
                d->kernels->unpack(d, &weight);
            }
            assert_memory_equal(y[0], y[1], M * OUT * dtype_bytes(act));
        }
        free(memory);
    }
    device_close(d);
}

/* a weight that training changed is packed again */
static void repacks_changed_weight(void **unused)
{
    float w[6] = {1, 2, 3, 4, 5, 6}, x[3] = {1, 1, 1}, y[2];
    struct device *d = cpu_open(NULL);
    struct kernel_weight weight = {
        .data = w, .dtype = DTYPE_F32, .rank = 2, .dim = {2, 3}, .changes = true, .version = 1};
    struct linear_args a = {.y = y,
                            .x = x,
                            .w = &weight,
                            .m = 1,
                            .k = 3,
                            .out = 2,
                            .ldx = 3,
                            .ldy = 2,
                            .dtype = DTYPE_F32};
    struct error err = {0};
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    assert_true(y[0] == 6 && y[1] == 15);
    w[0] = 10;
    weight.version++;
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    assert_true(y[0] == 15 && y[1] == 15);
    d->kernels->unpack(d, &weight);
    device_close(d);
}

static void refuses(void **unused)
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
    d = cpu_open("1");
    uint16_t half[4] = {0};
    struct activation_args a = {.y = half, .x = half, .count = 4, .dtype = DTYPE_F16};
    assert_int_equal(d->kernels->activation(d, &a, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "F16"));
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear),
        cmocka_unit_test(linear_grad),
        cmocka_unit_test(conv2d),
        cmocka_unit_test(group_norm),
        cmocka_unit_test(layer_norm),
        cmocka_unit_test(attention),
        cmocka_unit_test(geglu),
        cmocka_unit_test(activation),
        cmocka_unit_test(pairs),
        cmocka_unit_test(copies),
        cmocka_unit_test(transpose),
        cmocka_unit_test(column_sum),
        cmocka_unit_test(upsample),
        cmocka_unit_test(windows),
        cmocka_unit_test(embedding),
        cmocka_unit_test(mse),
        cmocka_unit_test(adamw),
        cmocka_unit_test(norm),
        cmocka_unit_test(same_for_all_threads),
        cmocka_unit_test(repacks_changed_weight),
        cmocka_unit_test(winograd_from_either_form),
        cmocka_unit_test(whole_blocks),
        cmocka_unit_test(kept_after_some_calls),
        cmocka_unit_test(weights_of_any_dtype),
        cmocka_unit_test(refuses),
    };
    static const char *const paths[] = {"avx512", "avx512-only", "avx2", "portable"};
    int failed = 0;
    const char *seed = getenv("KILN_TEST_SEED");
    parity_seed(seed ? strtoull(seed, NULL, 10) : 20261124);
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        setenv("KILN_CPU", paths[i], 1);
        struct error err = {0};
        int rc = cpu_device_open(&device, i == 0 ? "3" : "2", &err);
        if (rc) {
            print_message("skipped: %s\n", err.text);
            continue;
        }
        print_message("path %s: %s\n", paths[i], device->label);
        failed += cmocka_run_group_tests_name(paths[i], tests, NULL, NULL);
        device_close(device);
    }
    return failed;
}
