/*
 * noise_brownian.h - increments of one Brownian path, the same however the steps are cut.
 *
 * Place    step noise of the SDE samplers: noise(sigma -> next) must not depend on the other steps.
 * Owner    brownian_new / brownian_free; one thread. Nodes are kept for the life of the tree:
 *          memory is about count x 4 bytes x 20 a query, capped by dropping the deepest nodes.
 * Failure  ERR_NO_MEMORY. Source: google-research/torchsde BrownianTree + numpy's SeedSequence, as
 *          crowsonkb/k-diffusion's BrownianTreeNoiseSampler uses them (always CPU noise).
 */
#ifndef SAMPLE_NOISE_BROWNIAN_H
#define SAMPLE_NOISE_BROWNIAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct brownian;

/* sigma_min: the smallest positive, sigma_max: the largest sigma of the run. */
int brownian_new(struct brownian **b, uint64_t seed, size_t count, double sigma_min,
                 double sigma_max, struct error *err);
void brownian_free(struct brownian *b);
/* unit normal noise for the step sigma -> next (next < sigma) */
int brownian_noise(struct brownian *b, float *out, double sigma, double next, struct error *err);

/* numpy's SeedSequence with a pool of 24 words: output words of (entropy, spawn key). */
void seed_sequence(uint32_t *out, size_t words, uint64_t entropy, const uint64_t *spawn,
                   size_t spawn_count);

#endif
