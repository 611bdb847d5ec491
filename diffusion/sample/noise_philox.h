/*
 * noise_philox.h - what torch.Generator('cuda') draws, computed anywhere.
 *
 * Place    below noise.h.
 * Owner    the caller's struct; one thread. Each noise_philox_normal is one torch call.
 * Failure  cannot fail. Source: Salmon et al. 2011 (Philox4x32-10); curand_normal's Box-Muller.
 *
 * torch's result depends on how many threads the card runs at once. Kiln fixes the rule of a large
 * card: element e is the first normal of thread e, whatever the count.
 */
#ifndef SAMPLE_NOISE_PHILOX_H
#define SAMPLE_NOISE_PHILOX_H

#include <stddef.h>
#include <stdint.h>

struct noise_philox {
    uint64_t seed;
    uint32_t call; /* number of the next call */
};

void noise_philox_seed(struct noise_philox *g, uint64_t seed);
void noise_philox_normal(struct noise_philox *g, float *out, size_t count);

/* Philox4x32-10 itself, for its published answers. */
void philox_4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
