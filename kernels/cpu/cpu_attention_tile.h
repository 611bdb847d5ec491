/*
 * cpu_attention_tile.h - the microkernels of attention: a tile of scores that becomes P before it leaves the
 * registers, and P times values.
 *
 * Place    cpu_attention.c packs the operands and walks over them.
 * Owner    the caller's memory.
 * Failure  none.
 *
 * A tile is `rows` (at most GEMM_MR) rows of A by GEMM_NR queries, a lane a query. A is packed
 * [steps][rows] words, B [steps][GEMM_NR] words; a word is a float or two bfloat16.
 */
#ifndef KERNELS_CPU_CPU_ATTENTION_TILE_H
#define KERNELS_CPU_CPU_ATTENTION_TILE_H

#include "kernels/cpu/cpu_gemm.h"

#define ATTENTION_MASKED -1e30f

struct soft {
    float factor, rest; /* of the scores: scale log2(e), and what a float of it lacks */
    vf top[2];          /* what P = 2^(factor s - top) takes off; near the maximum or at it */
    vf sum[2];          /* of P so far */
    bool find_top;      /* the next tile's maxima become `top` */
    bool odd;           /* the next tile's last row is no key */
    enum dtype dtype;   /* of A, B and P */
    bool rough;         /* P to 1e-4: it is rounded to bfloat16 and its sum is not wanted exactly */
};

/* The power of two that a score stands for, less top. The rest counts where a sum is wanted exactly: lse
 * would otherwise be off by as much as its own rounding. */
ALWAYS_INLINE vf soft_power(const struct soft *s, vf score, vf top, const bool rough)
{
    return rough ? score * s->factor - top : score * s->factor + (score * s->rest - top);
}

/* c[rows][GEMM_NR] = A . B, or += */
void CPU_NAME(attention_product)(float *c, const char *a, const char *b, int64_t rows,
                                 int64_t steps, enum dtype dtype, bool accumulate);
/* Rows are keys, an even number. Their P goes to `p` as [rows] floats or [rows / 2] pairs across. */
void CPU_NAME(attention_soften)(struct soft *s, char *p, const char *a, const char *b, int64_t rows,
                                int64_t steps);
#define attention_product CPU_NAME(attention_product)
#define attention_soften CPU_NAME(attention_soften)

/* Two rows of P as pairs of bfloat16, the earlier key in the lower half. */
ALWAYS_INLINE vu pair_words(vf first, vf second)
{
#if VL == 16 && defined(__AVX512BF16__)
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (vu)_mm512_permutexvar_epi16(order, both);
#else
    return (((vu)first + 0x8000) >> 16) | (((vu)second + 0x8000) & 0xffff0000u);
#endif
}

#endif
