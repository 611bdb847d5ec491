/*
 * gemm_wgmma.h - the products of gemm.h on compute capability 9.0, by wgmma and bulk copies.
 *
 * Place    more tiles of enum gemm_tile: the cost model and the tuner choose them as any other
 *          (cuda_tile.c); cuda_wgmma.c makes the tensor maps. Plain C structs.
 * Owner    arguments are copied at the launch.
 * Failure  launchers return a CUDA error number; shapes are the caller's duty (cuda_wgmma_takes).
 */
#ifndef KERNELS_CUDA_GEMM_WGMMA_H
#define KERNELS_CUDA_GEMM_WGMMA_H

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/tensor_map.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gemm_wgmma_args {
    struct tensor_map a, b; /* rows of A by pixels or as a matrix; B [phase][n][tap][c] */
    struct gemm_args gemm;  /* k_per_split is not read: splits take whole slices of 64 channels */
    int pixels;             /* a is a map of pictures */
    int blocks;             /* multiprocessors: as many blocks stay */
};

/* Rows, columns, threads and shared memory of a tile; m 0: not one of these. */
struct gemm_tile_shape gemm_wgmma_tile_shape(enum gemm_tile tile);
int gemm_wgmma_f16(enum gemm_tile tile, const struct gemm_wgmma_args *args, void *stream);
int gemm_wgmma_bf16(enum gemm_tile tile, const struct gemm_wgmma_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
