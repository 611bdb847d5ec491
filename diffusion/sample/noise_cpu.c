#include "diffusion/sample/noise_cpu.h"

#include <math.h>

#include "diffusion/sample/box_muller.h"

void noise_cpu_seed(struct noise_cpu *g, uint64_t seed)
{
    mt19937_seed(&g->mt, (uint32_t)seed);
    g->has_spare = false;
}

static float uniform24(struct noise_cpu *g)
{
    return (float)(mt19937_draw(&g->mt) & 0xffffff) * 0x1p-24f;
}

static double uniform53(struct noise_cpu *g)
{
    uint64_t high = mt19937_draw(&g->mt);
    uint64_t low = mt19937_draw(&g->mt);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static float normal_scalar(struct noise_cpu *g)
{
    if (g->has_spare) {
        g->has_spare = false;
        return (float)g->spare;
    }
    double u1 = uniform53(g), u2 = uniform53(g);
    double radius = sqrt(-2.0 * log1p(-u2)), angle = 6.283185307179586 * u1;
    g->spare = radius * sin(angle);
    g->has_spare = true;
    return (float)(radius * cos(angle));
}

void noise_cpu_normal(struct noise_cpu *g, float *out, size_t count)
{
    if (count < 16) {
        for (size_t i = 0; i < count; i++) out[i] = normal_scalar(g);
        return;
    }
    for (size_t i = 0; i < count; i++) out[i] = uniform24(g);
    box_muller_fill(out, count / 16);
    if (count % 16 == 0) return;
    float *tail = out + count - 16; /* torch draws the last sixteen anew */
    for (int i = 0; i < 16; i++) tail[i] = uniform24(g);
    box_muller_fill(tail, 1);
}

void noise_cpu_uniform(struct noise_cpu *g, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++) out[i] = uniform24(g);
}
