/* gemm_wgmma_bf16.cu - the products of compute capability 9.0 with bf16 storage. Contract in gemm_wgmma.h. */
#include "kernels/cuda/gemm_wgmma_kernel.h"

extern "C" int gemm_wgmma_bf16(enum gemm_tile tile, const struct gemm_wgmma_args *args,
                               void *stream)
{
    switch (tile) {
#define X(name, tm, tn)                                                                            \
    case name: return gemm_wgmma_launch<bf16, tm, tn>(#name, args, stream);
        GEMM_WGMMA_TABLE(X)
#undef X
    default: return 1;
    }
}
