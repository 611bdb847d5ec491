#include "kernels/cuda/gemm_wgmma_bf16.cu"
