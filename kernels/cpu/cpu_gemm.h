/*
 * cpu_gemm.h - the one matrix product under linear, convolution, attention and their derivatives.
 *
 * Place    called by the kernels of this folder. C[M,N] = A[M,K] . B[K,N].
 * Owner    A is gathered row by row into a panel of fixed pitch (fill_a: a copy, a convolution's
 * taps, a transpose), B comes packed (weights) or is packed slice by slice (fill_b). Panels and
 *          sums live in the worker's memory; nothing is allocated.
 * Failure  none.
 *
 * One k-step is 32 bits of A: one float, or two bfloat16 whose products are added in float. B
 * panels are [K steps][GEMM_NR] 32-bit words, zero-padded in N. A row of A takes GEMM_PITCH bytes
 * whatever its length, so that the microkernel addresses every row by a constant displacement. The
 * order of additions in one element depends on K alone: results do not depend on the thread count.
 */
#ifndef KERNELS_CPU_CPU_GEMM_H
#define KERNELS_CPU_CPU_GEMM_H

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_direct.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_unpacked.h"
#include "kernels/cpu/cpu_vec.h"

#define GEMM_NR (2 * VL)
#if VL == 16
#define GEMM_MR 14
#else
#define GEMM_MR 6
#endif
#define GEMM_STEPS 320 /* k-steps of a slice at most: a B panel is 40 KB with AVX-512 */
#define GEMM_PITCH (GEMM_STEPS * 4 + 64)
#define GEMM_MC_MAX 384 /* rows of one task */
#define GEMM_A_BYTES ((size_t)(GEMM_MC_MAX + GEMM_MR) * GEMM_PITCH)
#define GEMM_C_BYTES ((size_t)1 << 20)
#define GEMM_B_BYTES (CPU_WORKER_BYTES - GEMM_A_BYTES - GEMM_C_BYTES)

struct gemm {
    int64_t m, n, k;    /* k in elements */
    enum dtype a_dtype; /* of the panels: F32 or BF16 */
    /* rows [m0, m0+rows), elements [k0, k0+count) of A to `panel`, row pitch GEMM_PITCH; the callee
     * zeroes the odd element after a BF16 row of odd length */
    void (*fill_a)(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                   int64_t count);
    const struct direct *direct; /* rows of A lie ready: no fill_a; K in blocks of nine taps */
    /* steps of a slice, where K goes in blocks; 0: equal ones of whole cache lines */
    int64_t slice;
    bool eight; /* bytes, four a step, whole slices, B a step longer than each: cpu_int8.h */
    /* whole packed B (steps of all of K); or NULL and `file`, a weight that is packed for this call
     * into the device's panels (gemm_reserve); or NULL and fill_b: columns [n0, n0+cols), elements
     * [k0, k0+count) to panels of GEMM_NR columns, `count` steps each (F32 only) */
    const void *b;
    const struct unpacked *file;
    void (*fill_b)(const struct gemm *g, float *panels, int64_t k0, int64_t count, int64_t n0,
                   int64_t cols);
    /* 0, or the distance of each column's partner: n counts the columns that have one, all of B has 2n.
     * A multiple of GEMM_NR where B is packed whole. Not with fill_b. */
    int64_t partner;
    /* takes the finished sums of a tile: rows x cols, row pitch GEMM_NR; with partners 2 GEMM_NR, the
     * partner's sums GEMM_NR after a column's */
    void (*store)(const struct gemm *g, const float *tile, int64_t m0, int64_t rows, int64_t n0,
                  int64_t cols);
    const void *context;
};

/* Of the panels for activations of a dtype: bfloat16 only where an instruction multiplies it. Elsewhere taking
 * words apart costs half as much as the products, so both operands are widened as they are packed. */
ALWAYS_INLINE enum dtype panel_dtype(enum dtype activations)
{
#if defined(__AVX512BF16__)
    return activations;
#else
    return DTYPE_F32;
#endif
}

/* One k-step of two bfloat16 a lane: c += a . b */
#if VL == 16 && defined(__AVX512BF16__)
ALWAYS_INLINE vf gemm_step_bf16(vf c, vu a, vu b)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}
#else
/* The earlier element sits in the lower half. */
ALWAYS_INLINE vf gemm_step_bf16(vf c, vu a, vu b)
{
    c += (vf)(a << 16) * (vf)(b << 16);
    return c + (vf)(a & 0xffff0000u) * (vf)(b & 0xffff0000u);
}
#endif

/* bytes of packed B for k x n */
size_t CPU_NAME(gemm_packed_bytes)(int64_t k, int64_t n, enum dtype dtype);
/* Makes room to pack a weight of k x n for a call, a range of columns at a time where it is large. */
int CPU_NAME(gemm_reserve)(struct device *d, int64_t k, int64_t n, enum dtype dtype,
                           struct error *err);
/* Packs a weight of k x n whole, for good: gemm_packed_bytes at `to`. */
void CPU_NAME(gemm_pack)(struct device *d, void *to, const struct unpacked *file, int64_t k,
                         int64_t n, enum dtype dtype);
void CPU_NAME(gemm_run)(struct device *d, const struct gemm *g);
#define gemm_packed_bytes CPU_NAME(gemm_packed_bytes)
#define gemm_reserve CPU_NAME(gemm_reserve)
#define gemm_pack CPU_NAME(gemm_pack)
#define gemm_run CPU_NAME(gemm_run)

/* c[rows, cols] (+)= A . B for one tile; rows <= GEMM_MR, cols <= GEMM_NR, a with GEMM_PITCH, ldc
 * in floats. Columns past `cols` up to the next vector are written too. */
void CPU_NAME(gemm_tile)(float *c, int64_t ldc, const void *a, const void *b, int64_t steps,
                         int64_t rows, int64_t cols, enum dtype dtype, bool accumulate);
#define gemm_tile CPU_NAME(gemm_tile)

#endif
