/* What only training needs: column sums, the loss, the optimiser, the norm it is clipped by. Sums
 * over fixed spans in float or double, spans added in order: independent of the thread count. */
#include "kernels/adamw8.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_vec.h"

#include <math.h>

#define SPAN 16384 /* elements of one task */
#define ROWS 64    /* rows of one partial column sum */

struct column_sum {
    const struct column_sum_args *a;
    int64_t chunks;
    float *partial; /* [groups,chunks,cols] */
};

ALWAYS_INLINE void column_chunk(const struct column_sum *s, int64_t task, const enum dtype t)
{
    const struct column_sum_args *a = s->a;
    int64_t group = task / s->chunks, r0 = task % s->chunks * ROWS;
    int64_t r1 = r0 + ROWS < a->rows ? r0 + ROWS : a->rows;
    for (int64_t c = 0; c < a->cols; c += VL) {
        int lanes = a->cols - c < VL ? (int)(a->cols - c) : VL;
        vf sum = {0};
        for (int64_t b = r0; b < r1; b += 8) { /* short chains of additions */
            vf part = {0};
            for (int64_t r = b; r < b + 8 && r < r1; r++)
                part += vf_load_n(a->x, (group * a->rows + r) * a->cols + c, t, lanes);
            sum += part;
        }
        vf_store_n(s->partial, task * a->cols + c, DTYPE_F32, sum, lanes);
    }
}

static void column_task(void *context, int64_t task, int worker)
{
    const struct column_sum *s = context;
    CPU_BY_DTYPE(s->a->dtype, column_chunk, s, task);
}

int cpu_column_sum(struct device *d, const struct column_sum_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "column_sum");
    struct column_sum s = {.a = a, .chunks = (a->rows + ROWS - 1) / ROWS};
    size_t bytes = (size_t)(a->groups * s.chunks * a->cols) * 4;
    int rc = cpu_scratch_start(d, bytes + 64, err);
    if (rc) return rc;
    s.partial = cpu_scratch_take(d, bytes);
    pool_run(cpu_state(d)->pool, a->groups * s.chunks, column_task, &s);
    for (int64_t g = 0; g < a->groups; g++)
        for (int64_t c = 0; c < a->cols; c++) {
            double sum = dtype_get(a->sum, a->sum_dtype, g * a->cols + c);
            for (int64_t k = 0; k < s.chunks; k++)
                sum += s.partial[(g * s.chunks + k) * a->cols + c];
            dtype_set(a->sum, a->sum_dtype, g * a->cols + c, sum);
        }
    return 0;
}

struct total {
    const struct mse_args *mse;
    const struct norm_args *norm;
    double *partial;
};

static double spans_total(const double *partial, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < (count + SPAN - 1) / SPAN; i++) sum += partial[i];
    return sum;
}

ALWAYS_INLINE void mse_span(const struct total *s, int64_t task, const enum dtype t)
{
    const struct mse_args *a = s->mse;
    const float *weight = a->weight;
    int64_t from = task * SPAN, to = from + SPAN < a->count ? from + SPAN : a->count;
    double sum = 0;
    for (int64_t i = from; i < to; i++) {
        double off = (double)f_load(a->y, i, t) - f_load(a->target, i, t);
        sum += (weight ? weight[i] : 1) * off * off;
    }
    s->partial[task] = sum;
}

static void mse_task(void *context, int64_t task, int worker)
{
    const struct total *s = context;
    CPU_BY_DTYPE(s->mse->dtype, mse_span, s, task);
}

static int total_start(struct total *s, struct device *d, int64_t count, struct error *err)
{
    size_t bytes = (size_t)((count + SPAN - 1) / SPAN) * sizeof(double);
    int rc = cpu_scratch_start(d, bytes + 64, err);
    if (!rc) s->partial = cpu_scratch_take(d, bytes);
    return rc;
}

int cpu_mse(struct device *d, const struct mse_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "mse");
    struct total s = {.mse = a};
    int rc = total_start(&s, d, a->count, err);
    if (rc) return rc;
    pool_run(cpu_state(d)->pool, (a->count + SPAN - 1) / SPAN, mse_task, &s);
    *(float *)a->loss = (float)(spans_total(s.partial, a->count) / (double)a->count);
    return 0;
}

ALWAYS_INLINE void mse_grad_span(const struct mse_args *a, int64_t task, const enum dtype t)
{
    int64_t from = task * SPAN, to = from + SPAN < a->count ? from + SPAN : a->count;
    float factor = (float)(2 * a->scale / (double)a->count);
    for (int64_t i = from; i < to; i += VL) {
        int lanes = to - i < VL ? (int)(to - i) : VL;
        vf dy = factor * (vf_load_n(a->y, i, t, lanes) - vf_load_n(a->target, i, t, lanes));
        if (a->weight) dy *= vf_load_n(a->weight, i, DTYPE_F32, lanes);
        vf_store_n(a->dy, i, t, dy, lanes);
    }
}

static void mse_grad_task(void *context, int64_t task, int worker)
{
    const struct mse_args *a = context;
    CPU_BY_DTYPE(a->dtype, mse_grad_span, a, task);
}

int cpu_mse_grad(struct device *d, const struct mse_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "mse_grad");
    pool_run(cpu_state(d)->pool, (a->count + SPAN - 1) / SPAN, mse_grad_task, (void *)a);
    return 0;
}

/* In double: memory sets the pace, and the moments keep their last bits. */
static void adamw_task(void *context, int64_t task, int worker)
{
    const struct adamw_args *a = context;
    int64_t from = task * SPAN, to = from + SPAN < a->count ? from + SPAN : a->count;
    float *restrict param = a->param, *restrict m = a->m, *restrict v = a->v;
    const float *restrict grad = a->grad;
    const double beta1 = a->beta1, beta2 = a->beta2, eps = a->eps, lr = a->lr;
    const double decay = a->weight_decay, scale = a->grad_scale;
    const double m_unbias = 1 / (1 - pow(beta1, (double)a->step));
    const double v_unbias = 1 / (1 - pow(beta2, (double)a->step));
    for (int64_t i = from; i < to; i++) {
        double g = grad[i] * scale;
        double first = beta1 * m[i] + (1 - beta1) * g;
        double second = beta2 * v[i] + (1 - beta2) * g * g;
        double step = first * m_unbias / (sqrt(second * v_unbias) + eps);
        m[i] = (float)first;
        v[i] = (float)second;
        param[i] = (float)(param[i] - lr * (step + decay * param[i]));
    }
}

int cpu_adamw(struct device *d, const struct adamw_args *a, struct error *err)
{
    pool_run(cpu_state(d)->pool, (a->count + SPAN - 1) / SPAN, adamw_task, (void *)a);
    return 0;
}

static void adamw8_task(void *context, int64_t task, int worker)
{
    const struct adamw8_run *run = context;
    int64_t blocks = (run->a->base.count + ADAMW8_BLOCK - 1) / ADAMW8_BLOCK;
    int64_t from = task * (SPAN / ADAMW8_BLOCK), to = from + SPAN / ADAMW8_BLOCK;
    for (int64_t block = from; block < to && block < blocks; block++) adamw8_block(run, block);
}

int cpu_adamw8(struct device *d, const struct adamw8_args *a, struct error *err)
{
    struct adamw8_run run;
    adamw8_start(&run, a);
    pool_run(cpu_state(d)->pool, (a->base.count + SPAN - 1) / SPAN, adamw8_task, &run);
    return 0;
}

static void norm_task(void *context, int64_t task, int worker)
{
    const struct total *s = context;
    const struct norm_args *a = s->norm;
    int64_t from = task * SPAN, to = from + SPAN < a->count ? from + SPAN : a->count;
    double sum = 0;
    if (a->dtype == DTYPE_F32) {
        const float *x = a->x;
        double part[8] = {0};
        int64_t i = from;
        for (; i + 8 <= to; i += 8)
            for (int j = 0; j < 8; j++) part[j] += (double)x[i + j] * x[i + j];
        for (; i < to; i++) sum += (double)x[i] * x[i];
        for (int j = 0; j < 8; j++) sum += part[j];
    } else {
        for (int64_t i = from; i < to; i++) {
            double x = dtype_get(a->x, a->dtype, i);
            sum += x * x;
        }
    }
    s->partial[task] = sum;
}

int cpu_norm(struct device *d, const struct norm_args *a, struct error *err)
{
    struct total s = {.norm = a};
    int rc = total_start(&s, d, a->count, err);
    if (rc) return rc;
    pool_run(cpu_state(d)->pool, (a->count + SPAN - 1) / SPAN, norm_task, &s);
    *a->sum_of_squares = spans_total(s.partial, a->count);
    return 0;
}
