/* attention_wgmma_f16.cu - attention of compute capability 9.0 with f16 storage. Contract in attention_wgmma.h. */
#include "kernels/cuda/attention_wgmma_kernel.h"

extern "C" int attention_wgmma_f16(const struct attention_wgmma_args *args, void *stream)
{
    return attention_wgmma_launch<f16>(args, stream);
}
