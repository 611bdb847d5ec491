/*
 * pass.h - one run over a model: back end, memory, optional tape, first error.
 *
 * Place    the first argument of every op and every model function.
 * Owner    the caller's struct, between pass_start and pass_finish; one thread. The memory below it
 *          (struct pass_memory) lives longer and is reused: the same pass over the same shapes
 *          takes the same addresses.
 * Failure  sticky. An op on a failed pass computes nothing and returns a tensor with its shape and
 *          no data; pass_finish returns the first error, prefixed by the op that met it.
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
#include <stdint.h>

#include "base/error.h"
#include "kernels/device.h"
#include "tensor/tensor.h"

struct tape;
struct op_times;

/* Device memory that passes are carved from; grows on demand up to `limit_bytes` (0: no limit). Two
 * kinds: a stack of chunks for what ops make, and whole blocks for gradients, which die in another
 * order than they are born. On host memory a chunk is reserved address space, so that what is never
 * touched costs nothing. A pass started while another is open lies on top of it. */
struct pass_memory {
    struct device *device;
    struct pass_chunk *chunks; /* in stack order */
    struct pass_block *blocks; /* gradients, in use or kept for the next */
    size_t limit_bytes;
    size_t reserved_bytes; /* chunks and blocks; address space on host memory */
    size_t used_bytes;     /* height of the stack */
    size_t block_bytes;    /* blocks in use */
    size_t peak_bytes; /* the largest height since the last trim: on host memory, what is touched */
    uint64_t generation; /* moves on when a later pass may take other addresses than before */
    int users;           /* of one that is shared; 0: its owner's alone */
};

void pass_memory_init(struct pass_memory *m, struct device *device, size_t limit_bytes);
void pass_memory_release(struct pass_memory *m);
/* Between passes: gives memory that nobody uses back to the system. */
void pass_memory_trim(struct pass_memory *m);

/* One arena of a device for all its models: they take turns, so what one job grew the next one finds, and
 * a device holds the largest plan once. PASS_CONTEXT is for what outlives network calls. Each get wants a
 * put; the last gives all back. */
enum pass_role { PASS_STEPS, PASS_CONTEXT };
struct pass_memory *pass_memory_get(struct device *device, enum pass_role role);
void pass_memory_put(struct pass_memory *m); /* NULL is fine */

struct pass {
    struct device *device;
    const struct kernels *kernels; /* device->kernels */
    struct pass_memory *memory;
    struct tape *tape;             /* NULL in inference */
    enum dtype dtype;              /* of activations */
    size_t base_bytes;             /* height of the memory's stack at the start */
    size_t used_bytes, peak_bytes; /* above it, gradients included in the peak */
    int failed;                    /* 0 or the first ERR_* */
    struct error error;
    /* Asked between ops when set; true cancels the pass (ERR_CANCELED). */
    bool (*canceled)(void *context);
    void *canceled_context;
    struct op_times *times; /* where benchmarks want the time noted (op_times.h); NULL: nowhere */
};

void pass_start(struct pass *p, struct pass_memory *memory, enum dtype dtype, struct tape *tape);
/* Waits for the device, returns the first error, hands all memory back. Tensors of the pass are
 * void afterwards (with a tape: when it is cleared, freed, or starts its next pass). */
int pass_finish(struct pass *p, struct error *err);

/* Fails the pass (the first failure counts). `op` is the op's name. */
void pass_fail(struct pass *p, int code, const char *op, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool pass_ok(struct pass *p); /* also asks `canceled` */

/* Uninitialised tensors of the pass; data NULL after a failure. */
struct tensor pass_tensor(struct pass *p, enum dtype dtype, int rank, const int64_t *dim);
struct tensor pass_tensor_like(struct pass *p, struct tensor like);
/* Plain memory of the pass, 256-byte aligned (statistics, tables). NULL after a failure. */
void *pass_bytes(struct pass *p, size_t bytes);

size_t pass_open_scope(struct pass *p);
void pass_close_scope(struct pass *p, size_t mark);

/* Host <-> device. The input is converted to p->dtype; host layout is the tensor's. */
struct tensor pass_input(struct pass *p, const float *host, int rank, const int64_t *dim);
/* Waits; converts to float. host has tensor_count(t) elements. Fails the pass on error. */
void pass_output(struct pass *p, float *host, struct tensor t);

#endif
