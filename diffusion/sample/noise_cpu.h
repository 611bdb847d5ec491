/*
 * noise_cpu.h - what torch.Generator('cpu').manual_seed(seed) draws, in float32.
 *
 * Place    below noise.h; also the weight rule of the golden networks in the tests.
 * Owner    the caller's struct; one thread. Successive calls continue the stream, as in torch.
 * Failure  cannot fail. Source: pytorch/pytorch ATen DistributionTemplates.h (normal_fill and the
 *          scalar path). Equal to torch bit for bit (torch with AVX2, as on every x86 machine of
 *          today); only the low 32 bits of a seed count.
 */
#ifndef SAMPLE_NOISE_CPU_H
#define SAMPLE_NOISE_CPU_H

#include <stdbool.h>

#include "diffusion/sample/mt19937.h"

struct noise_cpu {
    struct mt19937 mt;
    bool has_spare; /* the scalar path makes two normals and keeps one */
    double spare;
};

void noise_cpu_seed(struct noise_cpu *g, uint64_t seed);
void noise_cpu_normal(struct noise_cpu *g, float *out, size_t count);  /* torch.randn(count) */
void noise_cpu_uniform(struct noise_cpu *g, float *out, size_t count); /* torch.rand(count) */

#endif
