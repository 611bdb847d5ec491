/*
 * fiber.h - many stacks in one operating system thread.
 *
 * Place    below the emulator: every emulated CUDA thread is a fiber.
 * Owner    the emulator owns a pool of them; one OS thread.
 * Failure  fiber_pool_reserve returns false when there is no memory for the stacks.
 *
 * x86-64 has a hand-written switch (8 ns); other machines use ucontext (about 190 ns).
 */
#ifndef KERNELS_CUDA_EMULATOR_FIBER_H
#define KERNELS_CUDA_EMULATOR_FIBER_H

#include <stddef.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct fiber {
#if defined(__x86_64__)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
};

typedef void (*fiber_entry)();

/* Stacks for `count` fibers, each with a guard page below; kept and reused. */
bool fiber_pool_reserve(size_t count);
/* Prepares fiber `f` to run `entry` on stack number `index` at the first switch to it. */
void fiber_prepare(struct fiber *f, size_t index, fiber_entry entry);
/* Saves the caller in `from` and continues `to`. */
void fiber_switch(struct fiber *from, struct fiber *to);
/* After fibers were abandoned in the middle of a function: forget what ASan knows of the stacks. */
void fiber_pool_forget();

#endif
