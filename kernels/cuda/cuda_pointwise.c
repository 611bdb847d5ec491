#include "kernels/cuda/pointwise.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"

/* One launch with the arguments as they are. */
#define POINTWISE(name, items)                                                                     \
    int cuda_##name(struct device *d, const struct name##_args *a, struct error *err)              \
    {                                                                                              \
        if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse(#name, a->dtype, err);              \
        if ((items) == 0) return 0;                                                                \
        return runtime_check(pointwise_##name(a, cuda_state(d)->runtime.stream), #name, err);      \
    }
POINTWISE(activation, a->count)
POINTWISE(geglu, a->rows * a->d)
POINTWISE(add, a->count)
POINTWISE(mul, a->count)
POINTWISE(transpose, a->n * a->a * a->b)
POINTWISE(upsample, a->n * a->oh * a->ow * a->c)
POINTWISE(max_pool, a->n * a->oh * a->ow * a->c)
POINTWISE(bilinear, a->n * a->oh * a->ow * a->c)

#define POINTWISE_GRAD(name, items)                                                                \
    int cuda_##name##_grad(struct device *d, const struct name##_args *a, struct error *err)       \
    {                                                                                              \
        if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse(#name "_grad", a->dtype, err);      \
        if ((items) == 0) return 0;                                                                \
        return runtime_check(pointwise_##name##_grad(a, cuda_state(d)->runtime.stream),            \
                             #name "_grad", err);                                                  \
    }
POINTWISE_GRAD(activation, a->count)
POINTWISE_GRAD(geglu, a->rows * a->d)
POINTWISE_GRAD(upsample, a->n * a->h * a->w * a->c)
POINTWISE_GRAD(mse, a->count)

int cuda_copy(struct device *d, const struct copy_args *a, struct error *err)
{
    if (!cuda_dtype_ok(a->x_dtype)) return cuda_dtype_refuse("copy", a->x_dtype, err);
    if (!cuda_dtype_ok(a->y_dtype)) return cuda_dtype_refuse("copy", a->y_dtype, err);
    if (!a->rows || !a->cols) return 0;
    return runtime_check(pointwise_copy(a, cuda_state(d)->runtime.stream), "copy", err);
}

int cuda_column_sum(struct device *d, const struct column_sum_args *a, struct error *err)
{
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("column_sum", a->dtype, err);
    if (a->sum_dtype != DTYPE_F32 && a->sum_dtype != a->dtype)
        return cuda_dtype_refuse("column_sum", a->sum_dtype, err);
    if (a->groups > 65535)
        return error_set(err, ERR_UNSUPPORTED, "column_sum: %lld groups", (long long)a->groups);
    if (!a->groups || !a->cols) return 0;
    return runtime_check(pointwise_column_sum(a, cuda_state(d)->runtime.stream), "column_sum", err);
}

/* The ids go to the device in front of the launch. */
static int ids_upload(struct device *d, const struct embedding_args *a,
                      struct pointwise_embedding *p, struct error *err)
{
    void *id;
    int64_t rows = a->table ? a->table->dim[0] : INT32_MAX;
    for (int64_t i = 0; i < a->count; i++)
        if (a->id[i] < 0 || a->id[i] >= rows)
            return error_set(err, ERR_INVALID, "embedding: id %d, the table has %lld rows",
                             a->id[i], (long long)rows);
    int rc = cuda_scratch(d, &id, (size_t)a->count * sizeof(int32_t), err);
    if (!rc) rc = cuda_upload(d, id, a->id, (size_t)a->count * sizeof(int32_t), err);
    if (rc) return rc;
    *p = (struct pointwise_embedding){.y = a->y,
                                      .id = id,
                                      .dy = a->dy,
                                      .dtable = a->dtable,
                                      .count = a->count,
                                      .d = a->d,
                                      .rows = rows,
                                      .dtype = a->dtype};
    return 0;
}

int cuda_embedding(struct device *d, const struct embedding_args *a, struct error *err)
{
    struct cuda_weight *table;
    struct pointwise_embedding p;
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("embedding", a->dtype, err);
    if (!a->count || !a->d) return 0;
    int rc = cuda_weight_get(d, a->table, a->dtype, &table, err);
    if (!rc) rc = ids_upload(d, a, &p, err);
    if (rc) return rc;
    p.table = table->data;
    return runtime_check(pointwise_embedding(&p, cuda_state(d)->runtime.stream), "embedding", err);
}

int cuda_embedding_grad(struct device *d, const struct embedding_args *a, struct error *err)
{
    struct pointwise_embedding p;
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("embedding_grad", a->dtype, err);
    if (!a->count || !a->d) return 0;
    int rc = ids_upload(d, a, &p, err);
    if (rc) return rc;
    return runtime_check(pointwise_embedding_grad(&p, cuda_state(d)->runtime.stream),
                         "embedding_grad", err);
}

static size_t sums_of(int64_t count)
{
    return (size_t)((count + POINTWISE_SUM_WIDTH - 1) / POINTWISE_SUM_WIDTH);
}

int cuda_mse(struct device *d, const struct mse_args *a, struct error *err)
{
    void *partial;
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("mse", a->dtype, err);
    if (!a->count) return 0;
    int rc = cuda_scratch(d, &partial, sums_of(a->count) * sizeof(double), err);
    if (rc) return rc;
    return runtime_check(pointwise_mse(a, partial, cuda_state(d)->runtime.stream), "mse", err);
}

int cuda_adamw(struct device *d, const struct adamw_args *a, struct error *err)
{
    if (!a->count) return 0;
    return runtime_check(pointwise_adamw(a, cuda_state(d)->runtime.stream), "adamw", err);
}

int cuda_adamw8(struct device *d, const struct adamw8_args *a, struct error *err)
{
    if (!a->base.count) return 0;
    return runtime_check(pointwise_adamw8(a, cuda_state(d)->runtime.stream), "adamw8", err);
}

int cuda_norm(struct device *d, const struct norm_args *a, struct error *err)
{
    void *partial;
    size_t sums = sums_of(a->count);
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("norm", a->dtype, err);
    if (!a->count) {
        *a->sum_of_squares = 0;
        return 0;
    }
    double *host = alloc_try(sums, sizeof(double));
    if (!host) return error_set(err, ERR_NO_MEMORY, "norm: no memory for %zu sums", sums);
    int rc = cuda_scratch(d, &partial, sums * sizeof(double), err);
    if (!rc)
        rc = runtime_check(pointwise_norm(a, partial, cuda_state(d)->runtime.stream), "norm", err);
    if (!rc) rc = d->kernels->download(d, host, partial, sums * sizeof(double), err);
    double sum = 0;
    for (size_t i = 0; !rc && i < sums; i++) sum += host[i];
    if (!rc) *a->sum_of_squares = sum;
    free(host);
    return rc;
}
