/* Kernels that move: copy, transpose, enlarge, look up; and the sums that undo them. */
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_vec.h"

#define SPAN 16384 /* elements of one task */

static int64_t rows_per_task(int64_t cols)
{
    return cols < SPAN && cols > 0 ? SPAN / cols : 1;
}

static void run_rows(struct device *d, int64_t rows, int64_t cols, pool_task task, const void *a)
{
    int64_t block = rows_per_task(cols);
    pool_run(cpu_state(d)->pool, (rows + block - 1) / block, task, (void *)a);
}

/* y (+)= x over n elements of two storage types */
ALWAYS_INLINE void move(void *y, const void *x, int64_t n, bool accumulate, const enum dtype yt,
                        const enum dtype xt)
{
    FOR_VECTORS(
        i, n,
        {
            vf v = vf_load(x, i, xt);
            if (accumulate) v += vf_load(y, i, yt);
            vf_store(y, i, yt, v);
        },
        {
            vf v = vf_load_n(x, i, xt, lanes);
            if (accumulate) v += vf_load_n(y, i, yt, lanes);
            vf_store_n(y, i, yt, v, lanes);
        });
}

static bool is_vector(enum dtype t)
{
    return t == DTYPE_F32 || t == DTYPE_BF16;
}

static void move_any(void *y, enum dtype yt, const void *x, enum dtype xt, int64_t n,
                     bool accumulate)
{
    if (yt == xt && !accumulate)
        memcpy(y, x, (size_t)n * dtype_bytes(yt));
    else if (!is_vector(yt) || !is_vector(xt))
        for (int64_t i = 0; i < n; i++)
            dtype_set(y, yt, i, dtype_get(x, xt, i) + (accumulate ? dtype_get(y, yt, i) : 0));
    else if (yt == DTYPE_F32 && xt == DTYPE_F32)
        move(y, x, n, accumulate, DTYPE_F32, DTYPE_F32);
    else if (yt == DTYPE_F32)
        move(y, x, n, accumulate, DTYPE_F32, DTYPE_BF16);
    else if (xt == DTYPE_F32)
        move(y, x, n, accumulate, DTYPE_BF16, DTYPE_F32);
    else
        move(y, x, n, accumulate, DTYPE_BF16, DTYPE_BF16);
}

static void copy_task(void *context, int64_t task, int worker)
{
    const struct copy_args *a = context;
    int64_t block = rows_per_task(a->cols);
    for (int64_t r = task * block; r < (task + 1) * block && r < a->rows; r++)
        move_any((char *)a->y + (size_t)(r * a->ldy) * dtype_bytes(a->y_dtype), a->y_dtype,
                 (const char *)a->x + (size_t)(r * a->ldx) * dtype_bytes(a->x_dtype), a->x_dtype,
                 a->cols, a->accumulate);
}

int cpu_copy(struct device *d, const struct copy_args *a, struct error *err)
{
    struct copy_args spans = *a;
    if (a->rows > 1 && a->ldx == a->cols && a->ldy == a->cols) {
        spans.cols = a->rows * a->cols;
        spans.rows = 1;
    }
    if (spans.rows == 1 && spans.cols > 2 * SPAN) { /* one long row: cut it */
        int64_t whole = spans.cols / SPAN, rest = spans.cols % SPAN;
        struct copy_args tail = spans;
        tail.y = (char *)a->y + (size_t)(whole * SPAN) * dtype_bytes(a->y_dtype);
        tail.x = (const char *)a->x + (size_t)(whole * SPAN) * dtype_bytes(a->x_dtype);
        tail.cols = rest;
        if (rest) copy_task(&tail, 0, 0);
        spans.rows = whole;
        spans.cols = spans.ldx = spans.ldy = SPAN;
    }
    run_rows(d, spans.rows, spans.cols, copy_task, &spans);
    return 0;
}

#define TILE 32

static void transpose_task(void *context, int64_t task, int worker)
{
    const struct transpose_args *t = context;
    int64_t tiles = (t->a + TILE - 1) / TILE, n = task / tiles, a0 = task % tiles * TILE;
    int64_t a1 = a0 + TILE < t->a ? a0 + TILE : t->a;
    size_t size = dtype_bytes(t->dtype);
    const char *x = (const char *)t->x + (size_t)(n * t->a * t->b) * size;
    char *y = (char *)t->y + (size_t)(n * t->a * t->b) * size;
    for (int64_t b0 = 0; b0 < t->b; b0 += TILE) {
        int64_t b1 = b0 + TILE < t->b ? b0 + TILE : t->b;
        for (int64_t b = b0; b < b1; b++)
            for (int64_t a = a0; a < a1; a++) {
                if (size == 4)
                    ((uint32_t *)y)[b * t->a + a] = ((const uint32_t *)x)[a * t->b + b];
                else if (size == 2)
                    ((uint16_t *)y)[b * t->a + a] = ((const uint16_t *)x)[a * t->b + b];
                else
                    memcpy(y + (size_t)(b * t->a + a) * size, x + (size_t)(a * t->b + b) * size,
                           size);
            }
    }
}

int cpu_transpose(struct device *d, const struct transpose_args *a, struct error *err)
{
    pool_run(cpu_state(d)->pool, a->n * ((a->a + TILE - 1) / TILE), transpose_task, (void *)a);
    return 0;
}

/* source pixel of an enlarged one: floor(i h / oh), as torch's 'nearest' */
static void upsample_task(void *context, int64_t line, int worker)
{
    const struct upsample_args *a = context;
    size_t pixel = (size_t)a->c * dtype_bytes(a->dtype);
    int64_t n = line / a->oh, y = line % a->oh * a->h / a->oh;
    const char *from = (const char *)a->x + (size_t)((n * a->h + y) * a->w) * pixel;
    char *to = (char *)a->y + (size_t)(line * a->ow) * pixel;
    for (int64_t x = 0; x < a->ow; x++)
        memcpy(to + (size_t)x * pixel, from + (size_t)(x * a->w / a->ow) * pixel, pixel);
}

int cpu_upsample(struct device *d, const struct upsample_args *a, struct error *err)
{
    pool_run(cpu_state(d)->pool, a->n * a->oh, upsample_task, (void *)a);
    return 0;
}

/* first enlarged line that shows source line y */
static int64_t first_line(int64_t y, int64_t h, int64_t oh)
{
    return (y * oh + h - 1) / h;
}

ALWAYS_INLINE void gather_pixel(const struct upsample_args *a, int64_t n, int64_t y, int64_t x,
                                const enum dtype t)
{
    int64_t y0 = first_line(y, a->h, a->oh), y1 = first_line(y + 1, a->h, a->oh);
    int64_t x0 = first_line(x, a->w, a->ow), x1 = first_line(x + 1, a->w, a->ow);
    for (int64_t c = 0; c < a->c; c += VL) {
        int lanes = a->c - c < VL ? (int)(a->c - c) : VL;
        int64_t to = ((n * a->h + y) * a->w + x) * a->c + c;
        vf sum = {0};
        if (a->accumulate) sum = vf_load_n(a->dx, to, t, lanes);
        for (int64_t oy = y0; oy < y1; oy++)
            for (int64_t ox = x0; ox < x1; ox++)
                sum += vf_load_n(a->dy, ((n * a->oh + oy) * a->ow + ox) * a->c + c, t, lanes);
        vf_store_n(a->dx, to, t, sum, lanes);
    }
}

static void upsample_grad_task(void *context, int64_t line, int worker)
{
    const struct upsample_args *a = context;
    for (int64_t x = 0; x < a->w; x++)
        CPU_BY_DTYPE(a->dtype, gather_pixel, a, line / a->h, line % a->h, x);
}

int cpu_upsample_grad(struct device *d, const struct upsample_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "upsample_grad");
    pool_run(cpu_state(d)->pool, a->n * a->h, upsample_grad_task, (void *)a);
    return 0;
}

static void embedding_task(void *context, int64_t i, int worker)
{
    const struct embedding_args *a = context;
    dtype_convert((char *)a->y + (size_t)(i * a->d) * dtype_bytes(a->dtype), a->dtype,
                  (const char *)a->table->data +
                      (size_t)(a->id[i] * a->d) * dtype_bytes(a->table->dtype),
                  a->table->dtype, a->d);
}

int cpu_embedding(struct device *d, const struct embedding_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "embedding");
    pool_run(cpu_state(d)->pool, a->count, embedding_task, (void *)a);
    return 0;
}

/* Tokens repeat, so rows are added one after the other. */
int cpu_embedding_grad(struct device *d, const struct embedding_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "embedding_grad");
    for (int64_t i = 0; i < a->count; i++)
        move_any((float *)a->dtable + a->id[i] * a->d, DTYPE_F32,
                 (const char *)a->dy + (size_t)(i * a->d) * dtype_bytes(a->dtype), a->dtype, a->d,
                 true);
    return 0;
}
