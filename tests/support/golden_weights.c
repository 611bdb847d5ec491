#include "tests/support/golden_weights.h"

#include <math.h>
#include <string.h>

#include "diffusion/sample/noise_cpu.h"

uint32_t golden_crc32(const char *text)
{
    uint32_t crc = 0xffffffffu;
    for (; *text; text++) {
        crc ^= (uint8_t)*text;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

void golden_normal(float *out, uint64_t seed, size_t count)
{
    struct noise_cpu g;
    noise_cpu_seed(&g, seed);
    noise_cpu_normal(&g, out, count);
}

void golden_weight(float *out, const char *key, int rank, const int64_t *dim)
{
    size_t count = 1, length = strlen(key);
    for (int i = 0; i < rank; i++) count *= (size_t)dim[i];
    golden_normal(out, golden_crc32(key), count);
    bool scale = length > 7 && !strcmp(key + length - 7, ".weight");
    float factor = rank >= 2 ? (float)(1 / sqrt((double)count / (double)dim[0])) : 0.1f;
    float base = rank == 1 && scale ? 1.0f : 0.0f;
    for (size_t i = 0; i < count; i++) out[i] = base + factor * out[i];
}
