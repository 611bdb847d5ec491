/* gemm_wgmma_f16.cu - the products of compute capability 9.0 with f16 storage. Contract in gemm_wgmma.h. */
#include "kernels/cuda/gemm_wgmma_kernel.h"

extern "C" int gemm_wgmma_f16(enum gemm_tile tile, const struct gemm_wgmma_args *args, void *stream)
{
    switch (tile) {
#define X(name, tm, tn)                                                                            \
    case name: return gemm_wgmma_launch<f16, tm, tn>(#name, args, stream);
        GEMM_WGMMA_TABLE(X)
#undef X
    default: return 1;
    }
}

extern "C" struct gemm_tile_shape gemm_wgmma_tile_shape(enum gemm_tile tile)
{
    switch (tile) {
#define X(name, tm, tn)                                                                            \
    case name: return {tm, tn, wgmma_threads, gemm_wgmma_shape<tm, tn>::shared_bytes, 1, 0, 1};
        GEMM_WGMMA_TABLE(X)
#undef X
    default: return {};
    }
}
