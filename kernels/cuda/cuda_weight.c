/* Weights on the device. A mapped weight lands raw beside the work (cuda_send.c) and is packed by a kernel; a
 * trained one is on the device already and is packed again when its version moves on. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pointwise.h"
#include "kernels/weight_pool.h"

/* One allocation that several weights lie in, one after the other. */
struct cuda_joint {
    void *memory;
    struct weight_pool *pool; /* that memory is of; NULL: its own */
    int users;
};

static int64_t count_of(const struct kernel_weight *w)
{
    int64_t count = 1;
    for (int i = 0; i < w->rank; i++) count *= w->dim[i];
    return count;
}

/* Memory for a packed form, out of the model's pool where there is one. *fresh: nothing can be using it. */
static int take_memory(struct device *d, const struct kernel_weight *w, void **memory, bool *fresh,
                       size_t bytes, struct error *err)
{
    *fresh = true;
    if (w->pool) return weight_pool_take(w->pool, memory, fresh, bytes, err);
    return d->kernels->alloc(d, memory, bytes, err);
}

static void give_memory(struct device *d, const struct kernel_weight *w, void *memory)
{
    if (w->pool)
        weight_pool_give(w->pool, memory);
    else
        d->kernels->free(d, memory);
}

static void release_data(struct device *d, const struct kernel_weight *w, struct cuda_weight *p)
{
    if (!p->joint) {
        give_memory(d, w, p->data);
    } else if (--p->joint->users == 0) {
        if (p->joint->pool)
            weight_pool_give(p->joint->pool, p->joint->memory);
        else
            d->kernels->free(d, p->joint->memory);
        free(p->joint);
    }
    p->data = NULL;
    p->joint = NULL;
}

/* The same elements in a type that the kernels read, F32, or NULL where they are in one. */
static int readable(const struct kernel_weight *w, void **converted, struct error *err)
{
    int64_t count = count_of(w);
    *converted = NULL;
    if (cuda_dtype_ok(w->dtype)) return 0;
    *converted = alloc_try((size_t)count, sizeof(float));
    if (!*converted)
        return error_set(err, ERR_NO_MEMORY, "weight: no memory for %lld elements",
                         (long long)count);
    dtype_convert(*converted, DTYPE_F32, w->data, w->dtype, count);
    return 0;
}

/* Rows [first, first + p->out) of a weight that is packed row by row, or all of it. */
static int pack_rows(struct device *d, struct pointwise_pack *p, const char *raw, bool on_device,
                     struct error *err)
{
    size_t bytes = (size_t)(p->out * p->c * p->taps) * dtype_bytes(p->from_dtype);
    int rc = 0;
    p->from = raw;
    if (!on_device) rc = cuda_land(d, &p->from, raw, bytes, err);
    if (rc) return rc;
    rc = runtime_check(pointwise_pack(p, cuda_state(d)->runtime.stream), "weight packing", err);
    return rc || on_device ? rc : cuda_landed(d, err);
}

static int pack_into(struct device *d, const struct kernel_weight *w, void *to, enum dtype dtype,
                     bool phases, bool geglu, struct error *err)
{
    struct pointwise_pack p = {
        .to_dtype = dtype, .from_dtype = w->dtype, .phases = phases, .geglu = geglu};
    void *converted = NULL;
    p.c = w->rank == 4 ? w->dim[1] : count_of(w) / w->dim[0];
    p.taps = w->rank == 4 ? (int)(w->dim[2] * w->dim[3]) : 1;
    if (w->changes && !cuda_dtype_ok(w->dtype)) return cuda_dtype_refuse("weight", w->dtype, err);
    int rc = readable(w, &converted, err);
    if (rc) return rc;
    if (converted) p.from_dtype = DTYPE_F32;
    const char *raw = converted ? converted : w->data;
    size_t row = (size_t)(p.c * p.taps) * dtype_bytes(p.from_dtype);
    int64_t rows = w->dim[0];
    /* pieces, so that a landing place need not hold the largest weight; not where rows are mixed */
    int64_t most = w->changes || phases || geglu ? rows : (int64_t)(LANDING_BYTES / row);
    if (most < 1) most = 1;
    for (int64_t at = 0; at < rows && !rc; at += most) {
        p.out = rows - at < most ? rows - at : most;
        p.to = (char *)to + (size_t)(at * p.c * p.taps) * dtype_bytes(dtype);
        rc = pack_rows(d, &p, raw + (size_t)at * row, w->changes, err);
    }
    free(converted);
    return rc;
}

static int vector_pack(struct device *d, struct kernel_weight *w, struct error *err)
{
    if (w->changes || w->packed) return 0; /* on the device, or there already */
    if (!cuda_dtype_ok(w->dtype)) return cuda_dtype_refuse("vector", w->dtype, err);
    if (cuda_state(d)->recording) return cuda_refuse_recording(d, "a weight", err);
    size_t bytes = (size_t)count_of(w) * dtype_bytes(w->dtype);
    void *to;
    bool fresh;
    int rc = take_memory(d, w, &to, &fresh, bytes, err);
    if (rc) return rc;
    if (fresh) {
        rc = cuda_send(d, to, w->data, bytes, err);
        if (!rc) rc = cuda_sent(d, err);
    } else {
        rc = cuda_upload(d, to, w->data, bytes, err);
    }
    if (rc) {
        give_memory(d, w, to);
        return rc;
    }
    w->packed = to;
    return 0;
}

static bool is_current(const struct kernel_weight *w, const struct cuda_weight *p, enum dtype dtype,
                       bool geglu)
{
    return p && p->dtype == dtype && p->geglu == geglu &&
           (!w->changes || w->packed_version == w->version);
}

static int matrix_pack(struct device *d, struct kernel_weight *w, enum dtype dtype, bool geglu,
                       struct error *err)
{
    if (!cuda_dtype_ok(dtype)) return cuda_dtype_refuse("weight", dtype, err);
    struct cuda_weight *p = w->packed;
    /* what training changes is packed anew, which a recording would miss */
    if (w->changes && cuda_state(d)->recording)
        return cuda_refuse_recording(d, "a weight in training", err);
    if (is_current(w, p, dtype, geglu)) return 0;
    if (cuda_state(d)->recording) return cuda_refuse_recording(d, "a weight", err);
    if (p && p->dtype != dtype) {
        cuda_unpack(d, w);
        p = NULL;
    }
    if (!p) {
        void *memory;
        bool fresh; /* or not: it is written in the stream of work */
        int rc = take_memory(d, w, &memory, &fresh, (size_t)count_of(w) * dtype_bytes(dtype), err);
        if (rc) return rc;
        p = alloc_zero(1, sizeof *p);
        p->data = memory;
        p->dtype = dtype;
        w->packed = p;
        w->packed_version = w->version - 1; /* not current yet */
    }
    int rc = pack_into(d, w, p->data, dtype, false, geglu, err);
    if (rc) {
        cuda_unpack(d, w);
        return rc;
    }
    if (p->phases) {
        give_memory(d, w, p->phases);
        p->phases = NULL;
    }
    p->geglu = geglu;
    w->packed_version = w->version;
    return 0;
}

/* A weight packed for the GEGLU epilogue stays so while it is asked for in that form; `pack` itself
 * does not undo it. */
int cuda_pack(struct device *d, struct kernel_weight *w, enum dtype dtype, struct error *err)
{
    if (w->rank < 2) return vector_pack(d, w, err);
    struct cuda_weight *p = w->packed;
    return matrix_pack(d, w, dtype, p ? p->geglu : w->gated, err);
}

void cuda_unpack(struct device *d, struct kernel_weight *w)
{
    if (!w->packed) return;
    if (w->rank < 2) {
        give_memory(d, w, w->packed);
    } else {
        struct cuda_weight *p = w->packed;
        release_data(d, w, p);
        if (p->phases) give_memory(d, w, p->phases);
        free(p);
    }
    w->packed = NULL;
}

int cuda_weight_get(struct device *d, struct kernel_weight *w, enum dtype dtype,
                    struct cuda_weight **packed, struct error *err)
{
    int rc = matrix_pack(d, w, dtype, false, err);
    if (!rc) *packed = w->packed;
    return rc;
}

int cuda_weight_get_geglu(struct device *d, struct kernel_weight *w, enum dtype dtype,
                          struct cuda_weight **packed, struct error *err)
{
    int rc = matrix_pack(d, w, dtype, true, err);
    if (!rc) *packed = w->packed;
    return rc;
}

/* One after the other in one allocation, a joint's or a pool's (where they come in this order). */
static bool is_joined(struct kernel_weight *const *w, int count)
{
    const struct cuda_weight *first = w[0]->packed;
    size_t bytes = (size_t)count_of(w[0]) * dtype_bytes(first->dtype);
    for (int i = 0; i < count; i++) {
        const struct cuda_weight *p = w[i]->packed;
        bool same = first->joint ? p->joint == first->joint
                                 : !p->joint && w[0]->pool && w[i]->pool == w[0]->pool;
        if (!same || p->data != (char *)first->data + i * bytes) return false;
    }
    return true;
}

int cuda_weight_join(struct device *d, struct kernel_weight *const *w, int count, enum dtype dtype,
                     struct cuda_weight **packed, struct error *err)
{
    struct runtime *r = &cuda_state(d)->runtime;
    size_t bytes = (size_t)count_of(w[0]) * dtype_bytes(dtype);
    void *memory;
    for (int i = 0; i < count; i++) {
        int rc = matrix_pack(d, w[i], dtype, false, err);
        if (rc) return rc;
    }
    *packed = w[0]->packed;
    if (count == 1 || is_joined(w, count)) return 0;
    bool fresh;
    int rc = take_memory(d, w[0], &memory, &fresh, bytes * (size_t)count, err);
    if (rc) return rc;
    for (int i = 0; i < count; i++) {
        const struct cuda_weight *p = w[i]->packed;
        int code = runtime_copy(r, (char *)memory + i * bytes, p->data, bytes);
        if (!code) continue;
        give_memory(d, w[0], memory);
        return runtime_check(code, "joining weights", err);
    }
    struct cuda_joint *joint = alloc_zero(1, sizeof *joint);
    *joint = (struct cuda_joint){memory, w[0]->pool, count};
    for (int i = 0; i < count; i++) {
        struct cuda_weight *p = w[i]->packed;
        release_data(d, w[i], p); /* waits for the copies, or is used again behind them */
        p->data = (char *)memory + i * bytes;
        p->joint = joint;
    }
    return 0;
}

int cuda_weight_phases(struct device *d, struct kernel_weight *w, struct cuda_weight *packed,
                       struct error *err)
{
    if (packed->phases) return 0;
    void *memory;
    size_t bytes = (size_t)(w->dim[0] * w->dim[1] * 16) * dtype_bytes(packed->dtype);
    bool fresh;
    if (cuda_state(d)->recording) return cuda_refuse_recording(d, "a weight", err);
    int rc = take_memory(d, w, &memory, &fresh, bytes, err);
    if (rc) return rc;
    rc = pack_into(d, w, memory, packed->dtype, true, false, err);
    if (rc)
        give_memory(d, w, memory);
    else
        packed->phases = memory;
    return rc;
}
