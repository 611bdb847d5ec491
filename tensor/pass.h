/*
 * pass.h - one run over a model: back end, memory, optional tape, first error.
 *
 * Place    the first argument of every op and every model function.
 * Owner    the caller's struct, between pass_start and pass_finish; one thread. The memory below it
 *          (struct pass_memory) lives longer and is reused: the same pass over the same shapes takes
 *          the same addresses.
 * Failure  sticky. An op on a failed pass computes nothing and returns a tensor with its shape and no
 *          data; pass_finish returns the first error, prefixed by the op that met it.
 *
 * Scopes hand temporaries back. With a tape they keep everything (the backward needs it). The idiom:
 *
 *     struct tensor y = pass_tensor_like(p, x);        outlives the scope
 *     size_t mark = pass_open_scope(p);
 *     struct tensor h = op_group_norm(p, x, ...);
 *     op_conv2d_into(p, &y, h, ...);
 *     pass_close_scope(p, mark);
 *     return y;
 */
#ifndef TENSOR_PASS_H
#define TENSOR_PASS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "kernels/device.h"
#include "tensor/tensor.h"

struct tape;

/* Device memory that passes are carved from; grows on demand up to `limit_bytes` (0: no limit). */
struct pass_memory {
    struct device *device;
    struct pass_chunk *chunks;
    size_t limit_bytes;
    size_t reserved_bytes;
};

void pass_memory_init(struct pass_memory *m, struct device *device, size_t limit_bytes);
void pass_memory_release(struct pass_memory *m);

struct pass {
    struct device *device;
    const struct kernels *kernels; /* device->kernels */
    struct pass_memory *memory;
    struct tape *tape; /* NULL in inference */
    enum dtype dtype;  /* of activations */
    size_t used_bytes, peak_bytes;
    int failed; /* 0 or the first ERR_* */
    struct error error;
    /* Asked between ops when set; true cancels the pass (ERR_CANCELED). */
    bool (*canceled)(void *context);
    void *canceled_context;
};

void pass_start(struct pass *p, struct pass_memory *memory, enum dtype dtype, struct tape *tape);
/* Waits for the device, returns the first error, hands all memory back. Tensors of the pass are
 * void afterwards (with a tape: until tape_clear). */
int pass_finish(struct pass *p, struct error *err);

/* Fails the pass (the first failure counts). `op` is the op's name. */
void pass_fail(struct pass *p, int code, const char *op, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool pass_ok(struct pass *p); /* also asks `canceled` */

/* Uninitialised tensors of the pass; data NULL after a failure. */
struct tensor pass_tensor(struct pass *p, enum dtype dtype, int rank, const int64_t *dim);
struct tensor pass_tensor_like(struct pass *p, struct tensor like);
/* Plain memory of the pass, 64-byte aligned (statistics, tables). NULL after a failure. */
void *pass_bytes(struct pass *p, size_t bytes);

size_t pass_open_scope(struct pass *p);
void pass_close_scope(struct pass *p, size_t mark);

/* Host <-> device. The input is converted to p->dtype; host layout is the tensor's. */
struct tensor pass_input(struct pass *p, const float *host, int rank, const int64_t *dim);
/* Waits; converts to float. host has tensor_count(t) elements. Fails the pass on error. */
void pass_output(struct pass *p, float *host, struct tensor t);

#endif
