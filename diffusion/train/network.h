/*
 * network.h - a whole network that is trained from nothing, and the folder it is saved to.
 *
 * Place    full-parameter training: every weight that a visitor names becomes a parameter.
 * Owner    the params own the weights' memory. One thread.
 * Failure  those of params.h; ERR_IO, ERR_NO_MEMORY when saving.
 * Source   starting values as torch's defaults for linear and convolution (uniform within
 *          1/sqrt(fan in)), 1 and 0 for norms, N(0, 0.02) for embeddings, 0 for biases.
 */
#ifndef TRAIN_NETWORK_H
#define TRAIN_NETWORK_H

#include "diffusion/layers.h"
#include "diffusion/train/params.h"

typedef void (*network_walk)(struct weight_visitor *v, void *model);

/* Adopts every weight of `model` as "PREFIX.NAME" (diffusers names), drawn from `seed` and its name. */
int network_start(struct params *params, network_walk walk, void *model, const char *prefix,
                  uint64_t seed, struct error *err);
/* Saves the parameters "PREFIX.*" without the prefix, running means where kept, as F16. */
int network_save(const struct params *params, const char *prefix, const char *path,
                 struct error *err);

#endif
