#include "kernels/cuda/attention_wgmma_bf16.cu"
