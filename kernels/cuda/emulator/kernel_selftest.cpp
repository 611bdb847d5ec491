#include "kernels/cuda/selftest.cu"
