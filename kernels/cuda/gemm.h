/*
 * gemm.h - matrix products whose left rows are gathered from a picture: linear, convolution and
 *          their data gradients are one kernel.
 *
 * Place    between the host side (cuda_linear.c, cuda_conv2d.c) and the kernels. Plain C structs.
 * Owner    arguments are copied at the launch.
 * Failure  launchers return a CUDA error number; shapes are the caller's duty (see gemm_fits).
 *
 *     y[m, n] = epilogue( sum over taps t and channels c of  a[source(m, t), c] * b(n, t, c) )
 *
 * Row m is output pixel (image, oy, ox). Tap (ty, tx) reads the virtual pixel
 *     vy = oy * step + y_from + sign * ty      (same for x)
 * wrapped when circular; it reads zero when outside [0, limit) or when vy & mask is not 0, and the
 * real pixel is vy >> shift. So forward: step = stride, sign 1; folded nearest enlargement: shift
 * 1; data gradient of stride 2: sign -1, mask 1, shift 1.
 * b: row n holds k = (tap, channel) contiguously (b_pitch apart), or, transposed, row k is
 * channel * b_pitch + tap * b_tap and n is contiguous.
 * phases 4: nearest enlargement + 3x3 as four 2x2 convolutions with summed taps (b_phase apart);
 * phase (p, q) writes output pixels (2 oy + p, 2 ox + q).
 */
#ifndef KERNELS_CUDA_GEMM_H
#define KERNELS_CUDA_GEMM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gemm_source {
    const void *a;
    int64_t pixel_pitch, image_pitch; /* elements */
    int image_rows, row_px;           /* output pixels of an image, of one of its lines */
    int source_px;                    /* real pixels in a line of the source */
    int limit_h, limit_w, shift, mask;
    int step, sign, y_from, x_from;
    int taps_h, taps_w, c;
    int circular;
};

struct gemm_epilogue {
    const void *bias;
    int bias_dtype;  /* enum dtype: F32, F16 or BF16 */
    const void *row; /* [images, n], y's dtype */
    int64_t rows_per_image, row_pitch;
    int act;                /* enum activation */
    const float *row_scale; /* [m] factors on z, or NULL */
    const void *add;        /* y's dtype and pitch, or y */
    int geglu; /* columns come in blocks of 8 values and 8 gates; y has n / 2 columns */
};

struct gemm_args {
    struct gemm_source source;
    const void *b;
    int64_t b_pitch, b_tap, b_phase;
    int b_rows; /* transposed form: rows of b from this one on do not exist and read zero */
    int m, n, k;
    int phases;      /* 1 or 4 */
    int splits;      /* of k; more than 1 needs `partial` */
    int k_per_split; /* a multiple of the K slice (32) */
    void *y;         /* NULL with partial: the sums stay there, F32 [m][n_pitch] */
    int64_t y_pitch;
    float *partial;   /* [phases * splits][m][n_pitch], n_pitch = n rounded up to even */
    int keep_scratch; /* host side: the operands are in scratch, so no split */
    struct gemm_epilogue epilogue;
};

enum gemm_tile {
    GEMM_128X160,
    GEMM_64X160,
    GEMM_128X128,
    GEMM_128X80,
    GEMM_64X80,
    GEMM_WGMMA_256X160, /* from here on: compute capability 9.0, gemm_wgmma.h */
    GEMM_WGMMA_128X160,
    GEMM_WGMMA_256X128,
    GEMM_WGMMA_128X128,
    GEMM_TILE_COUNT,
    GEMM_FIRST_WGMMA = GEMM_WGMMA_256X160
};

struct gemm_tile_shape {
    int m, n, threads, shared_bytes;
    int takes_geglu, has_transposed;
    int wgmma; /* of gemm_wgmma.h */
};
struct gemm_tile_shape gemm_tile_shape(enum gemm_tile tile, int transposed);

/* The tensor-core kernels. fp16 and bf16 storage, fp32 accumulation. */
int gemm_f16(enum gemm_tile tile, int transposed, const struct gemm_args *args, void *stream);
int gemm_bf16(enum gemm_tile tile, int transposed, const struct gemm_args *args, void *stream);

/* fp16 with sums of 32 products in fp16: twice the rate on GeForce cards, a mode of its own. */
int gemm_f16_half(enum gemm_tile tile, const struct gemm_args *args, void *stream);

/* Sums the partial results of a split in a fixed order and finishes them. dtype of y. */
int gemm_reduce(const struct gemm_args *args, int dtype, void *stream);

/* Any shape, pitch and alignment, on ordinary arithmetic units; F32, F16, BF16. phases 1, no
 * split, no geglu. */
int gemm_simple(const struct gemm_args *args, int transposed, int dtype, void *stream);

/* Weight gradient: dw[o, c, tap] += sum over m of dy[m, o] * a[source(m, tap), c], F32. The sum
 * runs over `splits` ranges of rows, reduced in order; partial holds splits * o * k floats. */
struct gemm_dw_args {
    struct gemm_source source;
    const void *dy;
    int64_t dy_pitch;
    int m, o;
    int splits, m_per_split;
    float *partial;
    float *dw; /* [o][c][taps] */
};
int gemm_dw(const struct gemm_dw_args *args, int dtype, void *stream);

#ifdef __cplusplus
}
#endif
#endif
