/* Group norm in two passes: per-channel sums about a pivot (the first row, which lies within a few
 * deviations of the mean, so that nothing cancels), then y = (x - mean) scale + shift, activated.
 * Partial sums belong to fixed chunks of rows: the result does not depend on the thread count. */
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_group_norm.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"

#include <math.h>

#define CHUNK 64 /* rows of one partial sum */
#define WIDE 4   /* vectors of channels that are summed together */

struct group_norm {
    const void *x, *dy;
    void *y, *dx;
    int64_t n, rows, c, groups, chunks;
    double eps;
    enum activation act;
    enum dtype dtype;
    bool accumulate;
    const float *gamma, *beta;        /* [c] */
    float *partial;                   /* [n,chunks,2,c] */
    float *scale, *shift;             /* [n,c] */
    float *mean, *rstd;               /* [n,groups], the caller's or NULL */
    float *middle, *inverse;          /* [n,c]: mean and rstd of the channel's group */
    float *factor, *mean_u, *mean_ux; /* rstd gamma, rstd mean(u), rstd mean(u xhat) */
    float *channel_sum;               /* [n,2,c] */
};

ALWAYS_INLINE vf some(const void *x, int64_t i, const enum dtype t, int lanes)
{
    return lanes == VL ? vf_load(x, i, t) : vf_load_n(x, i, t, lanes);
}

/* two sums over the rows of a chunk for WIDE vectors of channels at c0 */
ALWAYS_INLINE void moments(const struct group_norm *g, int64_t image, int64_t r0, int64_t r1,
                           int64_t c0, int wide, int lanes, float *sum, float *squares,
                           const enum dtype t)
{
    int64_t base = image * g->rows * g->c + c0;
    vf pivot[WIDE], s[WIDE], q[WIDE];
    for (int v = 0; v < wide; v++) {
        pivot[v] = lanes < VL ? vf_load_n(g->x, base, t, lanes) : vf_load(g->x, base + v * VL, t);
        s[v] = q[v] = (vf){0};
    }
    for (int64_t b = r0; b < r1; b += 8) { /* sums of eight rows, then of those: shorter chains */
        vf sb[WIDE], qb[WIDE];
        for (int v = 0; v < wide; v++) sb[v] = qb[v] = (vf){0};
        for (int64_t r = b; r < b + 8 && r < r1; r++) {
            int64_t i = base + r * g->c;
            for (int v = 0; v < wide; v++) {
                vf x = lanes < VL ? vf_load_n(g->x, i, t, lanes) : vf_load(g->x, i + v * VL, t);
                x -= pivot[v];
                sb[v] += x;
                qb[v] += x * x;
            }
        }
        for (int v = 0; v < wide; v++) {
            s[v] += sb[v];
            q[v] += qb[v];
        }
    }
    for (int v = 0; v < wide; v++) {
        vf_store_n(sum, c0 + v * VL, DTYPE_F32, s[v], lanes);
        vf_store_n(squares, c0 + v * VL, DTYPE_F32, q[v], lanes);
    }
}

/* dz and xhat of one vector */
ALWAYS_INLINE void slopes(const struct group_norm *g, int64_t i, int64_t channel, int lanes, vf *dz,
                          vf *xhat, const enum dtype t)
{
    vf x = lanes < VL ? vf_load_n(g->x, i, t, lanes) : vf_load(g->x, i, t);
    vf dy = lanes < VL ? vf_load_n(g->dy, i, t, lanes) : vf_load(g->dy, i, t);
    vf scale = vf_load_n(g->scale, channel, DTYPE_F32, lanes);
    vf shift = vf_load_n(g->shift, channel, DTYPE_F32, lanes);
    vf middle = vf_load_n(g->middle, channel, DTYPE_F32, lanes);
    *xhat = (x - middle) * vf_load_n(g->inverse, channel, DTYPE_F32, lanes);
    *dz = dy * vf_slope((x - middle) * scale + shift, g->act);
}

ALWAYS_INLINE void sums_of_chunk(const struct group_norm *g, int64_t task, const enum dtype t)
{
    int64_t image = task / g->chunks, r0 = task % g->chunks * CHUNK;
    int64_t r1 = r0 + CHUNK < g->rows ? r0 + CHUNK : g->rows;
    float *sum = g->partial + task * 2 * g->c, *squares = sum + g->c;
    int64_t c = 0;
    for (; c + WIDE * VL <= g->c; c += WIDE * VL)
        moments(g, image, r0, r1, c, WIDE, VL, sum, squares, t);
    for (; c + VL <= g->c; c += VL) moments(g, image, r0, r1, c, 1, VL, sum, squares, t);
    if (c < g->c) moments(g, image, r0, r1, c, 1, (int)(g->c - c), sum, squares, t);
}

static void sums_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    CPU_BY_DTYPE(g->dtype, sums_of_chunk, g, task);
}

/* Chan's formula over the chunks and channels of one group of one image */
static void statistics_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    int64_t image = task / g->groups, group = task % g->groups, width = g->c / g->groups;
    double count = (double)g->rows, total = 0;
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
        double sum = 0;
        for (int64_t k = 0; k < g->chunks; k++)
            sum += g->partial[(image * g->chunks + k) * 2 * g->c + c];
        total += (double)f_load(g->x, image * g->rows * g->c + c, g->dtype) + sum / count;
    }
    double mean = total / (double)width, m2 = 0;
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < g->chunks; k++) {
            const float *part = g->partial + (image * g->chunks + k) * 2 * g->c;
            sum += part[c];
            squares += part[g->c + c];
        }
        double off =
            (double)f_load(g->x, image * g->rows * g->c + c, g->dtype) + sum / count - mean;
        double own = squares - sum * sum / count;
        m2 += (own > 0 ? own : 0) + count * off * off;
    }
    double rstd = 1 / sqrt(m2 / (count * (double)width) + g->eps);
    if (g->mean) g->mean[task] = (float)mean;
    if (g->rstd) g->rstd[task] = (float)rstd;
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
        double scale = rstd * g->gamma[c];
        g->scale[image * g->c + c] = (float)scale;
        g->middle[image * g->c + c] = (float)mean;
        g->shift[image * g->c + c] = (float)(g->beta[c] - (mean - (float)mean) * scale);
    }
}

ALWAYS_INLINE void apply_rows(void *y, const void *x, int64_t rows, int64_t width,
                              const float *scale, const float *shift, const float *middle,
                              const enum activation act, const enum dtype t)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = r * width;
        for (int64_t c = 0; c < width; c += VL) {
            int lanes = width - c < VL ? (int)(width - c) : VL;
            vf z = some(x, i + c, t, lanes);
            z = (z - some(middle, c, DTYPE_F32, lanes)) * some(scale, c, DTYPE_F32, lanes) +
                some(shift, c, DTYPE_F32, lanes);
            z = act == ACT_SILU ? vf_silu(z, t == DTYPE_BF16) : vf_activate(z, act);
            vf_store_n(y, i + c, t, z, lanes);
        }
    }
}

void group_norm_apply(void *y, const void *x, int64_t rows, int64_t c, const float *scale,
                      const float *shift, const float *middle, enum activation act,
                      enum dtype dtype)
{
#define APPLY(act) CPU_BY_DTYPE(dtype, apply_rows, y, x, rows, c, scale, shift, middle, act)
    switch (act) {
    case ACT_NONE: APPLY(ACT_NONE); break;
    case ACT_SILU: APPLY(ACT_SILU); break;
    default: APPLY(act);
    }
#undef APPLY
}

static void apply_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    int64_t image = task / g->chunks, r0 = task % g->chunks * CHUNK;
    int64_t rows = r0 + CHUNK < g->rows ? CHUNK : g->rows - r0;
    int64_t first = (image * g->rows + r0) * g->c, v = image * g->c;
    group_norm_apply(at(g->y, first, g->dtype), at(g->x, first, g->dtype), rows, g->c, g->scale + v,
                     g->shift + v, g->middle + v, g->act, g->dtype);
}

/* gamma and beta as floats, ones and zeros where absent */
static const float *vector_of(struct device *d, const void *from, enum dtype dtype, int64_t count,
                              float absent)
{
    float *to = cpu_scratch_take(d, (size_t)count * 4);
    if (from)
        dtype_convert(to, DTYPE_F32, from, dtype, count);
    else
        for (int64_t i = 0; i < count; i++) to[i] = absent;
    return to;
}

static int group_norm_start(struct group_norm *g, struct device *d, const struct group_norm_args *a,
                            struct error *err)
{
    *g = (struct group_norm){.x = a->x,
                             .y = a->y,
                             .n = a->n,
                             .rows = a->rows,
                             .c = a->c,
                             .groups = a->groups,
                             .eps = a->eps,
                             .act = a->act,
                             .dtype = a->dtype,
                             .mean = a->mean,
                             .rstd = a->rstd};
    g->chunks = (a->rows + CHUNK - 1) / CHUNK;
    size_t image = (size_t)(a->n * a->c) * 4, partial = (size_t)(a->n * g->chunks * 2 * a->c) * 4;
    int rc = cpu_scratch_start(d, (size_t)a->c * 8 + 9 * image + partial + 1024, err);
    if (rc) return rc;
    g->gamma = vector_of(d, a->gamma, a->weight_dtype, a->c, 1);
    g->beta = vector_of(d, a->beta, a->weight_dtype, a->c, 0);
    g->scale = cpu_scratch_take(d, image);
    g->shift = cpu_scratch_take(d, image);
    g->middle = cpu_scratch_take(d, image);
    g->inverse = cpu_scratch_take(d, image);
    g->factor = cpu_scratch_take(d, image);
    g->mean_u = cpu_scratch_take(d, image);
    g->mean_ux = cpu_scratch_take(d, image);
    g->channel_sum = cpu_scratch_take(d, 2 * image);
    g->partial = cpu_scratch_take(d, partial);
    return 0;
}

int cpu_group_norm(struct device *d, const struct group_norm_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "group_norm");
    struct group_norm g;
    int rc = group_norm_start(&g, d, a, err);
    if (rc) return rc;
    struct pool *pool = cpu_state(d)->pool;
    pool_run(pool, a->n * g.chunks, sums_task, &g);
    pool_run(pool, a->n * a->groups, statistics_task, &g);
    pool_run(pool, a->n * g.chunks, apply_task, &g);
    return 0;
}

int group_norm_statistics(struct device *d, const struct group_norm_args *a, float *scale,
                          float *shift, float *middle, struct error *err)
{
    struct group_norm g;
    int rc = group_norm_start(&g, d, a, err);
    if (rc) return rc;
    g.scale = scale;
    g.shift = shift;
    g.middle = middle;
    struct pool *pool = cpu_state(d)->pool;
    pool_run(pool, a->n * g.chunks, sums_task, &g);
    pool_run(pool, a->n * a->groups, statistics_task, &g);
    return 0;
}

/* sums of dz and dz xhat over a chunk's rows, per channel */
ALWAYS_INLINE void slope_sums(const struct group_norm *g, int64_t task, const enum dtype t)
{
    int64_t image = task / g->chunks, r0 = task % g->chunks * CHUNK;
    int64_t r1 = r0 + CHUNK < g->rows ? r0 + CHUNK : g->rows;
    float *sum = g->partial + task * 2 * g->c;
    for (int64_t c = 0; c < g->c; c += VL) {
        int lanes = g->c - c < VL ? (int)(g->c - c) : VL;
        vf a = {0}, b = {0};
        for (int64_t r = r0; r < r1; r++) {
            vf dz, xhat;
            slopes(g, (image * g->rows + r) * g->c + c, image * g->c + c, lanes, &dz, &xhat, t);
            a += dz;
            b += dz * xhat;
        }
        vf_store_n(sum, c, DTYPE_F32, a, lanes);
        vf_store_n(sum + g->c, c, DTYPE_F32, b, lanes);
    }
}

static void slope_sums_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    CPU_BY_DTYPE(g->dtype, slope_sums, g, task);
}

static void slope_means_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    int64_t image = task / g->groups, group = task % g->groups, width = g->c / g->groups;
    double count = (double)(g->rows * width), u = 0, ux = 0;
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
        double a = 0, b = 0;
        for (int64_t k = 0; k < g->chunks; k++) {
            const float *part = g->partial + (image * g->chunks + k) * 2 * g->c;
            a += part[c];
            b += part[g->c + c];
        }
        g->channel_sum[image * 2 * g->c + c] = (float)a;
        g->channel_sum[image * 2 * g->c + g->c + c] = (float)b;
        u += a * g->gamma[c];
        ux += b * g->gamma[c];
    }
    for (int64_t c = group * width; c < (group + 1) * width; c++) {
        double rstd = g->rstd[task];
        g->mean_u[image * g->c + c] = (float)(u / count * rstd);
        g->mean_ux[image * g->c + c] = (float)(ux / count * rstd);
        g->factor[image * g->c + c] = (float)(rstd * g->gamma[c]);
    }
}

ALWAYS_INLINE void slope_rows(const struct group_norm *g, int64_t task, const enum dtype t)
{
    int64_t image = task / g->chunks, r0 = task % g->chunks * CHUNK;
    int64_t r1 = r0 + CHUNK < g->rows ? r0 + CHUNK : g->rows;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = 0; c < g->c; c += VL) {
            int lanes = g->c - c < VL ? (int)(g->c - c) : VL;
            int64_t i = (image * g->rows + r) * g->c + c, channel = image * g->c + c;
            vf dz, xhat;
            slopes(g, i, channel, lanes, &dz, &xhat, t);
            vf dx = vf_load_n(g->factor, channel, DTYPE_F32, lanes) * dz -
                    vf_load_n(g->mean_u, channel, DTYPE_F32, lanes) -
                    xhat * vf_load_n(g->mean_ux, channel, DTYPE_F32, lanes);
            if (g->accumulate) dx += vf_load_n(g->dx, i, t, lanes);
            vf_store_n(g->dx, i, t, dx, lanes);
        }
}

static void slope_rows_task(void *context, int64_t task, int worker)
{
    const struct group_norm *g = context;
    CPU_BY_DTYPE(g->dtype, slope_rows, g, task);
}

int cpu_group_norm_grad(struct device *d, const struct group_norm_grad_args *a, struct error *err)
{
    const struct group_norm_args *f = &a->forward;
    CPU_CHECK_DTYPE(f->dtype, "group_norm_grad");
    struct group_norm g;
    int rc = group_norm_start(&g, d, f, err);
    if (rc) return rc;
    g.dy = a->dy;
    g.dx = a->dx;
    g.accumulate = a->accumulate;
    int64_t width = g.c / g.groups;
    for (int64_t i = 0; i < g.n * g.c; i++) {
        int64_t group = i / g.c * g.groups + i % g.c / width;
        double scale = (double)g.rstd[group] * g.gamma[i % g.c];
        g.scale[i] = (float)scale;
        g.shift[i] = g.beta[i % g.c];
        g.middle[i] = g.mean[group];
        g.inverse[i] = g.rstd[group];
    }
    struct pool *pool = cpu_state(d)->pool;
    pool_run(pool, g.n * g.chunks, slope_sums_task, &g);
    pool_run(pool, g.n * g.groups, slope_means_task, &g);
    for (int64_t c = 0; c < g.c; c++) {
        double gamma = 0, beta = 0;
        for (int64_t i = 0; i < g.n; i++) {
            beta += g.channel_sum[i * 2 * g.c + c];
            gamma += g.channel_sum[i * 2 * g.c + g.c + c];
        }
        if (a->dgamma) ((float *)a->dgamma)[c] += (float)gamma;
        if (a->dbeta) ((float *)a->dbeta)[c] += (float)beta;
    }
    if (g.dx) pool_run(pool, g.n * g.chunks, slope_rows_task, &g);
    return 0;
}
