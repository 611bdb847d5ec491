/* gemm_bf16.cu - the tensor-core matrix products with bf16 storage. Contract in gemm.h. */
#include "kernels/cuda/gemm_kernel.h"

extern "C" int gemm_bf16(enum gemm_tile tile, int transposed, const struct gemm_args *args,
                         void *stream)
{
    return gemm_launch<bf16>(tile, transposed, args, stream);
}
