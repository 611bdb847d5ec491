#include "kernels/cuda/rearrange.cu"
