/*
 * tape.h - the record of a pass, for walking it backwards.
 *
 * Place    training only: pass_start(.., tape). Each op notes how to undo itself; nobody writes a
 *          model's backward.
 * Owner    new/free; one thread, same as its pass. Freed or cleared before its pass memory is.
 * Failure  through the pass.
 *
 * Gradients of trainable weights are added to weight.grad (F32/real). Gradients of inputs marked with
 * tape_watch can be read with tape_gradient.
 */
#ifndef TENSOR_TAPE_H
#define TENSOR_TAPE_H

#include "tensor/pass.h"
#include "tensor/weight.h"

struct tape *tape_new(void);
void tape_free(struct tape *tape);
void tape_clear(struct tape *tape); /* forgets the record; pass memory may be reused */

/* Asks for the gradient of an input tensor. */
void tape_watch(struct pass *p, struct tensor *t);
/* From a scalar loss (rank 0, gradient `seed`, usually 1 or a loss scale) back to all weights. Uses the
 * record up and hands memory back on the way: what can be read afterwards is the loss and the
 * gradients, nothing else of the pass. */
void tape_backward(struct pass *p, struct tensor loss, double seed);
/* After tape_backward: gradient of a watched tensor, shape and dtype of t; data NULL if none. */
struct tensor tape_gradient(struct pass *p, struct tensor t);

/*
 * Activation checkpointing: runs `block` without recording its inside, keeps only the inputs, and
 * runs it again with a tape of its own when the backward arrives. Without a tape, or with
 * tape_recompute(tape, false), it is a plain call. `context` must outlive the tape's record.
 */
typedef struct tensor (*tape_block)(struct pass *p, const void *context, const struct tensor *in,
                                    int count);
struct tensor tape_checkpoint(struct pass *p, tape_block block, const void *context,
                              const struct tensor *in, int count);
void tape_recompute(struct tape *tape, bool on);

#endif
