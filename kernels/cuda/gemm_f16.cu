/* gemm_f16.cu - the tensor-core matrix products with f16 storage. Contract in gemm.h. */
#include "kernels/cuda/gemm_kernel.h"
#include "kernels/cuda/gemm_wgmma.h"

extern "C" int gemm_f16(enum gemm_tile tile, int transposed, const struct gemm_args *args,
                        void *stream)
{
    return gemm_launch<f16>(tile, transposed, args, stream);
}

extern "C" struct gemm_tile_shape gemm_tile_shape(enum gemm_tile tile, int transposed)
{
    switch (tile) {
#define X(name, tm, tn, wm, wn, blocks)                                                            \
    case name: {                                                                                   \
        using straight = gemm_shape<tm, tn, wm, wn, false>;                                        \
        using turned = gemm_shape<tm, tn, wm, wn, true>;                                           \
        return {tm,                                                                                \
                tn,                                                                                \
                straight::threads,                                                                 \
                transposed ? turned::shared_bytes : straight::shared_bytes,                        \
                wn % 16 == 0,                                                                      \
                1,                                                                                 \
                0};                                                                                \
    }
        GEMM_TILE_TABLE(X)
#undef X
    default: return gemm_wgmma_tile_shape(tile);
    }
}
