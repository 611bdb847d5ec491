/*
 * selftest_wgmma.h - are the instructions behind wrap_hopper.h what the emulator thinks they are?
 *
 * Place    cuda_wgmma_open runs it once on compute capability 9.0: bulk copies of tiles and of pixels
 *          (zeros outside, strides, swizzle), products from shared memory and from registers, two
 *          phases of a barrier; small integers whose results are exact.
 * Failure  a CUDA error number from the launch; selftest_wgmma_check names the first wrong word.
 */
#ifndef KERNELS_CUDA_SELFTEST_WGMMA_H
#define KERNELS_CUDA_SELFTEST_WGMMA_H

#include "kernels/cuda/tensor_map.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The input as a matrix of rows x c, and as two pictures of 5 x 6 pixels. */
enum { SELFTEST_ROWS = 60, SELFTEST_C = 40, SELFTEST_H = 5, SELFTEST_W = 6 };
/* Output in words: 1 (or not, where nothing was built), rows x rows, weights x columns of two boxes,
 * and a box of every other pixel as it lies unswizzled. */
enum {
    SELFTEST_BUILT = 0,
    SELFTEST_PRODUCT = 64,
    SELFTEST_COLUMNS = SELFTEST_PRODUCT + 64 * 64,
    SELFTEST_STEPS = SELFTEST_COLUMNS + 64 * 128,
    SELFTEST_WGMMA_WORDS = SELFTEST_STEPS + 64 * 32
};

struct selftest_wgmma_params {
    struct tensor_map rows, pixels, steps;
    uint32_t *output;
};
void selftest_wgmma_input(uint16_t *input, int dtype);
int selftest_wgmma_maps(struct selftest_wgmma_params *p, const void *input);
int selftest_wgmma_run(const struct selftest_wgmma_params *p, int dtype, void *stream);
/* NULL: right. "" : not built for this card. Else the words whose result differs. */
const char *selftest_wgmma_check(const uint32_t *output, int dtype);

#ifdef __cplusplus
}
#endif
#endif
