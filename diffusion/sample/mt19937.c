#include "diffusion/sample/mt19937.h"

enum { WORDS = 624, SHIFT = 397 };

void mt19937_seed(struct mt19937 *m, uint32_t seed)
{
    m->state[0] = seed;
    for (uint32_t j = 1; j < WORDS; j++)
        m->state[j] = 1812433253u * (m->state[j - 1] ^ m->state[j - 1] >> 30) + j;
    m->next = WORDS;
}

void mt19937_seed_array(struct mt19937 *m, const uint32_t *key, size_t count)
{
    mt19937_seed(m, 19650218u);
    uint32_t *s = m->state;
    size_t i = 1, j = 0;
    for (size_t k = count > WORDS ? count : WORDS; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        if (++i == WORDS) {
            s[0] = s[WORDS - 1];
            i = 1;
        }
        if (++j == count) j = 0;
    }
    for (size_t k = WORDS - 1; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == WORDS) {
            s[0] = s[WORDS - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
}

static uint32_t mix(uint32_t own, uint32_t after, uint32_t far)
{
    uint32_t y = (own & 0x80000000u) | (after & 0x7fffffffu);
    return far ^ y >> 1 ^ (0x9908b0dfu & -(y & 1));
}

static void twist(struct mt19937 *m)
{
    uint32_t *s = m->state;
    int j = 0;
    for (; j < WORDS - SHIFT; j++) s[j] = mix(s[j], s[j + 1], s[j + SHIFT]);
    for (; j < WORDS - 1; j++) s[j] = mix(s[j], s[j + 1], s[j + SHIFT - WORDS]);
    s[j] = mix(s[j], s[0], s[SHIFT - 1]);
    m->next = 0;
}

uint32_t mt19937_draw(struct mt19937 *m)
{
    if (m->next == WORDS) twist(m);
    uint32_t y = m->state[m->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}
