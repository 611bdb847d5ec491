#include "kernels/cuda/gemm_f16_half.cu"
