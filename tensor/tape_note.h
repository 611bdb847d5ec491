/*
 * tape_note.h - how op files write on a tape, and what they find there on the way back.
 *
 * Place    op_*.c and pass.c; models use tape.h.
 * Owner    the pass's tape. One thread.
 * Failure  through the pass.
 *
 * An op that has run notes its result:
 *
 *     struct mul_saved *s = tape_note(p, &y, mul_undo, sizeof(*s));
 *     if (s) *s = (struct mul_saved){a, b};
 *
 * and on the way back mul_undo(p, s, dy) adds to the gradients of a and b with what tape_grad
 * gives it. Memory that undo takes from the pass is handed back when it returns.
 */
#ifndef TENSOR_TAPE_NOTE_H
#define TENSOR_TAPE_NOTE_H

#include "tensor/tape.h"

typedef void (*tape_undo)(struct pass *p, const void *saved, struct tensor dy);

/* Whether the next result's derivative is written down, so that an op should keep what it needs. False
 * on the first run of a checkpointed block. */
bool tape_records(const struct pass *p);
/* To be called only when an input has a node or a weight trains. Sets y->node; zeroed room for
 * what undo needs, NULL when nothing is recorded. */
void *tape_note(struct pass *p, struct tensor *y, tape_undo undo, size_t saved_bytes);
/* Host memory that lives as long as the record; NULL after a failure. */
void *tape_host_bytes(struct pass *p, size_t bytes);

/* The gradient of an op's input, made on first touch: then *accumulate is false and all of it must be
 * written. data NULL when nobody wants it (node 0) or the pass failed. */
struct tensor tape_grad(struct pass *p, struct tensor input, bool *accumulate);
/* Hands dy itself on as the gradient of `input` when that has none yet; false: add it yourself.
 * dy must not be used by this undo afterwards. */
bool tape_give(struct pass *p, struct tensor input);
/* input's gradient += factor * dy, by either way. To be called last: dy may be handed on. */
void tape_add(struct pass *p, struct tensor input, struct tensor dy, double factor);
/* Gradient of a trainable weight; NULL when it does not train (or the pass failed). */
void *tape_weight_grad(struct pass *p, struct weight *w);
/* The value of a scalar's gradient: known without asking the device where the walk began. */
double tape_scalar(struct pass *p, struct tensor dy);

/* A tensor that stays readable after tape_backward. */
void tape_keep(struct pass *p, struct tensor *t);

void tape_attach(struct tape *tape, struct pass *p);
/* Height of the stack below which records may point. */
size_t tape_floor(const struct tape *tape);
void pass_measure(struct pass *p);

#endif
