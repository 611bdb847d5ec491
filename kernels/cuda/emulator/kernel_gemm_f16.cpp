#include "kernels/cuda/gemm_f16.cu"
