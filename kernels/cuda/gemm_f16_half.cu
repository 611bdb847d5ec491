/* gemm_f16_half.cu - the matrix products with fp16 sums within a slice. Contract in gemm.h. */
#include "kernels/cuda/gemm_kernel.h"

extern "C" int gemm_f16_half(enum gemm_tile tile, const struct gemm_args *args, void *stream)
{
    switch (tile) {
#define X(name, tm, tn, wm, wn, blocks)                                                            \
    case name:                                                                                     \
        return gemm_launch_tile<f16, tm, tn, wm, wn, false, blocks, true>(#name "_H", args, stream);
        GEMM_TILE_TABLE(X)
#undef X
    default: return 1;
    }
}
