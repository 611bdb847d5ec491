/* chunk.h - up to 16 bytes of neighbouring elements at a time, as floats; whole and aligned chunks
 * go as one access, others element by element. */
#ifndef KERNELS_CUDA_CHUNK_H
#define KERNELS_CUDA_CHUNK_H

#include "kernels/cuda/wrap.h"

template <class T> struct chunk {
    static constexpr int width = 16 / (int)sizeof(T);
    float v[width];

    /* `live` elements exist (the others become zero); `whole`: all of them, and p is aligned */
    DEVICE void load(const T *p, int live, bool whole)
    {
        if (whole) {
            chunk_unpack<T>(v, global_load<word16>(p));
            return;
        }
        UNROLL
        for (int i = 0; i < width; i++) v[i] = i < live ? to_float(global_load<T>(p + i)) : 0.0f;
    }
    DEVICE void store(T *p, int live, bool whole) const
    {
        if (whole) {
            global_store(p, chunk_pack<T>(v));
            return;
        }
        UNROLL
        for (int i = 0; i < width; i++)
            if (i < live) global_store(p + i, to_storage<T>(v[i]));
    }
};

DEVICE bool is_aligned(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

#endif
