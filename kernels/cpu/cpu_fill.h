/*
 * cpu_fill.h - plain matrices into the panels of cpu_gemm.
 *
 * Place    fill_a and fill_b of linear, convolution and attention. `context` of the gemm begins
 *          with a struct matrix where fill_rows and fill_transposed are used.
 * Failure  none.
 */
#ifndef KERNELS_CPU_CPU_FILL_H
#define KERNELS_CPU_CPU_FILL_H

#include "kernels/cpu/cpu_gemm.h"

struct matrix {
    const void *data;
    int64_t ld;
    enum dtype dtype;
};

/* Rows are short and many: the tail is a vector that overlaps the one before, never a call. */
ALWAYS_INLINE void copy_elements(char *to, const char *from, int64_t bytes)
{
    const int64_t step = VL * 4;
    int64_t i = 0;
    for (; i + step <= bytes; i += step) *(vf *)(to + i) = *(const vf *)(from + i);
    if (i == bytes) return;
    if (bytes >= step) {
        *(vf *)(to + bytes - step) = *(const vf *)(from + bytes - step);
        return;
    }
#if VL == 16
    __mmask64 mask = ((uint64_t)1 << bytes) - 1;
    _mm512_mask_storeu_epi8(to, mask, _mm512_maskz_loadu_epi8(mask, from));
#else
    memcpy(to, from, (size_t)bytes);
#endif
}

ALWAYS_INLINE void widen_elements(float *to, const uint16_t *from, int64_t count)
{
    FOR_VECTORS(i, count, vf_store(to, i, DTYPE_F32, vf_load(from, i, DTYPE_BF16)),
                vf_store_n(to, i, DTYPE_F32, vf_load_n(from, i, DTYPE_BF16, lanes), lanes));
}

/* A = x: rows are rows. Panel dtype g->a_dtype equals or widens the matrix's. */
void CPU_NAME(fill_rows)(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                         int64_t count);
/* A = x^T, F32 panels: row m of A is column m of x. */
void CPU_NAME(fill_transposed)(const struct gemm *g, void *panel, int64_t m0, int64_t rows,
                               int64_t k0, int64_t count);
/* B = x, F32 panels: row k of B is row k of x. */
void CPU_NAME(fill_panels)(const struct matrix *x, float *panels, int64_t k0, int64_t count,
                           int64_t n0, int64_t cols);
#define fill_rows CPU_NAME(fill_rows)
#define fill_transposed CPU_NAME(fill_transposed)
#define fill_panels CPU_NAME(fill_panels)

/* One source row of B, `cols` elements, into panels of `count` steps at step `k`. */
ALWAYS_INLINE void panel_row(float *panels, int64_t count, int64_t k, const void *row, int64_t cols,
                             const enum dtype t)
{
    for (int64_t n = 0; n < cols; n += GEMM_NR) {
        float *to = panels + n * count + k * GEMM_NR;
        if (n + GEMM_NR <= cols) {
            *(vf *)to = vf_load(row, n, t);
            *(vf *)(to + VL) = vf_load(row, n + VL, t);
        } else {
            for (int64_t i = 0; i < GEMM_NR; i++) to[i] = n + i < cols ? f_load(row, n + i, t) : 0;
        }
    }
}

#endif
