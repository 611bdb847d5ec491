#include "kernels/plain/plain.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"

static int plain_alloc(struct device *d, void **memory, size_t bytes, struct error *err)
{
    void *block = alloc_try_aligned(64, bytes ? (bytes + 63) / 64 * 64 : 64);
    if (!block) return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    *memory = block;
    return 0;
}

static void plain_free(struct device *d, void *memory)
{
    free(memory);
}

static int plain_move(struct device *d, void *to, const void *from, size_t bytes, struct error *err)
{
    if (bytes) memcpy(to, from, bytes);
    return 0;
}

static int plain_zero(struct device *d, void *memory, size_t bytes, struct error *err)
{
    if (bytes) memset(memory, 0, bytes);
    return 0;
}

static int plain_finish(struct device *d, struct error *err)
{
    return 0;
}

static int plain_pack(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                      struct error *err)
{
    return 0;
}

static void plain_unpack(struct device *d, struct kernel_weight *w)
{
}

const struct kernels plain_kernels = {.name = "plain",
                                      .alloc = plain_alloc,
                                      .free = plain_free,
                                      .upload = plain_move,
                                      .download = plain_move,
                                      .zero = plain_zero,
                                      .finish = plain_finish,
                                      .pack = plain_pack,
                                      .unpack = plain_unpack,
#define X(name, args) .name = plain_##name,
                                      KERNEL_TABLE(X) KERNEL_FUSED_TABLE(X)
#undef X
};

static void plain_device_close(struct device *d)
{
    free(d);
}

static int plain_twin(struct device *first, struct device **twin, struct error *err)
{
    return plain_device_open(twin, err);
}

int plain_device_open(struct device **device, struct error *err)
{
    struct device *d = alloc_zero(1, sizeof(*d));
    d->kernels = &plain_kernels;
    str_copy(d->name, sizeof(d->name), "plain");
    str_copy(d->label, sizeof(d->label), "plain loops, one thread");
    d->default_dtype = DTYPE_REAL;
    d->host_memory = true;
    d->close = plain_device_close;
    d->twin = plain_twin;
    *device = d;
    return 0;
}

int64_t plain_weight_count(const struct kernel_weight *w)
{
    int64_t count = 1;
    for (int i = 0; i < w->rank; i++) count *= w->dim[i];
    return count;
}

static real *scratch_take(struct plain_scratch *s, int64_t count)
{
    KILN_ASSERT(s->count < PLAIN_SCRATCH_MAX);
    real *copy = s->failed ? NULL : alloc_try((size_t)(count ? count : 1), sizeof(real));
    if (!copy) s->failed = true;
    s->copies[s->count++] = (struct plain_copy){.copy = copy};
    return copy;
}

real *plain_room(struct plain_scratch *s, int64_t count)
{
    return scratch_take(s, count);
}

static bool usable_in_place(const void *data, enum dtype dtype, int64_t rows, int64_t cols,
                            int64_t ld)
{
    return dtype == DTYPE_REAL && (uintptr_t)data % sizeof(real) == 0 && (rows <= 1 || cols == ld);
}

static void rows_widen(real *to, const void *data, enum dtype dtype, int64_t rows, int64_t cols,
                       int64_t ld)
{
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)data + (size_t)(r * ld) * dtype_bytes(dtype);
        dtype_convert(to + r * cols, DTYPE_REAL, row, dtype, cols);
    }
}

const real *plain_read_rows(struct plain_scratch *s, const void *data, enum dtype dtype,
                            int64_t rows, int64_t cols, int64_t ld)
{
    if (!data) return NULL;
    if (usable_in_place(data, dtype, rows, cols, ld)) return data;
    real *copy = scratch_take(s, rows * cols);
    if (copy) rows_widen(copy, data, dtype, rows, cols, ld);
    return copy;
}

const real *plain_read(struct plain_scratch *s, const void *data, enum dtype dtype, int64_t count)
{
    return plain_read_rows(s, data, dtype, 1, count, count);
}

real *plain_write_rows(struct plain_scratch *s, void *data, enum dtype dtype, int64_t rows,
                       int64_t cols, int64_t ld, bool keep)
{
    if (!data) return NULL;
    if (usable_in_place(data, dtype, rows, cols, ld)) return data;
    real *copy = scratch_take(s, rows * cols);
    if (!copy) return NULL;
    if (keep) rows_widen(copy, data, dtype, rows, cols, ld);
    s->copies[s->count - 1] = (struct plain_copy){copy, data, dtype, rows, cols, ld};
    return copy;
}

real *plain_write(struct plain_scratch *s, void *data, enum dtype dtype, int64_t count, bool keep)
{
    return plain_write_rows(s, data, dtype, 1, count, count, keep);
}

int plain_end(struct plain_scratch *s, const char *kernel, struct error *err)
{
    for (int i = 0; i < s->count; i++) {
        struct plain_copy *c = &s->copies[i];
        for (int64_t r = 0; c->to && !s->failed && r < c->rows; r++) {
            char *row = (char *)c->to + (size_t)(r * c->ld) * dtype_bytes(c->dtype);
            dtype_convert(row, c->dtype, c->copy + r * c->cols, DTYPE_REAL, c->cols);
        }
        free(c->copy);
    }
    if (s->failed) return error_set(err, ERR_NO_MEMORY, "%s: no memory for a widened copy", kernel);
    return 0;
}
