/* peak.h - what the card can do at most: a loop of nothing but mma, a copy of nothing but 16-byte
 * accesses. Launchers return a CUDA error number. */
#ifndef KERNELS_CUDA_PEAK_H
#define KERNELS_CUDA_PEAK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PEAK_CHAINS = 8, PEAK_THREADS = 256 };

/* blocks * PEAK_THREADS / 32 warps do `rounds` * PEAK_CHAINS mma m16n8k16 each; out: one float a
 * thread, so that the loop has a purpose */
int peak_mma(float *out, int blocks, int rounds, void *stream);
int peak_copy(void *to, const void *from, int64_t chunks, void *stream);

#ifdef __cplusplus
}
#endif
#endif
