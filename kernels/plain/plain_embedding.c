#include "kernels/plain/plain.h"

int plain_embedding(struct device *d, const struct embedding_args *a, struct error *err)
{
    size_t y_row = (size_t)a->d * dtype_bytes(a->dtype);
    size_t table_row = (size_t)a->d * dtype_bytes(a->table->dtype);
    for (int64_t i = 0; i < a->count; i++) {
        dtype_convert((char *)a->y + (size_t)i * y_row, a->dtype,
                      (const char *)a->table->data + (size_t)a->id[i] * table_row, a->table->dtype,
                      a->d);
    }
    return 0;
}

int plain_embedding_grad(struct device *d, const struct embedding_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *dy = plain_read(&s, a->dy, a->dtype, a->count * a->d);
    real *table = a->dtable;
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        for (int64_t j = 0; j < a->d; j++) table[a->id[i] * a->d + j] += dy[i * a->d + j];
    }
    return plain_end(&s, "embedding_grad", err);
}
