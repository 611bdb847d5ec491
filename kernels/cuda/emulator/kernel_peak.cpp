#include "kernels/cuda/peak.cu"
