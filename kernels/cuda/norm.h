/*
 * norm.h - launchers of group and layer norm, forward and backward.
 *
 * Place    cuda_norm.c calls them; arguments are those of kernels.h, pointers on the device.
 * Failure  a CUDA error number.
 *
 * Group norm in three launches. Statistics: each block reads a slab of 128 bytes of channels of
 * some rows of one image and leaves (mean, sum of squared distances) per channel, because groups of
 * 10 channels do not align with 16-byte loads. Combination: Chan, Golub & LeVeque (1979), pairwise,
 * over the channels and row ranges of a group in a fixed order. Application: one read, one write.
 */
#ifndef KERNELS_CUDA_NORM_H
#define KERNELS_CUDA_NORM_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/kernels.h"

struct norm_plan {
    int ranges, rows_per_range; /* of rows, an image */
    float *partial;             /* [n][ranges][c][2] */
    float *mean, *rstd;         /* [n][groups] */
    float *sums;                /* backward: [n][groups][2] */
};

/* Its parts: mean and rstd of the plan from x; y from x with them, of any of an image's rows. */
int norm_group_measure(const struct group_norm_args *a, const struct norm_plan *plan, void *stream);
int norm_group_apply(const struct group_norm_args *a, const struct norm_plan *plan, void *stream);
int norm_group(const struct group_norm_args *a, const struct norm_plan *plan, void *stream);
int norm_group_grad(const struct group_norm_grad_args *a, const struct norm_plan *plan,
                    void *stream);
int norm_layer(const struct layer_norm_args *a, void *stream);
int norm_layer_grad(const struct layer_norm_grad_args *a, void *stream);

#ifdef __cplusplus
}
#endif
#endif
