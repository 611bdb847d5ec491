/*
 * pass_memory.h - the two allocators below a pass: a stack, and whole blocks.
 *
 * Place    pass.c (what ops make) and tape.c (gradients); ops do not come here.
 * Owner    struct pass_memory, see pass.h. One thread.
 * Failure  ERR_NO_MEMORY at the limit or when the device has no more; nothing has changed then.
 */
#ifndef TENSOR_PASS_MEMORY_H
#define TENSOR_PASS_MEMORY_H

#include "tensor/pass.h"

/* 256-byte aligned. Heights for pop are m->used_bytes of an earlier moment. */
int pass_memory_push(struct pass_memory *m, void **memory, size_t bytes, struct error *err);
void pass_memory_pop(struct pass_memory *m, size_t height);

/* Blocks are reused by later takes of about the same size. */
int pass_memory_take(struct pass_memory *m, void **memory, size_t bytes, struct error *err);
void pass_memory_give(struct pass_memory *m, void *memory);

int pass_memory_reserve(struct pass_memory *m, size_t bytes, struct error *err);
/* Between passes: one chunk in which so many bytes fit. */
int pass_memory_hold(struct pass_memory *m, size_t bytes, struct error *err);
/* At the start of an outermost pass. */
void pass_memory_settle(struct pass_memory *m);

#endif
