#include "kernels/cuda/selftest_wgmma.cu"
