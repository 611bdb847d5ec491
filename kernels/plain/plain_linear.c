#include "kernels/plain/plain.h"

#include <string.h>

void plain_matmul(real *restrict y, const real *restrict a, const real *restrict b, int64_t m,
                  int64_t n, int64_t k)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < k; j++) {
            real factor = a[i * k + j];
            for (int64_t l = 0; l < n; l++) y[i * n + l] += factor * b[j * n + l];
        }
    }
}

static void transpose(real *to, const real *from, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) to[c * rows + r] = from[r * cols + c];
    }
}

int plain_epilogue(real *y, int64_t rows, int64_t out, const struct epilogue_args *e,
                   enum dtype dtype, int64_t ldadd, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t images =
        e->row && e->rows_per_image ? (rows + e->rows_per_image - 1) / e->rows_per_image : 0;
    const real *bias = plain_read(&s, e->bias, e->bias_dtype, out);
    const real *row = plain_read(&s, images ? e->row : NULL, dtype, images * out);
    const real *add = plain_read_rows(&s, e->add, dtype, rows, out, ldadd);
    for (int64_t r = 0; !s.failed && r < rows; r++) {
        const real *image = row ? row + r / e->rows_per_image * out : NULL;
        for (int64_t o = 0; o < out; o++) {
            real z = y[r * out + o];
            if (bias) z += bias[o];
            if (image) z += image[o];
            z = plain_act(e->act, z);
            if (add) z += add[r * out + o];
            y[r * out + o] = z;
        }
    }
    return plain_end(&s, "epilogue", err);
}

/* The result is gathered in a buffer of its own, because `add` may be y's memory. */
int plain_linear(struct device *d, const struct linear_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read_rows(&s, a->x, a->dtype, a->m, a->k, a->ldx);
    const real *w = plain_read(&s, a->w->data, a->w->dtype, a->out * a->k);
    real *wt = plain_room(&s, a->out * a->k);
    real *z = plain_room(&s, a->m * a->out);
    int rc = 0;
    if (!s.failed) {
        transpose(wt, w, a->out, a->k); /* [k,out] */
        plain_matmul(z, x, wt, a->m, a->out, a->k);
        rc = plain_epilogue(z, a->m, a->out, &a->epilogue, a->dtype, a->ldy, err);
    }
    real *y = plain_write_rows(&s, a->y, a->dtype, a->m, a->out, a->ldy, false);
    if (!s.failed && !rc) memcpy(y, z, (size_t)(a->m * a->out) * sizeof(real));
    int end = plain_end(&s, "linear", err);
    return rc ? rc : end;
}

int plain_linear_geglu(struct device *d, const struct linear_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t half = a->out / 2;
    real *z = plain_room(&s, a->m * a->out);
    int rc = 0;
    if (!s.failed) {
        const real *x = plain_read_rows(&s, a->x, a->dtype, a->m, a->k, a->ldx);
        const real *w = plain_read(&s, a->w->data, a->w->dtype, a->out * a->k);
        real *wt = plain_room(&s, a->out * a->k);
        if (!s.failed) {
            transpose(wt, w, a->out, a->k);
            plain_matmul(z, x, wt, a->m, a->out, a->k);
            rc = plain_epilogue(z, a->m, a->out, &a->epilogue, a->dtype, a->out, err);
        }
    }
    real *y = plain_write_rows(&s, a->y, a->dtype, a->m, half, a->ldy, false);
    for (int64_t r = 0; !s.failed && !rc && r < a->m; r++) {
        const real *value = z + r * a->out, *gate = value + half;
        for (int64_t i = 0; i < half; i++)
            y[r * half + i] = value[i] * plain_act(ACT_GELU, gate[i]);
    }
    int end = plain_end(&s, "linear_geglu", err);
    return rc ? rc : end;
}

int plain_linear_join(struct device *d, const struct linear_join_args *a, struct error *err)
{
    for (int i = 0; i < a->count; i++) {
        struct linear_args one = {.y = (char *)a->y + (size_t)(i * a->out) * dtype_bytes(a->dtype),
                                  .x = a->x,
                                  .w = a->w[i],
                                  .m = a->m,
                                  .k = a->k,
                                  .out = a->out,
                                  .ldx = a->ldx,
                                  .ldy = a->ldy,
                                  .dtype = a->dtype};
        int rc = plain_linear(d, &one, err);
        if (rc) return rc;
    }
    return 0;
}

int plain_linear_dx(struct device *d, const struct linear_dx_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *dy = plain_read_rows(&s, a->dy, a->dtype, a->m, a->out, a->ldy);
    const real *w = plain_read(&s, a->w->data, a->w->dtype, a->out * a->k);
    real *dx = plain_write_rows(&s, a->dx, a->dtype, a->m, a->k, a->ldx, a->accumulate);
    real *sum = plain_room(&s, a->m * a->k);
    if (!s.failed) {
        plain_matmul(sum, dy, w, a->m, a->k, a->out);
        for (int64_t i = 0; i < a->m * a->k; i++) dx[i] = a->accumulate ? dx[i] + sum[i] : sum[i];
    }
    return plain_end(&s, "linear_dx", err);
}

int plain_linear_dw(struct device *d, const struct linear_dw_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *dy = plain_read_rows(&s, a->dy, a->dtype, a->m, a->out, a->ldy);
    const real *x = plain_read_rows(&s, a->x, a->dtype, a->m, a->k, a->ldx);
    real *dw = a->dw;
    for (int64_t m = 0; !s.failed && m < a->m; m++) {
        for (int64_t o = 0; o < a->out; o++) {
            real slope = dy[m * a->out + o];
            for (int64_t k = 0; k < a->k; k++) dw[o * a->k + k] += slope * x[m * a->k + k];
        }
    }
    return plain_end(&s, "linear_dw", err);
}
