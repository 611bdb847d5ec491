/* Weights on the device. A mapped weight is uploaded raw into scratch and packed by a kernel; a
 * trained one is on the device already and is packed again when its version moves on. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pointwise.h"

/* One allocation that several weights lie in, one after the other. */
struct cuda_joint {
    void *memory;
    int users;
};

static void release_data(struct device *d, struct cuda_weight *p)
{
    if (!p->joint) {
        d->kernels->free(d, p->data);
    } else if (--p->joint->users == 0) {
        d->kernels->free(d, p->joint->memory);
        free(p->joint);
    }
    p->data = NULL;
    p->joint = NULL;
}

static int64_t count_of(const struct kernel_weight *w)
{
    int64_t count = 1;
    for (int i = 0; i < w->rank; i++) count *= w->dim[i];
    return count;
}

/* The raw elements on the device, F32, F16 or BF16; other types are converted on the way. */
static int raw_on_device(struct device *d, const struct kernel_weight *w, const void **raw,
                         enum dtype *dtype, struct error *err)
{
    int64_t count = count_of(w);
    *dtype = w->dtype;
    if (w->changes) {
        *raw = w->data;
        return cuda_dtype_ok(w->dtype) ? 0 : cuda_dtype_refuse("weight", w->dtype, err);
    }
    const void *from = w->data;
    void *converted = NULL, *to;
    if (!cuda_dtype_ok(w->dtype)) {
        converted = alloc_try((size_t)count, sizeof(float));
        if (!converted)
            return error_set(err, ERR_NO_MEMORY, "weight: no memory for %lld elements",
                             (long long)count);
        dtype_convert(converted, DTYPE_F32, w->data, w->dtype, count);
        from = converted;
        *dtype = DTYPE_F32;
    }
    size_t bytes = (size_t)count * dtype_bytes(*dtype);
    int rc = cuda_scratch(d, &to, bytes, err);
    if (!rc) rc = cuda_upload(d, to, from, bytes, err);
    free(converted);
    if (!rc) *raw = to;
    return rc;
}

static int pack_into(struct device *d, const struct kernel_weight *w, void *to, enum dtype dtype,
                     bool phases, bool geglu, struct error *err)
{
    struct pointwise_pack p = {
        .to = to, .to_dtype = dtype, .out = w->dim[0], .phases = phases, .geglu = geglu};
    p.c = w->rank == 4 ? w->dim[1] : count_of(w) / w->dim[0];
    p.taps = w->rank == 4 ? (int)(w->dim[2] * w->dim[3]) : 1;
    int rc = raw_on_device(d, w, &p.from, &p.from_dtype, err);
    if (rc) return rc;
    return runtime_check(pointwise_pack(&p, cuda_state(d)->runtime.stream), "weight packing", err);
}

static int vector_pack(struct device *d, struct kernel_weight *w, struct error *err)
{
    if (w->changes || w->packed) return 0; /* on the device, or there already */
    if (!cuda_dtype_ok(w->dtype)) return cuda_dtype_refuse("vector", w->dtype, err);
    size_t bytes = (size_t)count_of(w) * dtype_bytes(w->dtype);
    void *to;
    int rc = d->kernels->alloc(d, &to, bytes, err);
    if (rc) return rc;
    rc = cuda_upload(d, to, w->data, bytes, err);
    if (rc) {
        d->kernels->free(d, to);
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
    if (p && p->dtype != dtype) {
        cuda_unpack(d, w);
        p = NULL;
    }
    if (!p) {
        void *memory;
        int rc = d->kernels->alloc(d, &memory, (size_t)count_of(w) * dtype_bytes(dtype), err);
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
        d->kernels->free(d, p->phases);
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
    return matrix_pack(d, w, dtype, p && p->geglu, err);
}

void cuda_unpack(struct device *d, struct kernel_weight *w)
{
    if (!w->packed) return;
    if (w->rank < 2) {
        d->kernels->free(d, w->packed);
    } else {
        struct cuda_weight *p = w->packed;
        release_data(d, p);
        if (p->phases) d->kernels->free(d, p->phases);
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

static bool is_joined(struct kernel_weight *const *w, int count)
{
    const struct cuda_weight *first = w[0]->packed;
    size_t bytes = (size_t)count_of(w[0]) * dtype_bytes(first->dtype);
    for (int i = 0; i < count; i++) {
        const struct cuda_weight *p = w[i]->packed;
        if (!p->joint || p->joint != first->joint || p->data != (char *)first->data + i * bytes)
            return false;
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
    int rc = d->kernels->alloc(d, &memory, bytes * (size_t)count, err);
    if (rc) return rc;
    for (int i = 0; i < count; i++) {
        const struct cuda_weight *p = w[i]->packed;
        int code = runtime_copy(r, (char *)memory + i * bytes, p->data, bytes);
        if (!code) continue;
        d->kernels->free(d, memory);
        return runtime_check(code, "joining weights", err);
    }
    struct cuda_joint *joint = alloc_zero(1, sizeof *joint);
    *joint = (struct cuda_joint){memory, count};
    for (int i = 0; i < count; i++) {
        struct cuda_weight *p = w[i]->packed;
        release_data(d, p); /* waits for the copies */
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
    int rc = d->kernels->alloc(d, &memory, bytes, err);
    if (rc) return rc;
    rc = pack_into(d, w, memory, packed->dtype, true, false, err);
    if (rc)
        d->kernels->free(d, memory);
    else
        packed->phases = memory;
    return rc;
}
