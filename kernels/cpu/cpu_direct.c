#include "kernels/cpu/cpu_direct.h"

#include "kernels/cpu/cpu_gemm.h"

#define TAPS 9
#define PITCH 256 /* bytes of a pixel, the microkernel's displacement */

#if VL == 16 && defined(__AVX512BF16__)

bool direct_suits(int64_t channels, int64_t out, enum dtype dtype)
{
    /* with more outputs a panel that is gathered once pays; 512 bytes apart rows gain nothing */
    return dtype == DTYPE_BF16 && channels * 2 == PITCH && out <= 128;
}

/* cpu_gemm.c's microkernel with another pitch; a run of a tap's steps lies together. */
ALWAYS_INLINE void micro(const int mr, const int nv, float *restrict c, int64_t ldc,
                         const char *restrict a, int64_t line_bytes, const char *restrict b,
                         int64_t blocks, bool accumulate)
{
    vf acc[GEMM_MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[i][v] = (vf){0};
    for (int64_t block = 0; block < blocks; block++, a += UNPACKED_RUN * 4)
        for (int tap = 0; tap < TAPS; tap++) {
            const char *from = a + tap / 3 * line_bytes + tap % 3 * PITCH;
#pragma GCC unroll 1
            for (int s = 0; s < UNPACKED_RUN; s++) {
                vf bv[2];
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++) bv[v] = *(const vf *)(b + (size_t)v * VL * 4);
#pragma GCC unroll 16
                for (int i = 0; i < mr; i++) {
                    vu av = (vu){0} + *(const uint32_t *)(from + i * PITCH);
#pragma GCC unroll 2
                    for (int v = 0; v < nv; v++)
                        acc[i][v] = gemm_step_bf16(acc[i][v], av, (vu)bv[v]);
                }
                from += 4;
                b += GEMM_NR * 4;
            }
        }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            vf *to = (vf *)(c + i * ldc + v * VL);
            if (accumulate) acc[i][v] += *to;
            *to = acc[i][v];
        }
}

#define MICRO(mr, nv)                                                                              \
    static void micro_##mr##_##nv(float *c, int64_t ldc, const char *a, int64_t line_bytes,        \
                                  const char *b, int64_t blocks, bool accumulate)                  \
    {                                                                                              \
        micro(mr, nv, c, ldc, a, line_bytes, b, blocks, accumulate);                               \
    }
#define ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define MICRO_ROW(mr) MICRO(mr, 1) MICRO(mr, 2)
ROWS(MICRO_ROW)

typedef void (*micro_function)(float *, int64_t, const char *, int64_t, const char *, int64_t,
                               bool);
#define ENTRY(mr) {micro_##mr##_1, micro_##mr##_2},
static const micro_function micro_table[GEMM_MR][2] = {ROWS(ENTRY)};

void direct_tile(float *c, int64_t ldc, const struct direct *d, int64_t m, int64_t block,
                 const void *b, int64_t blocks, int64_t rows, int64_t cols, bool accumulate)
{
    const int64_t line_bytes = (d->line + 2) * d->pixel_bytes;
    const char *a = d->data + m / d->line * line_bytes + m % d->line * d->pixel_bytes +
                    block * UNPACKED_RUN * 4;
    micro_table[rows - 1][cols > VL](c, ldc, a, line_bytes, b, blocks, accumulate);
}

#else

bool direct_suits(int64_t channels, int64_t out, enum dtype dtype)
{
    return false;
}

void direct_tile(float *c, int64_t ldc, const struct direct *d, int64_t m, int64_t block,
                 const void *b, int64_t blocks, int64_t rows, int64_t cols, bool accumulate)
{
}

#endif
