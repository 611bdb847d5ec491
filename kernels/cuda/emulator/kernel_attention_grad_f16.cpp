#include "kernels/cuda/attention_grad_f16.cu"
