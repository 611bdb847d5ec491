#include "tensor/pass.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tensor/pass_memory.h"
#include "tensor/tape.h"
#include "tensor/tape_note.h"

void pass_start(struct pass *p, struct pass_memory *memory, enum dtype dtype, struct tape *tape)
{
    if (tape) tape_clear(tape);
    pass_memory_settle(memory);
    *p = (struct pass){.device = memory->device,
                       .kernels = memory->device->kernels,
                       .memory = memory,
                       .tape = tape,
                       .dtype = dtype,
                       .base_bytes = memory->used_bytes};
    if (tape) tape_attach(tape, p);
}

int pass_finish(struct pass *p, struct error *err)
{
    struct error device_error;
    int rc = p->kernels->finish(p->device, &device_error);
    if (rc) pass_fail(p, rc, "finish", "%s", device_error.text);
    if (!p->tape) pass_memory_pop(p->memory, p->base_bytes);
    if (!p->failed) return 0;
    return error_set(err, p->failed, "%s", p->error.text);
}

void pass_fail(struct pass *p, int code, const char *op, const char *format, ...)
{
    if (p->failed) return;
    va_list args;
    va_start(args, format);
    error_set_va(&p->error, code, format, args);
    va_end(args);
    p->failed = error_wrap(&p->error, code, "%s", op);
}

bool pass_ok(struct pass *p)
{
    if (!p->failed && p->canceled && p->canceled(p->canceled_context)) {
        pass_fail(p, ERR_CANCELED, "pass", "stopped on request");
    }
    return !p->failed;
}

void pass_measure(struct pass *p)
{
    p->used_bytes = p->memory->used_bytes - p->base_bytes;
    size_t now = p->used_bytes + p->memory->block_bytes;
    if (now > p->peak_bytes) p->peak_bytes = now;
}

void *pass_bytes(struct pass *p, size_t bytes)
{
    if (p->failed) return NULL;
    void *memory;
    struct error err;
    int rc = pass_memory_push(p->memory, &memory, bytes, &err);
    if (rc) {
        pass_fail(p, rc, "pass memory", "%s", err.text);
        return NULL;
    }
    pass_measure(p);
    return memory;
}

struct tensor pass_tensor(struct pass *p, enum dtype dtype, int rank, const int64_t *dim)
{
    KILN_ASSERT(rank >= 0 && rank <= TENSOR_RANK_MAX, "rank %d", rank);
    struct tensor t = {.dtype = dtype, .rank = rank};
    size_t bytes = dtype_bytes(dtype);
    bool fits = true;
    for (int i = 0; i < rank; i++) {
        t.dim[i] = dim[i];
        fits = fits && dim[i] > 0 && size_mul(bytes, (size_t)dim[i], &bytes) && bytes <= INT64_MAX;
    }
    if (!fits) {
        char text[64];
        pass_fail(p, ERR_INVALID, "tensor", "%s is no shape that memory can hold",
                  tensor_describe(t, text));
        return t;
    }
    t.data = pass_bytes(p, bytes);
    return t;
}

struct tensor pass_tensor_like(struct pass *p, struct tensor like)
{
    return pass_tensor(p, like.dtype, like.rank, like.dim);
}

size_t pass_open_scope(struct pass *p)
{
    return p->memory->used_bytes;
}

void pass_close_scope(struct pass *p, size_t mark)
{
    size_t floor = p->tape ? tape_floor(p->tape) : 0;
    pass_memory_pop(p->memory, mark > floor ? mark : floor);
    pass_measure(p);
}

struct tensor pass_input(struct pass *p, const float *host, int rank, const int64_t *dim)
{
    struct tensor t = pass_tensor(p, p->dtype, rank, dim);
    if (!t.data) return t;
    if (p->device->host_memory) {
        dtype_convert(t.data, t.dtype, host, DTYPE_F32, tensor_count(t));
        return t;
    }
    struct error err;
    void *copy = alloc_try(tensor_bytes(t), 1);
    if (!copy) {
        pass_fail(p, ERR_NO_MEMORY, "input", "no host memory for %zu bytes", tensor_bytes(t));
    } else {
        dtype_convert(copy, t.dtype, host, DTYPE_F32, tensor_count(t));
        int rc = p->kernels->upload(p->device, t.data, copy, tensor_bytes(t), &err);
        if (rc) pass_fail(p, rc, "input", "%s", err.text);
    }
    free(copy);
    if (p->failed) t.data = NULL;
    return t;
}

void pass_output(struct pass *p, float *host, struct tensor t)
{
    if (!pass_ok(p)) return;
    if (!t.data) {
        pass_fail(p, ERR_INTERNAL, "output",
                  "the tensor has no data, though nothing failed before");
        return;
    }
    struct error err;
    void *copy = alloc_try(tensor_bytes(t), 1);
    if (!copy) {
        pass_fail(p, ERR_NO_MEMORY, "output", "no host memory for %zu bytes", tensor_bytes(t));
        return;
    }
    int rc = p->kernels->download(p->device, copy, t.data, tensor_bytes(t), &err);
    if (rc)
        pass_fail(p, rc, "output", "%s", err.text);
    else
        dtype_convert(host, DTYPE_F32, copy, t.dtype, tensor_count(t));
    free(copy);
}
