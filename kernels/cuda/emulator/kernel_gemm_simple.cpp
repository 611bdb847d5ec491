#include "kernels/cuda/gemm_simple.cu"
