#include "kernels/cuda/attention_simple.cu"
