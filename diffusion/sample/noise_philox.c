#include "diffusion/sample/noise_philox.h"

#include <math.h>

void philox_4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void noise_philox_seed(struct noise_philox *g, uint64_t seed)
{
    g->seed = seed;
    g->call = 0;
}

void noise_philox_normal(struct noise_philox *g, float *out, size_t count)
{
    const uint32_t key[2] = {(uint32_t)g->seed, (uint32_t)(g->seed >> 32)};
    for (size_t e = 0; e < count; e++) {
        uint32_t bits[4];
        philox_4x32(bits, (const uint32_t[4]){g->call, 0, (uint32_t)e, (uint32_t)(e >> 32)}, key);
        float u = (float)bits[0] * 0x1p-32f + 0x1p-33f;
        float v = (float)bits[1] * (0x1p-32f * 6.2831855f) + 0x1p-33f * 6.2831855f;
        out[e] = sqrtf(-2.0f * logf(u)) * sinf(v);
    }
    g->call++;
}
