/* attention_wgmma_bf16.cu - attention of compute capability 9.0 with bf16 storage. Contract in attention_wgmma.h. */
#include "kernels/cuda/attention_wgmma_kernel.h"

extern "C" int attention_wgmma_bf16(const struct attention_wgmma_args *args, void *stream)
{
    return attention_wgmma_launch<bf16>(args, stream);
}
