/*
 * wrap.h - the words kernels are written in: every instruction that is not plain C++.
 *
 * Place    included by each kernel source; no other file holds PTX. wrap_gpu.h has the
 *          instructions, emulator/wrap_emulated.h the same words for the host.
 * Source   PTX ISA 8.x, sections "Warp-level matrix instructions" (ldmatrix, mma fragments) and
 *          "Asynchronous copy". sm_75 has no cp.async and no m16n8k16: the words are composed
 * there.
 *
 * Kernels use one-dimensional blocks, one dynamic shared buffer addressed by 32-bit shared
 * addresses, full warps in every collective, and no floating-point atomics.
 *
 *   thread_index block_x block_y block_z grid_x        where am I
 *   shared_base shared_load<V> shared_store            shared memory, V of 2, 4, 8 or 16 bytes
 *   global_load<V> global_store                        device memory, naturally aligned V
 *   copy_async copy_commit copy_wait<N>                16 bytes global -> shared, zero when !valid
 *   block_sync warp_sync                               barriers
 *   matrix_load4 matrix_load4_transposed matrix_load2  ldmatrix
 *   mma<T> mma_k8<T> mma_half                          m16n8k16, m16n8k8, fp16 accumulation
 *   shuffle_xor shuffle                                warp shuffles of floats
 *   exp2_fast reciprocal_root                          approximate on the GPU
 *   pack<T> unpack<T> to_float to_storage<T>           storage types f16, bf16, float
 */
#ifndef KERNELS_CUDA_WRAP_H
#define KERNELS_CUDA_WRAP_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t shared_t; /* address in shared memory, bytes */

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};
struct alignas(4) word2 { /* two 16-bit elements */
    uint16_t half[2];
};
struct alignas(8) word8 {
    uint32_t word[2];
};
struct alignas(16) word16 {
    uint32_t word[4];
};

#ifdef KILN_EMULATED
#include "kernels/cuda/emulator/wrap_emulated.h"
#else
#include "kernels/cuda/wrap_gpu.h"
#endif

template <class T> struct storage {
    static constexpr int per16 = 16 / (int)sizeof(T); /* elements in a 16-byte chunk */
};

/* Elements of a 16-byte chunk as floats, and back. */
template <class T> DEVICE void chunk_unpack(float *out, const word16 &chunk)
{
    if constexpr (sizeof(T) == 4) {
        UNROLL
        for (int i = 0; i < 4; i++) out[i] = bits_to_float(chunk.word[i]);
    } else {
        UNROLL
        for (int i = 0; i < 4; i++) unpack<T>(chunk.word[i], out[2 * i], out[2 * i + 1]);
    }
}

template <class T> DEVICE word16 chunk_pack(const float *in)
{
    word16 chunk;
    if constexpr (sizeof(T) == 4) {
        UNROLL
        for (int i = 0; i < 4; i++) chunk.word[i] = float_to_bits(in[i]);
    } else {
        UNROLL
        for (int i = 0; i < 4; i++) chunk.word[i] = pack<T>(in[2 * i], in[2 * i + 1]);
    }
    return chunk;
}

/* Sum and maximum over the 32 lanes, the same bits in every lane. */
DEVICE float warp_sum(float v)
{
    UNROLL
    for (int mask = 16; mask; mask >>= 1) v += shuffle_xor(v, mask);
    return v;
}

DEVICE float warp_max(float v)
{
    UNROLL
    for (int mask = 16; mask; mask >>= 1) v = fmaxf(v, shuffle_xor(v, mask));
    return v;
}

#endif
