/*
 * selftest.h - are the instructions behind wrap.h what the emulator thinks they are?
 *
 * Place    cuda_device_open runs it once, some milliseconds: every word of wrap.h that moves data
 *          between lanes, on small integers whose results are exact.
 * Failure  a CUDA error number from the launch; selftest_check names the first wrong word.
 */
#ifndef KERNELS_CUDA_SELFTEST_H
#define KERNELS_CUDA_SELFTEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SELFTEST_INPUT_WORDS = 24 * 8, SELFTEST_LANE_WORDS = 48 };
enum { SELFTEST_WORDS = 32 * SELFTEST_LANE_WORDS };

/* Rows of 16 elements: 16 of A, 8 of B (columns of the right matrix). dtype F16 or BF16. */
void selftest_input(uint32_t *input, int dtype);
int selftest_run(const uint32_t *input, uint32_t *output, int dtype, void *stream);
/* NULL, or the name of a word whose result differs. */
const char *selftest_check(const uint32_t *output, int dtype);

#ifdef __cplusplus
}
#endif
#endif
