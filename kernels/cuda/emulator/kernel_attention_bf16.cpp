#include "kernels/cuda/attention_bf16.cu"
