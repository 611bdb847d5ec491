/*
 * weight_pool.h - the device memory of one model's weights: a few large blocks that go back whole.
 *
 * Place    below kernels.pack of a device with memory of its own (kernel_weight.pool); made by the
 *          model, which reserves what its weights will take before the first one comes. So a model
 *          that has no room says so when it is opened, nothing is allocated in a step, and closing it
 *          is one free a block.
 * Owner    the model. One thread at a time; weight_pool_move hands it to another device handle of
 *          the same card.
 * Failure  ERR_NO_MEMORY; nothing has changed then.
 *
 * Pieces are cut from the block's end in the order of asking, so that what is asked for together
 * lies together; what was given back is used again when it fits.
 */
#ifndef KERNELS_WEIGHT_POOL_H
#define KERNELS_WEIGHT_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct device;
struct weight_pool;

#define WEIGHT_POOL_ALIGNMENT ((size_t)256)

struct weight_pool *weight_pool_new(struct device *device);
/* Blocks back to the device; its recordings of other models stay valid. NULL is fine. */
void weight_pool_free(struct weight_pool *pool);
/* From now on giving back does nothing: all goes at once with weight_pool_free. */
void weight_pool_end(struct weight_pool *pool);
void weight_pool_move(struct weight_pool *pool, struct device *to);

/* One block in which so many bytes more fit. */
int weight_pool_reserve(struct weight_pool *pool, size_t bytes, struct error *err);
/* *fresh: nobody has used this piece before, so nothing on the device can still read it. */
int weight_pool_take(struct weight_pool *pool, void **memory, bool *fresh, size_t bytes,
                     struct error *err);
void weight_pool_give(struct weight_pool *pool, void *memory);

size_t weight_pool_bytes(const struct weight_pool *pool); /* of all blocks */
size_t weight_pool_used(const struct weight_pool *pool);  /* of pieces */

#endif
