/*
 * cpu_int8.h - products of 8 bits (VNNI), for weights that allow it.
 *
 * Place    cpu_linear and cpu_conv ask int8_suits first; never without kernel_weight.eight_bits.
 * Owner    the weight keeps its rounded form (PACK_INT8), a byte an element; of the file nothing else is
 *          read again.
 * Failure  ERR_NO_MEMORY; ERR_UNSUPPORTED for a weight dtype that is no float.
 * Source   affine quantisation, Jacob et al. 2018 (arXiv:1712.05877), eq. 1 and 7.
 *
 * A weight's row o is s_o w, w in -127..127, s_o its largest magnitude / 127. What it is multiplied with is rounded
 * for each call: the channels of a pixel or token, in parts of at most INT8_PART, are t (u - z), u in 0..255, t
 * a 255th of the part's span with zero in it. A part of one tap is a slice of K:
 *     y[m,o] = s_o * sum over slices of t (sum of u w - z * sum of w)
 * The inner sums are exact integers, on every instruction set the same; the outer ones are floats in
 * the order of slices.
 */
#ifndef KERNELS_CPU_CPU_INT8_H
#define KERNELS_CPU_CPU_INT8_H

#include "kernels/cpu/cpu_gemm.h"
#include "kernels/kernels.h"

#define INT8_PART 1152 /* at most GEMM_STEPS * 4; the parts are what rounding depends on */

/* Behind a row's bytes in a panel of A. */
struct int8_row {
    float scale;
    int32_t zero;
};

/* `inner`: channels, or a linear's width */
static inline bool int8_suits(const struct kernel_weight *w, int64_t inner)
{
    return w->eight_bits && !w->changes && inner % 4 == 0;
}

int CPU_NAME(int8_linear)(struct device *d, const struct linear_args *a, struct error *err);
/* Where both halves are whole panels. */
int CPU_NAME(int8_linear_geglu)(struct device *d, const struct linear_args *a, struct error *err);
/* Not of enlarged pictures. */
int CPU_NAME(int8_conv2d)(struct device *d, const struct conv2d_args *a, struct error *err);
/* gemm_tile of one slice: b has `steps` steps of four bytes a column and the columns' sums behind them. */
void CPU_NAME(int8_tile)(float *c, int64_t ldc, const void *a, const void *b, int64_t steps,
                         int64_t rows, int64_t cols, bool accumulate);
#define int8_linear CPU_NAME(int8_linear)
#define int8_linear_geglu CPU_NAME(int8_linear_geglu)
#define int8_conv2d CPU_NAME(int8_conv2d)
#define int8_tile CPU_NAME(int8_tile)

#endif
