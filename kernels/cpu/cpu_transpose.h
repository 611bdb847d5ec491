/*
 * cpu_transpose.h - blocks of 32-bit words turned over in registers.
 *
 * Place    packing of weights, keys and queries, and the panels of weight gradients.
 * Failure  none. Pitches in bytes; nothing need be aligned.
 */
#ifndef KERNELS_CPU_CPU_TRANSPOSE_H
#define KERNELS_CPU_CPU_TRANSPOSE_H

#include "kernels/cpu/cpu_vec.h"

/* VL by VL words, in place: log2(VL) rounds of exchanges between rows that lie m apart. */
ALWAYS_INLINE void transpose_square(vu row[VL])
{
#pragma GCC unroll 4
    for (int m = VL / 2; m > 0; m /= 2) {
        vu low, high;
#pragma GCC unroll 16
        for (int l = 0; l < VL; l++) {
            low[l] = (uint32_t)((l & m) ? VL + l - m : l);
            high[l] = (uint32_t)((l & m) ? VL + l : l + m);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            if (i & m) continue;
            vu a = row[i], b = row[i + m];
            row[i] = __builtin_shuffle(a, b, low);
            row[i + m] = __builtin_shuffle(a, b, high);
        }
    }
}

ALWAYS_INLINE vu words_load_n(const char *from, int n)
{
    return (vu)vf_load_n(from, 0, DTYPE_F32, n);
}

/* Word (c, r) of `to` = word (r, c) of `from` for r < rows, c < cols. With `pad`, words of `to` past
 * `rows` up to the next multiple of VL are zeroed (its pitch must have room). */
ALWAYS_INLINE void transpose_words(void *to_words, int64_t to_pitch, const void *from_words,
                                   int64_t from_pitch, int64_t rows, int64_t cols, bool pad)
{
    for (int64_t r = 0; r < rows; r += VL)
        for (int64_t c = 0; c < cols; c += VL) {
            const char *from = (const char *)from_words + r * from_pitch + c * 4;
            char *to = (char *)to_words + c * to_pitch + r * 4;
            int height = rows - r < VL ? (int)(rows - r) : VL;
            int width = cols - c < VL ? (int)(cols - c) : VL;
            vu block[VL];
            if (height == VL && width == VL) {
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++) block[i] = *(const vu *)(from + i * from_pitch);
                transpose_square(block);
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++) *(vu *)(to + i * to_pitch) = block[i];
                continue;
            }
            for (int i = 0; i < VL; i++)
                block[i] = i < height ? words_load_n(from + i * from_pitch, width) : (vu){0};
            transpose_square(block);
            for (int i = 0; i < width; i++)
                vf_store_n(to + i * to_pitch, 0, DTYPE_F32, (vf)block[i], pad ? VL : height);
        }
}

#endif
