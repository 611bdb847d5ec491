/* attention_bf16.cu - the forward flash kernel with bf16 storage. Contract in attention.h. */
#include "kernels/cuda/attention_kernel.h"

extern "C" int attention_flash_bf16(const struct attention_args *a, int aligned,
                                    size_t shared_limit, void *stream)
{
    return flash_launch<bf16>(a, aligned != 0, shared_limit, stream);
}
