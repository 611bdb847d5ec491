/*
 * record.h - steps that a device has seen before are replayed instead of asked for op by op.
 *
 * Place    around the ops of a network call (guidance.c); below it device.recorder.
 * Owner    a struct record_cache for a model: record_cache_release before the device closes. One
 *          thread.
 * Failure  through the pass. A step that cannot be recorded runs as if there were no cache.
 *
 * The first time a key comes, the ops run plainly: they pack weights and grow memory. The second
 * time they are recorded and replayed, from then on only replayed. So everything that the ops read
 * from the host must be in the key, and everything that changes from call to call must be in device
 * memory before (pass_input). Results are tensors made before the call; addresses of both belong
 * in the key. With a tape, or on a device that cannot record, the ops just run.
 */
#ifndef TENSOR_RECORD_H
#define TENSOR_RECORD_H

#include "tensor/pass.h"

#define RECORDS_MAX 6

struct record {
    uint64_t key, moves, used;
    void *recording; /* NULL: seen once */
    bool refused;    /* the device could not record it */
};

struct record_cache {
    struct device *device;
    struct record entry[RECORDS_MAX];
    uint64_t uses;
    uint64_t recorded, replayed; /* counted for tests and logs */
};

typedef void (*record_ops)(struct pass *p, void *context);

/* Ops run in a scope and leave nothing behind but what they wrote into tensors made before. They take
 * copies of those: an op on a failed pass empties the struct that it was given. */
void record_run(struct record_cache *c, struct pass *p, uint64_t key, record_ops ops,
                void *context);
void record_cache_release(struct record_cache *c);

/* Hash of what a step depends on: start with RECORD_KEY, add all parts. FNV-1a. */
#define RECORD_KEY 0xcbf29ce484222325u
uint64_t record_key_add(uint64_t key, const void *part, size_t bytes);
uint64_t record_key_tensor(uint64_t key, struct tensor t); /* shape, dtype, address */

#endif
