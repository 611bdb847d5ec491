/*
 * train_bench.h - how long one step of training a LoRA takes, and how much memory.
 *
 * Place    `kiln-engine bench-train ...`, which `kiln bench train` starts; the last part of
 *          `kiln bench engine`.
 * Owner    the call; one thread.
 * Failure  exit codes 0, 1 (with a sentence on standard error), 2 (wrong usage).
 *
 * A step is what lora_train does for a batch of one: forward under a tape, mean squared error, backward,
 * AdamW; latent, text states and noise are given, as they are there in a training whose cache is full.
 * Adapters stand on q, k, v and out of every attention, as diffusers' own script sets them.
 */
#ifndef ENGINE_TRAIN_BENCH_H
#define ENGINE_TRAIN_BENCH_H

#include "diffusion/model.h"
#include "engine/bench_watch.h"

struct train_bench_options {
    int64_t size, rounds; /* steps after the first */
    int rank;             /* 0: 8 */
    bool lean;            /* blocks are run again in the backward */
};

/* Parts "first training step" and "training step" (with "lean" in front). The text encoder's and the
 * VAE's packed weights are dropped first, as training does. times NULL: no clock in the kernel calls. */
int train_bench_steps(struct bench_watch *w, struct model *model,
                      const struct train_bench_options *o, struct op_times *times,
                      size_t *pass_bytes, struct error *err);

/* argv[0] is "bench-train". Results on standard output. */
int train_bench_main(int argc, char **argv);

#endif
