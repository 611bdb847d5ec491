/*
 * cpu_transpose.h - blocks of 32-bit words turned over in registers.
 *
 * Place    packing of weights, keys and queries, and the panels of weight gradients.
 * Failure  none. Pitches in bytes; nothing need be aligned.
 */
#ifndef KERNELS_CPU_CPU_TRANSPOSE_H
#define KERNELS_CPU_CPU_TRANSPOSE_H

#include "kernels/cpu/cpu_vec.h"

/* VL by VL words, in place. Pairs of rows, then pairs of pairs within each 128 bits; then those are dealt
 * out. (Left to itself the compiler makes index vectors lane by lane, each time.) */
ALWAYS_INLINE void transpose_square(vu row[VL])
{
#if VL == 16
    __m512i pair[16], four[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_epi32((__m512i)row[i], (__m512i)row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32((__m512i)row[i], (__m512i)row[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        four[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i even = _mm512_shuffle_i32x4(four[j], four[4 + j], 0x88);
        __m512i odd = _mm512_shuffle_i32x4(four[j], four[4 + j], 0xdd);
        __m512i even2 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x88);
        __m512i odd2 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xdd);
        row[j] = (vu)_mm512_shuffle_i32x4(even, even2, 0x88);
        row[4 + j] = (vu)_mm512_shuffle_i32x4(odd, odd2, 0x88);
        row[8 + j] = (vu)_mm512_shuffle_i32x4(even, even2, 0xdd);
        row[12 + j] = (vu)_mm512_shuffle_i32x4(odd, odd2, 0xdd);
    }
#elif VL == 8
    __m256i pair[8], four[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_epi32((__m256i)row[i], (__m256i)row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_epi32((__m256i)row[i], (__m256i)row[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        four[i] = _mm256_unpacklo_epi64(pair[i], pair[i + 2]);
        four[i + 1] = _mm256_unpackhi_epi64(pair[i], pair[i + 2]);
        four[i + 2] = _mm256_unpacklo_epi64(pair[i + 1], pair[i + 3]);
        four[i + 3] = _mm256_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        row[j] = (vu)_mm256_permute2x128_si256(four[j], four[4 + j], 0x20);
        row[4 + j] = (vu)_mm256_permute2x128_si256(four[j], four[4 + j], 0x31);
    }
#else
    vu a = __builtin_shuffle(row[0], row[1], (vu){0, 4, 1, 5});
    vu b = __builtin_shuffle(row[0], row[1], (vu){2, 6, 3, 7});
    vu c = __builtin_shuffle(row[2], row[3], (vu){0, 4, 1, 5});
    vu d = __builtin_shuffle(row[2], row[3], (vu){2, 6, 3, 7});
    row[0] = __builtin_shuffle(a, c, (vu){0, 1, 4, 5});
    row[1] = __builtin_shuffle(a, c, (vu){2, 3, 6, 7});
    row[2] = __builtin_shuffle(b, d, (vu){0, 1, 4, 5});
    row[3] = __builtin_shuffle(b, d, (vu){2, 3, 6, 7});
#endif
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
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++)
                block[i] = i < height ? words_load_n(from + i * from_pitch, width) : (vu){0};
            transpose_square(block);
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++) {
                if (i >= width) break;
                vf_store_n(to + i * to_pitch, 0, DTYPE_F32, (vf)block[i], pad ? VL : height);
            }
        }
}

#endif
