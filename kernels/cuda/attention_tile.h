/*
 * attention_tile.h - tiles of Q, K, V and dy in shared memory and the two products on them.
 *
 * A tile is ROWS token rows of one head, D columns (columns beyond the head's own size are zero).
 * Rows are an odd number of 16-byte chunks apart, so that ldmatrix meets no bank conflict.
 */
#ifndef KERNELS_CUDA_ATTENTION_TILE_H
#define KERNELS_CUDA_ATTENTION_TILE_H

#include "kernels/cuda/wrap.h"

template <int D> struct tile {
    static constexpr int chunks = D / 8;
    static constexpr int pitch = (chunks | 1) * 16; /* bytes */
    static constexpr int steps = D / 16;            /* of k16 */
    static constexpr bool half_step = D % 16 != 0;  /* and one of k8 */
    static_assert(D % 8 == 0, "whole chunks");
};

/* Asks for rows first..first + ROWS - 1 of a head: zero beyond `rows` and beyond column d. ALIGNED: rows
 * begin at 16 bytes and d is a multiple of 8; else they are copied element by element, at once. */
template <class T, int D, int ROWS, int THREADS, bool ALIGNED>
DEVICE void tile_fetch(shared_t to, const T *head, int64_t pitch, int first, int rows, int d)
{
    constexpr int count = ROWS * tile<D>::chunks, each = (count + THREADS - 1) / THREADS;
    /* addresses of copies ahead are the registers that a head of 160 has not got */
    [[maybe_unused]] constexpr int ahead = D > 128 ? 1 : each;
    UNROLL_COPIES(ahead)
    for (int i = 0; i < each; i++) {
        int index = thread_index() + i * THREADS;
        if (count % THREADS != 0 && index >= count) break;
        int row = index / tile<D>::chunks, chunk = index % tile<D>::chunks;
        bool live = first + row < rows && 8 * chunk < d;
        const T *from = live ? head + (first + row) * pitch + 8 * chunk : head;
        const shared_t cell = to + row * tile<D>::pitch + 16 * chunk;
        if constexpr (ALIGNED) {
            copy_async(cell, from, live);
        } else {
            word16 v = {{0, 0, 0, 0}};
            UNROLL
            for (int e = 0; e < 8; e++) {
                uint32_t bits = live && 8 * chunk + e < d ? global_load<T>(from + e).bits : 0;
                v.word[e / 2] |= bits << (16 * (e % 2));
            }
            shared_store(cell, v);
        }
    }
}

/* The A fragments of 16 rows. */
template <int D> struct fragment {
    uint32_t full[tile<D>::steps ? tile<D>::steps : 1][4];
    uint32_t half[2];

    DEVICE void load(shared_t rows)
    {
        const int lane = thread_index() % 32;
        const shared_t at = rows + (lane % 16) * tile<D>::pitch + lane / 16 * 16;
        UNROLL
        for (int i = 0; i < tile<D>::steps; i++) matrix_load4(full[i], at + 32 * i);
        if constexpr (tile<D>::half_step)
            matrix_load2(half, rows + (lane % 16) * tile<D>::pitch + 32 * tile<D>::steps);
    }
};

/* c[N / 8] (16 x N) += A (16 x D) . tile^T, N rows of the tile as columns */
template <class T, int D, int N>
DEVICE void multiply_rows(float (*c)[4], const fragment<D> &a, shared_t rows)
{
    static_assert(N % 16 == 0, "pairs of n8 tiles");
    const int lane = thread_index() % 32;
    const shared_t at = rows + (lane % 8 + lane / 16 * 8) * tile<D>::pitch + lane / 8 % 2 * 16;
    UNROLL
    for (int i = 0; i < tile<D>::steps; i++) {
        UNROLL
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[4];
            matrix_load4(b, at + 16 * j * tile<D>::pitch + 32 * i);
            mma<T>(c[2 * j], a.full[i], b);
            mma<T>(c[2 * j + 1], a.full[i], b + 2);
        }
    }
    if constexpr (tile<D>::half_step) {
        UNROLL
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[2];
            matrix_load2(b, rows + (16 * j + lane % 16) * tile<D>::pitch + 32 * tile<D>::steps);
            mma_k8<T>(c[2 * j], a.half, b);
            mma_k8<T>(c[2 * j + 1], a.half, b + 1);
        }
    }
}

/* c[D / 8] (16 x D) += A (16 x N, already in fp32 accumulators, rounded to T) . tile (N x D) */
template <class T, int D, int N>
DEVICE void multiply_columns(float (*c)[4], const float (*a)[4], shared_t rows)
{
    const int lane = thread_index() % 32;
    const shared_t at = rows + (lane % 16) * tile<D>::pitch + lane / 16 * 16;
    UNROLL
    for (int i = 0; i < N / 16; i++) {
        uint32_t fa[4] = {pack<T>(a[2 * i][0], a[2 * i][1]), pack<T>(a[2 * i][2], a[2 * i][3]),
                          pack<T>(a[2 * i + 1][0], a[2 * i + 1][1]),
                          pack<T>(a[2 * i + 1][2], a[2 * i + 1][3])};
        UNROLL
        for (int j = 0; j < D / 16; j++) {
            uint32_t b[4];
            matrix_load4_transposed(b, at + 16 * i * tile<D>::pitch + 32 * j);
            mma<T>(c[2 * j], fa, b);
            mma<T>(c[2 * j + 1], fa, b + 2);
        }
        if constexpr (tile<D>::half_step) {
            uint32_t b[2];
            matrix_load2_transposed(b, rows + (16 * i + lane % 16) * tile<D>::pitch +
                                           16 * (tile<D>::chunks - 1));
            mma<T>(c[D / 8 - 1], fa, b);
        }
    }
}

/* The four lanes that share a row of an accumulator. */
DEVICE float quad_sum(float v)
{
    v += shuffle_xor(v, 1);
    return v + shuffle_xor(v, 2);
}
DEVICE float quad_max(float v)
{
    v = fmaxf(v, shuffle_xor(v, 1));
    return fmaxf(v, shuffle_xor(v, 2));
}

/* Writes 16 rows of accumulators (times `factor` of each row half) where rows and columns exist. */
template <class T, int D>
DEVICE void store_rows(T *head, int64_t pitch, int first, int rows, int d, const float (*c)[4],
                       const float *factor, bool accumulate)
{
    const int lane = thread_index() % 32;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = first + lane / 4 + 8 * half;
        if (row >= rows) continue;
        UNROLL
        for (int j = 0; j < D / 8; j++) {
            const int column = 8 * j + lane % 4 * 2;
            if (column >= d) continue;
            T *to = head + row * pitch + column;
            float a = c[j][2 * half] * factor[half], b = c[j][2 * half + 1] * factor[half];
            if (accumulate) {
                float x, y;
                unpack<T>(global_load<uint32_t>(to), x, y);
                a += x, b += y;
            }
            global_store(to, pack<T>(a, b));
        }
    }
}

#define ATTENTION_LOG2E 1.44269504f
#define ATTENTION_LN2 0.69314718f

#endif
