/* activation.h - the activations of kernels.h and their derivatives, in fp32, for every kernel. */
#ifndef KERNELS_CUDA_ACTIVATION_H
#define KERNELS_CUDA_ACTIVATION_H

#include "kernels/cuda/wrap.h"

/* values of enum activation, which the launchers check (launch.cpp style static asserts live in the
 * host code); kernels see plain numbers */
enum {
    KERNEL_ACT_NONE,
    KERNEL_ACT_SILU,
    KERNEL_ACT_GELU,
    KERNEL_ACT_QUICK_GELU,
    KERNEL_ACT_RELU,
    KERNEL_ACT_LEAKY_RELU,
    KERNEL_ACT_TANH,
    KERNEL_ACT_SIGMOID
};

DEVICE float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

DEVICE float gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

DEVICE float gelu_slope(float x)
{
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * expf(-0.5f * x * x);
}

DEVICE float activate(int act, float x)
{
    switch (act) {
    case KERNEL_ACT_SILU: return x * sigmoid(x);
    case KERNEL_ACT_GELU: return gelu(x);
    case KERNEL_ACT_QUICK_GELU: return x * sigmoid(1.702f * x);
    case KERNEL_ACT_RELU: return x > 0.0f ? x : 0.0f;
    case KERNEL_ACT_LEAKY_RELU: return x > 0.0f ? x : 0.2f * x;
    case KERNEL_ACT_TANH: return tanhf(x);
    case KERNEL_ACT_SIGMOID: return sigmoid(x);
    default: return x;
    }
}

DEVICE float activate_slope(int act, float x)
{
    float s;
    switch (act) {
    case KERNEL_ACT_SILU: s = sigmoid(x); return s * (1.0f + x * (1.0f - s));
    case KERNEL_ACT_GELU: return gelu_slope(x);
    case KERNEL_ACT_QUICK_GELU:
        s = sigmoid(1.702f * x);
        return s * (1.0f + 1.702f * x * (1.0f - s));
    case KERNEL_ACT_RELU: return x > 0.0f ? 1.0f : 0.0f;
    case KERNEL_ACT_LEAKY_RELU: return x > 0.0f ? 1.0f : 0.2f;
    case KERNEL_ACT_TANH: s = tanhf(x); return 1.0f - s * s;
    case KERNEL_ACT_SIGMOID: s = sigmoid(x); return s * (1.0f - s);
    default: return 1.0f;
    }
}

#endif
