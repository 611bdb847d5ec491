/* attention_grad_bf16.cu - the backward flash kernel with bf16 storage. Contract in attention.h. */
#include "kernels/cuda/attention_grad_kernel.h"

extern "C" int attention_grad_flash_bf16(const struct attention_grad_args *g, const float *delta,
                                         int aligned, void *stream)
{
    return flash_grad_launch<bf16>(g, delta, aligned != 0, stream);
}
