#include "kernels/cuda/attention_wgmma_f16.cu"
