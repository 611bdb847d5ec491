/* Elementwise kernels, moves, resampling, training, as kernel_families.h wants them. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/kernel_families.h"

/* ---- elementwise: rows, width ---- */

static void describe_geglu(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * n[1], 0);
    o[1] = family_result(n[0] * n[1] * 2, 0);
    o[2] = family_act(n[0] * n[1] * 2, 1);
    o[3] = family_act(n[0] * n[1], 1);
}

static int run_geglu(struct family_side *s, const int64_t *n, struct error *err)
{
    struct geglu_args a = {.y = s->at[0],
                           .x = s->at[2],
                           .dy = s->at[3],
                           .dx = s->at[1],
                           .rows = n[0],
                           .d = n[1],
                           .dtype = s->dtype};
    int rc = s->d->kernels->geglu(s->d, &a, err);
    return rc ? rc : s->d->kernels->geglu_grad(s->d, &a, err);
}

static void describe_pairs(const int64_t *n, struct family_operand *o)
{
    for (int i = 0; i < 2; i++) o[i] = family_result(n[0] * n[1], 0);
    for (int i = 2; i < 4; i++) o[i] = family_act(n[0] * n[1], 1);
}

static int run_activation(struct family_side *s, const int64_t *n, struct error *err)
{
    struct activation_args a = {.y = s->at[0],
                                .x = s->at[2],
                                .dy = s->at[3],
                                .dx = s->at[1],
                                .count = n[0] * n[1],
                                .act = ACT_SILU,
                                .dtype = s->dtype};
    int rc = s->d->kernels->activation(s->d, &a, err);
    return rc ? rc : s->d->kernels->activation_grad(s->d, &a, err);
}

/* the step of a sampler is such a sum */
static int run_sums(struct family_side *s, const int64_t *n, struct error *err)
{
    struct add_args sum = {.y = s->at[0],
                           .a = s->at[2],
                           .b = s->at[3],
                           .count = n[0] * n[1],
                           .b_count = n[1],
                           .alpha = 0.75,
                           .beta = -1.5,
                           .dtype = s->dtype};
    struct mul_args product = {.y = s->at[1],
                               .a = s->at[2],
                               .b = s->at[3],
                               .count = n[0] * n[1],
                               .b_count = n[1],
                               .dtype = s->dtype};
    int rc = s->d->kernels->add(s->d, &sum, err);
    return rc ? rc : s->d->kernels->mul(s->d, &product, err);
}

/* a concatenation's copies, and channels first <-> last */
static int run_moves(struct family_side *s, const int64_t *n, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < 2 && !rc; i++) {
        const size_t half = (size_t)(n[1] / 2) * dtype_bytes(s->dtype);
        struct copy_args part = {.y = (char *)s->at[0] + (size_t)i * half,
                                 .x = s->at[2 + i],
                                 .rows = n[0],
                                 .cols = n[1] / 2,
                                 .ldy = n[1],
                                 .ldx = n[1],
                                 .y_dtype = s->dtype,
                                 .x_dtype = s->dtype};
        rc = s->d->kernels->copy(s->d, &part, err);
    }
    struct transpose_args turn = {
        .y = s->at[1], .x = s->at[2], .n = 1, .a = n[0], .b = n[1], .dtype = s->dtype};
    return rc ? rc : s->d->kernels->transpose(s->d, &turn, err);
}

static void describe_column_sum(const int64_t *n, struct family_operand *o)
{
    o[0] = family_f32(n[1], 0, true);
    o[1] = family_act(n[0] * n[1], 1);
}

static int run_column_sum(struct family_side *s, const int64_t *n, struct error *err)
{
    struct column_sum_args a = {.sum = s->at[0],
                                .x = s->at[1],
                                .groups = 1,
                                .rows = n[0],
                                .cols = n[1],
                                .dtype = s->dtype,
                                .sum_dtype = DTYPE_F32};
    return s->d->kernels->column_sum(s->d, &a, err);
}

/* ---- resampling: images, side, c ---- */

static void describe_resample(const int64_t *n, struct family_operand *o)
{
    int64_t small = n[0] * n[1] * n[1] * n[2];
    o[0] = family_result(4 * small, 0);
    o[1] = family_result(small, 0);
    o[2] = family_result(4 * small, 0);
    o[3] = family_result(small, 0);
    o[4] = family_act(small, 1);
    o[5] = family_act(4 * small, 1);
}

static int run_resample(struct family_side *s, const int64_t *n, struct error *err)
{
    struct upsample_args up = {.y = s->at[0],
                               .x = s->at[4],
                               .dy = s->at[5],
                               .dx = s->at[1],
                               .n = n[0],
                               .h = n[1],
                               .w = n[1],
                               .c = n[2],
                               .oh = 2 * n[1],
                               .ow = 2 * n[1],
                               .dtype = s->dtype};
    struct bilinear_args between = {.y = s->at[2],
                                    .x = s->at[4],
                                    .n = n[0],
                                    .h = n[1],
                                    .w = n[1],
                                    .c = n[2],
                                    .oh = 2 * n[1],
                                    .ow = 2 * n[1],
                                    .dtype = s->dtype};
    struct max_pool_args pool = {.y = s->at[3],
                                 .x = s->at[5],
                                 .n = n[0],
                                 .h = 2 * n[1],
                                 .w = 2 * n[1],
                                 .c = n[2],
                                 .oh = n[1],
                                 .ow = n[1],
                                 .kernel = 2,
                                 .stride = 2,
                                 .dtype = s->dtype};
    int rc = s->d->kernels->upsample(s->d, &up, err);
    if (!rc) rc = s->d->kernels->upsample_grad(s->d, &up, err);
    if (!rc) rc = s->d->kernels->bilinear(s->d, &between, err);
    return rc ? rc : s->d->kernels->max_pool(s->d, &pool, err);
}

/* ---- embedding: tokens, width; every row of the table in turn ---- */

static void describe_embedding(const int64_t *n, struct family_operand *o)
{
    o[0] = family_result(n[0] * n[1], 0);
    o[1] = family_f32(n[0] * n[1], 0, true);
    o[2] = family_weight(n[0] * n[1], 1);
    o[3] = family_act(n[0] * n[1], 1);
}

static int run_embedding(struct family_side *s, const int64_t *n, struct error *err)
{
    int32_t *id = alloc_zero((size_t)n[0], sizeof *id);
    for (int64_t i = 0; i < n[0]; i++) id[i] = (int32_t)(i * 7 % n[0]);
    struct embedding_args a = {.y = s->at[0],
                               .table = family_weigh(s, 0, 2, 2, FAMILY_DIM(n[0], n[1])),
                               .id = id,
                               .dy = s->at[3],
                               .dtable = s->at[1],
                               .count = n[0],
                               .d = n[1],
                               .dtype = s->dtype};
    int rc = s->d->kernels->embedding(s->d, &a, err);
    if (!rc) rc = s->d->kernels->embedding_grad(s->d, &a, err);
    free(id);
    return rc;
}

/* ---- training: count ---- */

static void describe_loss(const int64_t *n, struct family_operand *o)
{
    o[0] = family_f32(1, 0, true);
    o[1] = family_result(n[0], 0);
    o[2] = family_act(n[0], 1);
    o[3] = family_act(n[0], 1);
    o[4] = family_f32(n[0], 1, false);
}

static int run_loss(struct family_side *s, const int64_t *n, struct error *err)
{
    double squares; /* waits for the device where it has memory of its own */
    struct mse_args a = {.loss = s->at[0],
                         .y = s->at[2],
                         .target = s->at[3],
                         .weight = s->at[4],
                         .dy = s->at[1],
                         .count = n[0],
                         .scale = (double)n[0],
                         .dtype = s->dtype};
    struct norm_args all = {
        .x = s->at[4], .count = n[0], .dtype = DTYPE_F32, .sum_of_squares = &squares};
    int rc = s->d->kernels->mse(s->d, &a, err);
    if (!rc) rc = s->d->kernels->mse_grad(s->d, &a, err);
    return rc ? rc : s->d->kernels->norm(s->d, &all, err);
}

static void describe_adamw(const int64_t *n, struct family_operand *o)
{
    o[0] = family_f32(n[0], 1, true);
    o[1] = family_f32(n[0], 0, true);
    o[2] = family_f32(n[0], 0, true);
    o[3] = family_f32(n[0], 1, false);
}

static struct adamw_args adamw_of(struct family_side *s, const int64_t *n)
{
    return (struct adamw_args){.param = s->at[0],
                               .m = s->at[1],
                               .v = s->at[2],
                               .grad = s->at[3],
                               .count = n[0],
                               .step = 1,
                               .lr = 1e-2,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.01,
                               .grad_scale = 0.5};
}

static int run_adamw(struct family_side *s, const int64_t *n, struct error *err)
{
    struct adamw_args a = adamw_of(s, n);
    return s->d->kernels->adamw(s->d, &a, err);
}

static void describe_adamw8(const int64_t *n, struct family_operand *o)
{
    const int64_t blocks = (n[0] + ADAMW8_BLOCK - 1) / ADAMW8_BLOCK;
    o[0] = family_f32(n[0], 1, true);
    for (int i = 1; i < 3; i++) o[i] = (struct family_operand){.count = n[0], .dtype = DTYPE_U8};
    o[3] = family_f32(n[0], 1, false);
    for (int i = 4; i < 6; i++) o[i] = family_f32(blocks, 0, true);
}

static int run_adamw8(struct family_side *s, const int64_t *n, struct error *err)
{
    struct adamw8_args a = {.base = adamw_of(s, n), .m_scale = s->at[4], .v_scale = s->at[5]};
    return s->d->kernels->adamw8(s->d, &a, err);
}

/* Limits: a few roundings of F16 (2^-11 = 4.9e-4), more where results pass through F16 on the way. */
const struct family kernel_families_rest[] = {
    {"geglu, both ways", {2048, 5120}, {30, 40}, 4, describe_geglu, run_geglu, NULL, 2e-3},
    {"silu, both ways", {8192, 1280}, {30, 41}, 4, describe_pairs, run_activation, NULL, 2e-3},
    {"sums and products", {8192, 1280}, {30, 40}, 4, describe_pairs, run_sums, NULL, 2e-3},
    {"concat and transpose", {8192, 1280}, {30, 48}, 4, describe_pairs, run_moves, NULL, 0},
    {"column sums", {8192, 1280}, {70, 40}, 2, describe_column_sum, run_column_sum, NULL, 2e-3},
    {"enlarge, its gradient, bilinear, pool",
     {2, 32, 640},
     {2, 5, 12},
     6,
     describe_resample,
     run_resample,
     NULL,
     2e-3},
    {"embedding, both ways",
     {1024, 768},
     {20, 24},
     4,
     describe_embedding,
     run_embedding,
     NULL,
     2e-3},
    {"loss, its gradient, norm", {1 << 20}, {5000}, 5, describe_loss, run_loss, NULL, 2e-3},
    {"AdamW", {1 << 20}, {1003}, 4, describe_adamw, run_adamw, NULL, 1e-4},
    {"AdamW, 8 bit", {1 << 20}, {1003}, 6, describe_adamw8, run_adamw8, NULL, 1e-3},
};
const int kernel_families_rest_count = COUNT_OF(kernel_families_rest);
