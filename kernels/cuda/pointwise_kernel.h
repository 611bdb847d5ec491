/*
 * pointwise_kernel.h - what the kernels that are bound by memory share: a thread an item, 16 bytes a
 *                      thread where the data allows.
 *
 * Place    pointwise.cu, rearrange.cu, reduce.cu.
 * Owner    nothing of its own.
 * Failure  as pointwise.h.
 */
#ifndef KERNELS_CUDA_POINTWISE_KERNEL_H
#define KERNELS_CUDA_POINTWISE_KERNEL_H

#include "kernels/cuda/pointwise.h"

#include "kernels/cuda/activation.h"
#include "kernels/cuda/chunk.h"
#include "kernels/cuda/wrap.h"

static constexpr int block_threads = 256;

static inline dim3 blocks_for(int64_t items)
{
    return dim3((unsigned)((items + block_threads - 1) / block_threads));
}

DEVICE int64_t item()
{
    return (int64_t)block_x() * block_threads + thread_index();
}

/* launch<kernel<T>>(...) for the storage type of `dtype` */
#define BY_DTYPE(dtype, kernel, name, grid, stream, args)                                          \
    ((dtype) == DTYPE_F32   ? launch<kernel<float>>(name, grid, block_threads, 0, stream, args)    \
     : (dtype) == DTYPE_F16 ? launch<kernel<f16>>(name, grid, block_threads, 0, stream, args)      \
                            : launch<kernel<bf16>>(name, grid, block_threads, 0, stream, args))

static inline int64_t chunks_of(int64_t count, enum dtype dtype)
{
    int width = dtype == DTYPE_F32 ? 4 : 8;
    return (count + width - 1) / width;
}

/* Where a thread's chunk lies in an array of `count` elements. */
template <class T> struct span {
    int64_t at;
    int live;
    bool full;

    DEVICE span(int64_t count)
    {
        at = item() * chunk<T>::width;
        int64_t left = count - at;
        live = left < chunk<T>::width ? (int)left : chunk<T>::width;
        full = live == chunk<T>::width;
    }
};

#endif
