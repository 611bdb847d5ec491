#include "kernels/cuda/gemm_wgmma_f16.cu"
