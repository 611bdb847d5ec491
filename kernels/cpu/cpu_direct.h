/*
 * cpu_direct.h - products whose rows of A are read where they lie: neighbouring pixels, nine taps each.
 *
 * Place    cpu_gemm's run_task, instead of gathering a panel; cpu_norm_conv makes pictures that allow it. With few
 *          outputs gathering costs a sixth of the products.
 * Owner    nothing. The order of additions is that of a gathered panel (cpu_unpacked.h), so are the bits.
 * Failure  none; direct_suits says where there is a kernel.
 */
#ifndef KERNELS_CPU_CPU_DIRECT_H
#define KERNELS_CPU_CPU_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/dtype.h"

/* A picture with a border: tap (i, j) of output pixel (y, x) is pixel (y + i, x + j). */
struct direct {
    const char *data;
    int64_t line; /* output pixels of one; bytes of a source line are (line + 2) pixels' */
    int64_t pixel_bytes;
};

bool CPU_NAME(direct_suits)(int64_t channels, int64_t out, enum dtype dtype);
/* gemm_tile over `blocks` blocks of K from `block` on, for `rows` output pixels of one line from pixel m on. */
void CPU_NAME(direct_tile)(float *c, int64_t ldc, const struct direct *d, int64_t m, int64_t block,
                           const void *b, int64_t blocks, int64_t rows, int64_t cols,
                           bool accumulate);
#define direct_suits CPU_NAME(direct_suits)
#define direct_tile CPU_NAME(direct_tile)

#endif
