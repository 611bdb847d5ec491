#include "kernels/cuda/gemm_bf16.cu"
