/*
 * exp2.c - ways to raise 2 to a vector, for the softmax of attention.
 *
 * All split x into its floor and a rest r, and multiply a polynomial in r by 2^floor with vscalefps, which
 * also takes care of underflow. They differ in how r comes about and in the degree.
 *   usage: lab_exp2
 * Numbers and verdict: docs/performance.md.
 */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "kernels/cpu/cpu_math.h"

#define COUNT 4096

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

ALWAYS_INLINE vf by_reduce(vf x)
{
    vf r = (vf)_mm512_reduce_ps((__m512)x, 1);
    vf p = (r * 0.07706704f + 0.22764499f) * r + 0.69511679f;
    return (vf)_mm512_scalef_ps((__m512)(p * r + 1.0f), (__m512)x);
}

ALWAYS_INLINE vf by_round(vf x)
{
    return vf_exp2(x, true);
}

ALWAYS_INLINE vf by_round_exact(vf x)
{
    return vf_exp2(x, false);
}

/* degree 2: as coarse as bfloat16 itself */
ALWAYS_INLINE vf by_square(vf x)
{
    vf r = x - (vf)_mm512_roundscale_ps((__m512)x, 1);
    vf p = r * 0.33977f + 0.65634f;
    return (vf)_mm512_scalef_ps((__m512)(p * r + 1.0f), (__m512)x);
}

#define MEASURE(function)                                                                          \
    do {                                                                                           \
        double best = 1e9, worst = 0;                                                              \
        for (int round = 0; round < 50; round++) {                                                 \
            double t = cpu_seconds();                                                              \
            for (int again = 0; again < 50; again++) {                                             \
                for (int i = 0; i < COUNT; i += 2 * VL) {                                          \
                    vf a = function(*(vf *)(x + i)), b = function(*(vf *)(x + i + VL));            \
                    *(vf *)(y + i) = a;                                                            \
                    *(vf *)(y + i + VL) = b;                                                       \
                }                                                                                  \
                __asm__ volatile("" : : : "memory"); /* each round counts */                       \
            }                                                                                      \
            t = (cpu_seconds() - t) / 50 / (COUNT / VL);                                           \
            if (t < best) best = t;                                                                \
        }                                                                                          \
        for (int i = 0; i < COUNT; i++) {                                                          \
            double off = fabs(y[i] / exp2((double)x[i]) - 1);                                      \
            if (off > worst) worst = off;                                                          \
        }                                                                                          \
        printf("%-15s %.2f ns a vector, worst relative error %.1e\n", #function, best * 1e9,       \
               worst);                                                                             \
    } while (0)

int main(void)
{
    static float x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = -(float)i * 0.0123f;
    MEASURE(by_reduce);
    MEASURE(by_round);
    MEASURE(by_round_exact);
    MEASURE(by_square);
    return 0;
}
