/* peak.cu - ceilings. Contract in peak.h. */
#include "kernels/cuda/peak.h"

#include "kernels/cuda/wrap.h"

struct peak_mma_params {
    float *out;
    int rounds;
};

KERNEL(PEAK_THREADS, 2)
peak_mma_kernel(const peak_mma_params p)
{
    const int lane = thread_index() % 32;
    uint32_t a[4], b[2];
    UNROLL
    for (int i = 0; i < 4; i++) a[i] = pack<f16>(0.01f * (float)(lane + i), 0.02f);
    UNROLL
    for (int i = 0; i < 2; i++) b[i] = pack<f16>(0.03f * (float)(lane - i), -0.01f);
    float c[PEAK_CHAINS][4];
    UNROLL
    for (int i = 0; i < PEAK_CHAINS; i++) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0.0f;
    for (int round = 0; round < p.rounds; round++) {
        UNROLL
        for (int i = 0; i < PEAK_CHAINS; i++) mma<f16>(c[i], a, b);
    }
    float sum = 0.0f;
    UNROLL
    for (int i = 0; i < PEAK_CHAINS; i++) sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
    global_store(p.out + (int64_t)block_x() * PEAK_THREADS + thread_index(), sum);
}

struct peak_copy_params {
    char *to;
    const char *from;
    int64_t chunks;
};

KERNEL(PEAK_THREADS, 4)
peak_copy_kernel(const peak_copy_params p)
{
    const int64_t at = (int64_t)block_x() * PEAK_THREADS + thread_index();
    if (at < p.chunks) global_store(p.to + 16 * at, global_load<word16>(p.from + 16 * at));
}

extern "C" int peak_mma(float *out, int blocks, int rounds, void *stream)
{
    const peak_mma_params p = {out, rounds};
    return launch<peak_mma_kernel>("peak_mma", dim3((unsigned)blocks), PEAK_THREADS, 0, stream, p);
}

extern "C" int peak_copy(void *to, const void *from, int64_t chunks, void *stream)
{
    const peak_copy_params p = {(char *)to, (const char *)from, chunks};
    return launch<peak_copy_kernel>("peak_copy",
                                    dim3((unsigned)((chunks + PEAK_THREADS - 1) / PEAK_THREADS)),
                                    PEAK_THREADS, 0, stream, p);
}
