/* Layer norm: a row stays in the first cache for its two passes of statistics and the third of
 * scaling. */
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"

#include <math.h>

#define ROWS 16  /* of one task */
#define PARTS 32 /* of the sums of dgamma and dbeta: fixed, so that the order of additions is */

struct layer_norm {
    const void *x, *dy;
    void *y, *dx;
    int64_t rows, d;
    double eps;
    enum dtype dtype;
    bool accumulate;
    const float *gamma, *beta;
    float *mean, *rstd;
    float *partial; /* [PARTS,2,d] */
};

ALWAYS_INLINE vf some(const void *x, int64_t i, const enum dtype t, int lanes)
{
    return lanes == VL ? vf_load(x, i, t) : vf_load_n(x, i, t, lanes);
}

ALWAYS_INLINE void forward_row(const struct layer_norm *l, int64_t row, const enum dtype t)
{
    int64_t base = row * l->d;
    vf sum[2] = {0}, squares = {0}, rest = {0};
    int odd = 0;
    FOR_VECTORS(i, l->d, (sum[odd] += vf_load(l->x, base + i, t), odd ^= 1),
                sum[odd] += vf_load_n(l->x, base + i, t, lanes));
    float mean = vf_sum(sum[0] + sum[1]) / (float)l->d;
    /* the second pass also sums what the rounded mean left over */
    FOR_VECTORS(
        i, l->d,
        {
            vf off = vf_load(l->x, base + i, t) - mean;
            squares += off * off;
            rest += off;
        },
        {
            vf off = vf_load_n(l->x, base + i, t, lanes) - mean;
            for (int j = lanes; j < VL; j++) off[j] = 0;
            squares += off * off;
            rest += off;
        });
    double left = (double)vf_sum(rest) / (double)l->d;
    double variance = (double)vf_sum(squares) / (double)l->d - left * left;
    float rstd = (float)(1 / sqrt((variance > 0 ? variance : 0) + l->eps));
    mean = (float)(mean + left);
    if (l->mean) l->mean[row] = mean;
    if (l->rstd) l->rstd[row] = rstd;
    for (int64_t i = 0; i < l->d; i += VL) {
        int lanes = l->d - i < VL ? (int)(l->d - i) : VL;
        vf z = (some(l->x, base + i, t, lanes) - mean) * rstd;
        z = z * some(l->gamma, i, DTYPE_F32, lanes) + some(l->beta, i, DTYPE_F32, lanes);
        vf_store_n(l->y, base + i, t, z, lanes);
    }
}

ALWAYS_INLINE void forward_rows(const struct layer_norm *l, int64_t task, const enum dtype t)
{
    for (int64_t r = task * ROWS; r < (task + 1) * ROWS && r < l->rows; r++) forward_row(l, r, t);
}

static void forward_task(void *context, int64_t task, int worker)
{
    const struct layer_norm *l = context;
    CPU_BY_DTYPE(l->dtype, forward_rows, l, task);
}

static int layer_norm_start(struct layer_norm *l, struct device *d, const struct layer_norm_args *a,
                            struct error *err)
{
    *l = (struct layer_norm){.x = a->x,
                             .y = a->y,
                             .rows = a->rows,
                             .d = a->d,
                             .eps = a->eps,
                             .dtype = a->dtype,
                             .mean = a->mean,
                             .rstd = a->rstd};
    size_t vector = (size_t)a->d * 4;
    int rc = cpu_scratch_start(d, vector * (2 + 2 * PARTS) + 512, err);
    if (rc) return rc;
    float *gamma = cpu_scratch_take(d, vector), *beta = cpu_scratch_take(d, vector);
    if (a->gamma) dtype_convert(gamma, DTYPE_F32, a->gamma, a->weight_dtype, a->d);
    if (a->beta) dtype_convert(beta, DTYPE_F32, a->beta, a->weight_dtype, a->d);
    for (int64_t i = 0; i < a->d; i++) {
        if (!a->gamma) gamma[i] = 1;
        if (!a->beta) beta[i] = 0;
    }
    l->gamma = gamma;
    l->beta = beta;
    l->partial = cpu_scratch_take(d, vector * 2 * PARTS);
    return 0;
}

int cpu_layer_norm(struct device *d, const struct layer_norm_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "layer_norm");
    struct layer_norm l;
    int rc = layer_norm_start(&l, d, a, err);
    if (rc) return rc;
    pool_run(cpu_state(d)->pool, (a->rows + ROWS - 1) / ROWS, forward_task, &l);
    return 0;
}

ALWAYS_INLINE void backward_row(const struct layer_norm *l, int64_t row, float *dgamma,
                                float *dbeta, const enum dtype t)
{
    int64_t base = row * l->d;
    float mean = l->mean[row], rstd = l->rstd[row];
    vf u_sum = {0}, ux_sum = {0};
    for (int64_t i = 0; i < l->d; i += VL) {
        int lanes = l->d - i < VL ? (int)(l->d - i) : VL;
        vf dy = some(l->dy, base + i, t, lanes);
        vf xhat = (some(l->x, base + i, t, lanes) - mean) * rstd;
        vf u = dy * some(l->gamma, i, DTYPE_F32, lanes); /* zero past the end: dy is */
        u_sum += u;
        ux_sum += u * xhat;
        vf_store_n(dgamma, i, DTYPE_F32, some(dgamma, i, DTYPE_F32, lanes) + dy * xhat, lanes);
        vf_store_n(dbeta, i, DTYPE_F32, some(dbeta, i, DTYPE_F32, lanes) + dy, lanes);
    }
    float mean_u = vf_sum(u_sum) / (float)l->d, mean_ux = vf_sum(ux_sum) / (float)l->d;
    for (int64_t i = 0; l->dx && i < l->d; i += VL) {
        int lanes = l->d - i < VL ? (int)(l->d - i) : VL;
        vf xhat = (some(l->x, base + i, t, lanes) - mean) * rstd;
        vf u = some(l->dy, base + i, t, lanes) * some(l->gamma, i, DTYPE_F32, lanes);
        vf dx = rstd * (u - mean_u - xhat * mean_ux);
        if (l->accumulate) dx += some(l->dx, base + i, t, lanes);
        vf_store_n(l->dx, base + i, t, dx, lanes);
    }
}

ALWAYS_INLINE void backward_rows(const struct layer_norm *l, int64_t part, const enum dtype t)
{
    float *dgamma = l->partial + part * 2 * l->d, *dbeta = dgamma + l->d;
    memset(dgamma, 0, (size_t)l->d * 8);
    int64_t r1 = (part + 1) * l->rows / PARTS;
    for (int64_t r = part * l->rows / PARTS; r < r1; r++) backward_row(l, r, dgamma, dbeta, t);
}

static void backward_task(void *context, int64_t task, int worker)
{
    const struct layer_norm *l = context;
    CPU_BY_DTYPE(l->dtype, backward_rows, l, task);
}

int cpu_layer_norm_grad(struct device *d, const struct layer_norm_grad_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->forward.dtype, "layer_norm_grad");
    struct layer_norm l;
    int rc = layer_norm_start(&l, d, &a->forward, err);
    if (rc) return rc;
    l.dy = a->dy;
    l.dx = a->dx;
    l.accumulate = a->accumulate;
    pool_run(cpu_state(d)->pool, PARTS, backward_task, &l);
    for (int64_t i = 0; i < l.d && (a->dgamma || a->dbeta); i++) {
        double gamma = 0, beta = 0;
        for (int64_t p = 0; p < PARTS; p++) {
            gamma += l.partial[p * 2 * l.d + i];
            beta += l.partial[p * 2 * l.d + l.d + i];
        }
        if (a->dgamma) ((float *)a->dgamma)[i] += (float)gamma;
        if (a->dbeta) ((float *)a->dbeta)[i] += (float)beta;
    }
    return 0;
}
