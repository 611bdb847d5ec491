/*
 * mt19937.h - the Mersenne Twister that torch (CPU) and Python draw from.
 *
 * Place    below noise_cpu (torch.randn) and text/dynamic_prompt (Python's random.choice).
 * Owner    the caller's struct; one thread.
 * Failure  cannot fail. Source: Matsumoto and Nishimura 1998; seeding by array as in their
 * reference.
 */
#ifndef SAMPLE_MT19937_H
#define SAMPLE_MT19937_H

#include <stddef.h>
#include <stdint.h>

struct mt19937 {
    uint32_t state[624];
    int next; /* 624: twist before the next draw */
};

void mt19937_seed(struct mt19937 *m, uint32_t seed);
void mt19937_seed_array(struct mt19937 *m, const uint32_t *key, size_t count);
uint32_t mt19937_draw(struct mt19937 *m);

#endif
