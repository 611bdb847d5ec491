#include "kernels/cuda/pointwise.cu"
