/* Products, attention, norms and their gradients, as kernel_families.h wants them. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/kernel_families.h"

/* ---- linear: rows, out, k ---- */

static void describe_geglu_linear(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * n[1] / 2, 0);
    o[1] = family_act(n[0] * n[2], 1);
    o[2] = family_weight(n[1] * n[2], n[2]);
    o[3] = family_act(n[1], 1);
}

static int run_geglu_linear(struct family_side *s, const int64_t *n, struct error *err)
{
    struct linear_args a = {.y = s->at[0],
                            .x = s->at[1],
                            .w = family_weigh(s, 0, 2, 2, FAMILY_DIM(n[1], n[2])),
                            .m = n[0],
                            .k = n[2],
                            .out = n[1],
                            .ldx = n[2],
                            .ldy = n[1] / 2,
                            .dtype = s->dtype,
                            .epilogue = {.bias = s->at[3], .bias_dtype = s->dtype}};
    if (s->d->kernels->linear_geglu) return s->d->kernels->linear_geglu(s->d, &a, err);
    void *wide = alloc_zero((size_t)(n[0] * n[1]), dtype_bytes(s->dtype)); /* plain: host memory */
    a.y = wide;
    a.ldy = n[1];
    int rc = s->d->kernels->linear(s->d, &a, err);
    struct geglu_args half = {
        .y = s->at[0], .x = wide, .rows = n[0], .d = n[1] / 2, .dtype = s->dtype};
    if (!rc) rc = s->d->kernels->geglu(s->d, &half, err);
    free(wide);
    return rc;
}

static bool has_geglu_linear(const struct kernels *k)
{
    return k->linear_geglu != NULL;
}

static void describe_join(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * 3 * n[1], 0);
    o[1] = family_act(n[0] * n[2], 1);
    for (int i = 2; i < 5; i++) o[i] = family_weight(n[1] * n[2], n[2]);
}

static int run_join(struct family_side *s, const int64_t *n, struct error *err)
{
    struct linear_join_args a = {.y = s->at[0],
                                 .x = s->at[1],
                                 .count = 3,
                                 .m = n[0],
                                 .k = n[2],
                                 .out = n[1],
                                 .ldx = n[2],
                                 .ldy = 3 * n[1],
                                 .dtype = s->dtype};
    for (int i = 0; i < 3; i++) a.w[i] = family_weigh(s, i, 2 + i, 2, FAMILY_DIM(n[1], n[2]));
    if (s->d->kernels->linear_join) return s->d->kernels->linear_join(s->d, &a, err);
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) {
        struct linear_args one = {.y = (char *)a.y + (size_t)(i * n[1]) * dtype_bytes(s->dtype),
                                  .x = a.x,
                                  .w = a.w[i],
                                  .m = a.m,
                                  .k = a.k,
                                  .out = a.out,
                                  .ldx = a.ldx,
                                  .ldy = a.ldy,
                                  .dtype = a.dtype};
        rc = s->d->kernels->linear(s->d, &one, err);
    }
    return rc;
}

static bool has_join(const struct kernels *k)
{
    return k->linear_join != NULL;
}

static void describe_linear_dx(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * n[2], 0);
    o[1] = family_act(n[0] * n[1], 1);
    o[2] = family_weight(n[1] * n[2], n[1]);
}

static int run_linear_dx(struct family_side *s, const int64_t *n, struct error *err)
{
    struct linear_dx_args a = {.dx = s->at[0],
                               .dy = s->at[1],
                               .w = family_weigh(s, 0, 2, 2, FAMILY_DIM(n[1], n[2])),
                               .m = n[0],
                               .k = n[2],
                               .out = n[1],
                               .ldx = n[2],
                               .ldy = n[1],
                               .dtype = s->dtype};
    return s->d->kernels->linear_dx(s->d, &a, err);
}

static void describe_linear_dw(const int64_t *n, struct family_operand *o)
{
    o[0] = family_f32(n[1] * n[2], 0, true);
    o[1] = family_act(n[0] * n[1], 1);
    o[2] = family_act(n[0] * n[2], 1);
}

static int run_linear_dw(struct family_side *s, const int64_t *n, struct error *err)
{
    struct linear_dw_args a = {.dw = s->at[0],
                               .dy = s->at[1],
                               .x = s->at[2],
                               .m = n[0],
                               .k = n[2],
                               .out = n[1],
                               .ldx = n[2],
                               .ldy = n[1],
                               .dtype = s->dtype};
    return s->d->kernels->linear_dw(s->d, &a, err);
}

/* ---- convolution: images, side, c, out; 3x3 ---- */

static struct conv2d_args conv_of(struct family_side *s, const int64_t *n)
{
    return (struct conv2d_args){.n = n[0],
                                .h = n[1],
                                .w_px = n[1],
                                .c = n[2],
                                .oh = n[1],
                                .ow = n[1],
                                .out = n[3],
                                .kh = 3,
                                .kw = 3,
                                .stride = 1,
                                .pad_top = 1,
                                .pad_left = 1,
                                .upsample = 1,
                                .dtype = s->dtype};
}

static void describe_conv_dx(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * n[1] * n[1] * n[2], 0);
    o[1] = family_act(n[0] * n[1] * n[1] * n[3], 1);
    o[2] = family_weight(n[3] * n[2] * 9, n[3] * 9);
}

static int run_conv_dx(struct family_side *s, const int64_t *n, struct error *err)
{
    struct conv2d_grad_args a = {.conv = conv_of(s, n), .dx = s->at[0], .dy = s->at[1]};
    a.conv.w = family_weigh(s, 0, 2, 4, FAMILY_DIM(n[3], n[2], 3, 3));
    return s->d->kernels->conv2d_dx(s->d, &a, err);
}

static void describe_conv_dw(const int64_t *n, struct family_operand *o)
{
    o[0] = family_f32(n[3] * n[2] * 9, 0, true);
    o[1] = family_act(n[0] * n[1] * n[1] * n[3], 1);
    o[2] = family_act(n[0] * n[1] * n[1] * n[2], 1);
}

static int run_conv_dw(struct family_side *s, const int64_t *n, struct error *err)
{
    struct conv2d_grad_args a = {.conv = conv_of(s, n), .dy = s->at[1], .dw = s->at[0]};
    a.conv.x = s->at[2];
    return s->d->kernels->conv2d_dw(s->d, &a, err);
}

/* ---- attention: images, heads, lq, lk, d; forward first, for lse ---- */

static void describe_attention_grad(const int64_t *n, struct family_operand *o)
{
    int64_t q = n[0] * n[1] * n[2] * n[4], k = n[0] * n[1] * n[3] * n[4];
    o[0] = family_result(q, 0);
    o[1] = family_result(k, 0);
    o[2] = family_result(k, 0);
    o[3] = family_act(q, 1);
    o[4] = family_act(k, 1);
    o[5] = family_act(k, 1);
    o[6] = family_act(q, 1);
    o[7] = family_act(q, 0);
    o[8] = family_f32(n[0] * n[1] * n[2], 0, false);
}

static int run_attention_grad(struct family_side *s, const int64_t *n, struct error *err)
{
    const int64_t width = n[1] * n[4];
    struct attention_grad_args a = {.forward = {.y = s->at[7],
                                                .q = s->at[3],
                                                .k = s->at[4],
                                                .v = s->at[5],
                                                .lse = s->at[8],
                                                .n = n[0],
                                                .heads = n[1],
                                                .lq = n[2],
                                                .lk = n[3],
                                                .d = n[4],
                                                .ldq = width,
                                                .ldk = width,
                                                .ldv = width,
                                                .ldy = width,
                                                .scale = 1 / sqrt((double)n[4]),
                                                .dtype = s->dtype},
                                    .dy = s->at[6],
                                    .dq = s->at[0],
                                    .dk = s->at[1],
                                    .dv = s->at[2]};
    int rc = s->d->kernels->attention(s->d, &a.forward, err);
    return rc ? rc : s->d->kernels->attention_grad(s->d, &a, err);
}

/* ---- norms: images, rows, c; forward first, for mean and rstd ---- */

static void describe_norm_grad(const int64_t *n, struct family_operand *o)
{
    int64_t count = n[0] * n[1] * n[2];
    o[0] = family_result(count, 0);
    o[1] = family_f32(n[2], 0, true);
    o[2] = family_f32(n[2], 0, true);
    o[3] = family_act(count, 1);
    o[4] = family_act(count, 1);
    o[5] = family_act(n[2], 1);
    o[6] = family_act(n[2], 1);
    o[7] = family_act(count, 0);
    o[8] = family_f32(n[0] * n[1], 0, false);
    o[9] = family_f32(n[0] * n[1], 0, false);
}

static int run_group_norm_grad(struct family_side *s, const int64_t *n, struct error *err)
{
    struct group_norm_grad_args a = {.forward = {.y = s->at[7],
                                                 .x = s->at[3],
                                                 .gamma = s->at[5],
                                                 .beta = s->at[6],
                                                 .mean = s->at[8],
                                                 .rstd = s->at[9],
                                                 .n = n[0],
                                                 .rows = n[1],
                                                 .c = n[2],
                                                 .groups = 8,
                                                 .eps = 1e-5,
                                                 .act = ACT_SILU,
                                                 .dtype = s->dtype,
                                                 .weight_dtype = s->dtype},
                                     .dy = s->at[4],
                                     .dx = s->at[0],
                                     .dgamma = s->at[1],
                                     .dbeta = s->at[2]};
    int rc = s->d->kernels->group_norm(s->d, &a.forward, err);
    return rc ? rc : s->d->kernels->group_norm_grad(s->d, &a, err);
}

static int run_layer_norm_grad(struct family_side *s, const int64_t *n, struct error *err)
{
    struct layer_norm_grad_args a = {.forward = {.y = s->at[7],
                                                 .x = s->at[3],
                                                 .gamma = s->at[5],
                                                 .beta = s->at[6],
                                                 .mean = s->at[8],
                                                 .rstd = s->at[9],
                                                 .rows = n[0] * n[1],
                                                 .d = n[2],
                                                 .eps = 1e-5,
                                                 .dtype = s->dtype,
                                                 .weight_dtype = s->dtype},
                                     .dy = s->at[4],
                                     .dx = s->at[0],
                                     .dgamma = s->at[1],
                                     .dbeta = s->at[2]};
    int rc = s->d->kernels->layer_norm(s->d, &a.forward, err);
    return rc ? rc : s->d->kernels->layer_norm_grad(s->d, &a, err);
}

static void describe_norm(const int64_t *n, struct family_operand *o)
{
    int64_t count = n[0] * n[1] * n[2];
    o[0] = family_result(count, 0);
    o[1] = family_act(count, 1);
    o[2] = family_act(n[2], 1);
    o[3] = family_act(n[2], 1);
}

static int run_group_norm(struct family_side *s, const int64_t *n, struct error *err)
{
    struct group_norm_args a = {.y = s->at[0],
                                .x = s->at[1],
                                .gamma = s->at[2],
                                .beta = s->at[3],
                                .n = n[0],
                                .rows = n[1],
                                .c = n[2],
                                .groups = 8,
                                .eps = 1e-5,
                                .act = ACT_SILU,
                                .dtype = s->dtype,
                                .weight_dtype = s->dtype};
    return s->d->kernels->group_norm(s->d, &a, err);
}

static int run_layer_norm(struct family_side *s, const int64_t *n, struct error *err)
{
    struct layer_norm_args a = {.y = s->at[0],
                                .x = s->at[1],
                                .gamma = s->at[2],
                                .beta = s->at[3],
                                .rows = n[0] * n[1],
                                .d = n[2],
                                .eps = 1e-5,
                                .dtype = s->dtype,
                                .weight_dtype = s->dtype};
    return s->d->kernels->layer_norm(s->d, &a, err);
}

static double linear_flop(const int64_t *n)
{
    return 2.0 * (double)n[0] * (double)n[1] * (double)n[2];
}

static double join_flop(const int64_t *n)
{
    return 3 * linear_flop(n);
}

static double conv_flop(const int64_t *n)
{
    return 18.0 * (double)(n[0] * n[1] * n[1]) * (double)n[2] * (double)n[3];
}

/* 4 forward, 10 backward */
static double attention_flop(const int64_t *n)
{
    return 14.0 * (double)(n[0] * n[1]) * (double)n[2] * (double)n[3] * (double)n[4];
}

/* Limits: a few roundings of F16 (2^-11 = 4.9e-4), more where results pass through F16 on the way. */
const struct family kernel_families_model[] = {
    {"linear + geglu fused",
     {2048, 10240, 1280},
     {70, 96, 64},
     4,
     describe_geglu_linear,
     run_geglu_linear,
     has_geglu_linear,
     2e-3,
     linear_flop},
    {"q, k, v in one product",
     {2048, 1280, 1280},
     {70, 40, 64},
     5,
     describe_join,
     run_join,
     has_join,
     2e-3,
     join_flop},
    {"linear dx",
     {2048, 1280, 1280},
     {70, 72, 64},
     3,
     describe_linear_dx,
     run_linear_dx,
     NULL,
     2e-3,
     linear_flop},
    {"linear dw",
     {2048, 320, 1280},
     {70, 24, 40},
     3,
     describe_linear_dw,
     run_linear_dw,
     NULL,
     2e-3,
     linear_flop},
    {"conv3x3 dx",
     {2, 32, 640, 640},
     {2, 6, 24, 40},
     3,
     describe_conv_dx,
     run_conv_dx,
     NULL,
     2e-3,
     conv_flop},
    {"conv3x3 dw",
     {2, 32, 64, 320},
     {2, 6, 16, 24},
     3,
     describe_conv_dw,
     run_conv_dw,
     NULL,
     2e-3,
     conv_flop},
    {"attention backward d40",
     {2, 8, 4096, 4096, 40},
     {1, 2, 70, 66, 40},
     9,
     describe_attention_grad,
     run_attention_grad,
     NULL,
     5e-3,
     attention_flop},
    {"attention backward d160",
     {2, 8, 256, 256, 160},
     {1, 2, 70, 66, 160},
     9,
     describe_attention_grad,
     run_attention_grad,
     NULL,
     5e-3,
     attention_flop},
    {"group norm + SiLU",
     {2, 4096, 640},
     {2, 40, 48},
     4,
     describe_norm,
     run_group_norm,
     NULL,
     2e-3},
    {"group norm backward",
     {2, 4096, 320},
     {2, 40, 48},
     10,
     describe_norm_grad,
     run_group_norm_grad,
     NULL,
     2e-3},
    {"layer norm", {2, 1024, 1280}, {2, 20, 72}, 4, describe_norm, run_layer_norm, NULL, 2e-3},
    {"layer norm backward",
     {2, 1024, 1280},
     {2, 20, 72},
     10,
     describe_norm_grad,
     run_layer_norm_grad,
     NULL,
     2e-3},
};
const int kernel_families_model_count = COUNT_OF(kernel_families_model);
