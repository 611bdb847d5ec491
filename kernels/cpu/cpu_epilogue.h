/*
 * cpu_epilogue.h - what follows the sums of a linear or convolution, tile by tile.
 *
 * Place    `store` of cpu_gemm.h for cpu_linear and cpu_conv.
 * Failure  none. Formula: struct epilogue_args in kernels.h.
 */
#ifndef KERNELS_CPU_CPU_EPILOGUE_H
#define KERNELS_CPU_CPU_EPILOGUE_H

#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_math.h"

struct epilogue {
    void *y;
    int64_t ldy, n;
    enum dtype dtype;
    const float *bias; /* NULL: none */
    const void *row;
    int64_t rows_per_image;
    const void *add; /* pitch ldy */
    enum activation act;
    bool accumulate; /* y += instead (derivatives) */
    /* A phase of an enlarged picture: sum row m is pixel (2y + py, 2x + px) of a picture of
     * 2 phase_h by 2 phase_w. phase_w 0: row m is row m. */
    int64_t phase_h, phase_w;
    int phase_y, phase_x;
};

/* Converts the bias into call scratch; `extra` scratch bytes are reserved beside it. */
int CPU_NAME(epilogue_start)(struct epilogue *e, struct device *d, const struct epilogue_args *a,
                             int64_t n, size_t extra, struct error *err);
void CPU_NAME(epilogue_store)(const struct epilogue *e, const float *tile, int64_t m0, int64_t rows,
                              int64_t n0, int64_t cols);
/* y = value * gelu(gate), each with its bias: `store` where columns have partners (cpu_gemm.h), the gates
 * `partner` columns after the values. */
void CPU_NAME(epilogue_store_geglu)(const struct epilogue *e, int64_t partner, const float *tile,
                                    int64_t m0, int64_t rows, int64_t n0, int64_t cols);
#define epilogue_start CPU_NAME(epilogue_start)
#define epilogue_store CPU_NAME(epilogue_store)
#define epilogue_store_geglu CPU_NAME(epilogue_store_geglu)

#endif
