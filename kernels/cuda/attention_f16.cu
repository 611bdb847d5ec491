/* attention_f16.cu - the forward flash kernel with f16 storage. Contract in attention.h. */
#include "kernels/cuda/attention_kernel.h"

extern "C" int attention_flash_f16(const struct attention_args *a, int aligned, size_t shared_limit,
                                   void *stream)
{
    return flash_launch<f16>(a, aligned != 0, shared_limit, stream);
}
