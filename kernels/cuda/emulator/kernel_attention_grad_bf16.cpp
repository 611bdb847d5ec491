#include "kernels/cuda/attention_grad_bf16.cu"
