#include "diffusion/sample/box_muller.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* v in (0,1]; v == 0 does not occur (uniforms stop below 1) */
INLINE float log_of(float v)
{
    uint32_t bits;
    float x;
    memcpy(&bits, &v, 4);
    float e = (float)((int32_t)(bits >> 23) - 126);
    bits = (bits & 0x7fffff) | 0x3f000000; /* mantissa in [0.5,1) */
    memcpy(&x, &bits, 4);
    float twice = x < 0.707106781186547524f ? x : 0;
    e = x < 0.707106781186547524f ? e - 1 : e;
    x = x - 1 + twice;

    float z = x * x, y = 7.0376836292e-2f;
    y = fmaf(y, x, -1.1514610310e-1f);
    y = fmaf(y, x, 1.1676998740e-1f);
    y = fmaf(y, x, -1.2420140846e-1f);
    y = fmaf(y, x, 1.4249322787e-1f);
    y = fmaf(y, x, -1.6668057665e-1f);
    y = fmaf(y, x, 2.0000714765e-1f);
    y = fmaf(y, x, -2.4999993993e-1f);
    y = fmaf(y, x, 3.3333331174e-1f);
    y = y * x;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, x + y); /* ln 2 in two parts */
}

/* angle >= 0 */
INLINE void sine_cosine(float angle, float *sine, float *cosine)
{
    int32_t octant = ((int32_t)(angle * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant, x = angle;
    x = fmaf(y, -0.78515625f, x); /* pi / 4 in three parts */
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);

    float z = x * x, p = 2.443315711809948e-5f, q = -1.9515295891e-4f;
    p = fmaf(p, z, -1.388731625493765e-3f);
    p = fmaf(p, z, 4.166664568298827e-2f);
    p = p * z;
    p = fmaf(p, z, -0.5f * z) + 1;
    q = fmaf(q, z, 8.3321608736e-3f);
    q = fmaf(q, z, -1.6666654611e-1f);
    q = q * z;
    q = fmaf(q, x, x);

    float s = octant & 2 ? p : q, c = octant & 2 ? q : p;
    *sine = octant & 4 ? -s : s;
    *cosine = (octant - 2) & 4 ? c : -c;
}

INLINE void fill(float *v, size_t blocks)
{
    for (float *d = v; blocks; blocks--, d += 16)
        for (int j = 0; j < 8; j++) {
            float radius = sqrtf(-2.0f * log_of(1.0f - d[j])), s, c;
            sine_cosine(6.283185307179586f * d[j + 8], &s, &c);
            d[j] = radius * c;
            d[j + 8] = radius * s;
        }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void fill_avx2(float *v, size_t blocks)
{
    fill(v, blocks);
}
#endif

void box_muller_fill(float *v, size_t blocks)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        fill_avx2(v, blocks);
        return;
    }
#endif
    fill(v, blocks);
}
