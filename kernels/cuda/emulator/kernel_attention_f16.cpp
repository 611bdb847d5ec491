#include "kernels/cuda/attention_f16.cu"
