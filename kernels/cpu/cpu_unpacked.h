/*
 * cpu_unpacked.h - a weight as the checkpoint has it, made into panels for each call.
 *
 * Place    between cpu_pack, which decides, and cpu_gemm, which packs a weight, or as many of its
 *          columns as the last cache holds, into the device's panels before it multiplies. So a
 *          mapped file serves forward and backward without a second copy, and loading is mapping.
 *          Costs 0.1 ns an element, 2 to 3 % of a step.
 * Owner    `data` is the weight's.
 * Failure  none; unpacked_suits says what is possible.
 *
 * Order of K. A linear's is the file's. A convolution's rows are [channel][tap], and products want
 * taps in runs, so K goes in blocks of 16 steps a tap: [block][tap][16 steps], a step being a float
 * or two bfloat16.
 */
#ifndef KERNELS_CPU_CPU_UNPACKED_H
#define KERNELS_CPU_CPU_UNPACKED_H

#include "kernels/cpu/cpu_packed.h"
#include "kernels/cpu/cpu_vec.h"
#include "kernels/kernels.h"

#define UNPACKED_RUN 16 /* steps of one tap in a block */
#define UNPACKED_TAPS_MAX 16

struct unpacked {
    const void *data; /* [out][c][taps]; NULL: not in use */
    enum dtype dtype;
    int64_t out, c, taps;
    bool backward; /* B[tap, o][channel], taps turned round, instead of B[channel, tap][o] */
};

/* Whether panels of `dtype` (F32, BF16) are made of this weight call by call: its counts are whole
 * blocks, and a packed form would not be smaller or much faster to make products with. The forms of
 * derivatives and of weights that change are never kept where this can be helped. */
bool CPU_NAME(unpacked_suits)(const struct kernel_weight *w, struct pack_shape shape,
                              enum pack_form form, enum dtype dtype);
/* Steps [step, step+steps) of columns [n0, n0+cols) into GEMM_NR columns, those past cols zero.
 * With more than one tap both are whole blocks. */
void CPU_NAME(unpacked_panel)(const struct unpacked *u, void *panel, enum dtype dtype, int64_t step,
                              int64_t steps, int64_t n0, int64_t cols);
#define unpacked_suits CPU_NAME(unpacked_suits)
#define unpacked_panel CPU_NAME(unpacked_panel)

#endif
