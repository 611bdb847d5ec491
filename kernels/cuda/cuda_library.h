/*
 * cuda_library.h - cuBLASLt and cuDNN as candidates beside own kernels; the program runs every model
 * without them.
 *
 * Place    opened at run time by the first measurement (cuda_tune.c); asked by cuda_gemm.c where a
 *          measurement chose them.
 * Owner    a cuda device. One thread.
 * Failure  a library that is absent, too old or says no: `can` is false, or `run` gives a code that
 *          is not 0, and an own kernel does the work.
 * Source   cuBLAS documentation, "cublasLt API"; cuDNN API reference, cudnnConvolutionBiasActivationForward.
 *
 * KILN_CUBLASLT and KILN_CUDNN name other files, or none ("").
 */
#ifndef KERNELS_CUDA_CUDA_LIBRARY_H
#define KERNELS_CUDA_CUDA_LIBRARY_H

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dtype.h"

#define LIBRARY_WORKSPACE_BYTES ((size_t)32 << 20)

struct cuda_library {
    const char *name;
    /* The product in its form? Asks nothing of the device. */
    bool (*can)(const struct gemm_args *g, bool transposed, enum dtype dtype);
    /* workspace: LIBRARY_WORKSPACE_BYTES of device memory. */
    int (*run)(void *state, const struct gemm_args *g, enum dtype dtype, void *workspace,
               void *stream);
    void (*close)(void *state);
    void *state;
};

/* false: not there. */
bool cublaslt_open(struct cuda_library *library);
bool cudnn_open(struct cuda_library *library);

#endif
