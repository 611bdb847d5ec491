#include "kernels/plain/plain.h"

int plain_add(struct device *d, const struct add_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->a, a->dtype, a->count);
    const real *b = plain_read(&s, a->b, a->dtype, a->b_count);
    real *y = plain_write(&s, a->y, a->dtype, a->count, false);
    real alpha = (real)a->alpha, beta = (real)a->beta;
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        y[i] = b ? alpha * x[i] + beta * b[i % a->b_count] : alpha * x[i];
    }
    return plain_end(&s, "add", err);
}

int plain_mul(struct device *d, const struct mul_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->a, a->dtype, a->count);
    int64_t b_count = a->b_count ? a->b_count : a->count;
    const real *b = plain_read(&s, a->b, a->dtype, b_count);
    real *y = plain_write(&s, a->y, a->dtype, a->count, a->accumulate);
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        real product = x[i] * b[i % b_count];
        y[i] = a->accumulate ? y[i] + product : product;
    }
    return plain_end(&s, "mul", err);
}

int plain_copy(struct device *d, const struct copy_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    if (!a->accumulate) {
        for (int64_t r = 0; r < a->rows; r++) {
            dtype_convert((char *)a->y + (size_t)(r * a->ldy) * dtype_bytes(a->y_dtype), a->y_dtype,
                          (const char *)a->x + (size_t)(r * a->ldx) * dtype_bytes(a->x_dtype),
                          a->x_dtype, a->cols);
        }
        return 0;
    }
    const real *x = plain_read_rows(&s, a->x, a->x_dtype, a->rows, a->cols, a->ldx);
    real *y = plain_write_rows(&s, a->y, a->y_dtype, a->rows, a->cols, a->ldy, true);
    for (int64_t i = 0; !s.failed && i < a->rows * a->cols; i++) y[i] += x[i];
    return plain_end(&s, "copy", err);
}

int plain_transpose(struct device *d, const struct transpose_args *t, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, t->x, t->dtype, t->n * t->a * t->b);
    real *y = plain_write(&s, t->y, t->dtype, t->n * t->a * t->b, false);
    for (int64_t n = 0; !s.failed && n < t->n; n++) {
        for (int64_t i = 0; i < t->a; i++) {
            for (int64_t j = 0; j < t->b; j++) {
                y[(n * t->b + j) * t->a + i] = x[(n * t->a + i) * t->b + j];
            }
        }
    }
    return plain_end(&s, "transpose", err);
}

int plain_column_sum(struct device *d, const struct column_sum_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->groups * a->rows * a->cols);
    real *sum = plain_write(&s, a->sum, a->sum_dtype, a->groups * a->cols, true);
    for (int64_t g = 0; !s.failed && g < a->groups; g++) {
        for (int64_t r = 0; r < a->rows; r++) {
            for (int64_t c = 0; c < a->cols; c++) {
                sum[g * a->cols + c] += x[(g * a->rows + r) * a->cols + c];
            }
        }
    }
    return plain_end(&s, "column_sum", err);
}
