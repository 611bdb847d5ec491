/*
 * pointwise.h - launchers of everything that is bound by memory and needs no statistics.
 *
 * Place    cuda_pointwise.c and cuda_weight.c call them; arguments are those of kernels.h, with
 *          every pointer on the device.
 * Failure  a CUDA error number.
 */
#ifndef KERNELS_CUDA_POINTWISE_H
#define KERNELS_CUDA_POINTWISE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/kernels.h"

int pointwise_activation(const struct activation_args *a, void *stream);
int pointwise_activation_grad(const struct activation_args *a, void *stream);
int pointwise_geglu(const struct geglu_args *a, void *stream);
int pointwise_geglu_grad(const struct geglu_args *a, void *stream);
int pointwise_add(const struct add_args *a, void *stream);
int pointwise_mul(const struct mul_args *a, void *stream);
int pointwise_copy(const struct copy_args *a, void *stream);
int pointwise_transpose(const struct transpose_args *a, void *stream);
int pointwise_column_sum(const struct column_sum_args *a, void *stream);
int pointwise_upsample(const struct upsample_args *a, void *stream);
int pointwise_upsample_grad(const struct upsample_args *a, void *stream);
int pointwise_max_pool(const struct max_pool_args *a, void *stream);
int pointwise_bilinear(const struct bilinear_args *a, void *stream);

/* id on the device */
struct pointwise_embedding {
    void *y;
    const void *table; /* y's dtype */
    const int32_t *id;
    const void *dy;
    float *dtable;
    int64_t count, d, rows;
    enum dtype dtype;
};
int pointwise_embedding(const struct pointwise_embedding *a, void *stream);
int pointwise_embedding_grad(const struct pointwise_embedding *a, void *stream);

/* sums of `pointwise_sum_width` elements each, F64: count elements give ceil(count / width) sums */
enum { POINTWISE_SUM_WIDTH = 4096 };
int pointwise_norm(const struct norm_args *a, double *partial, void *stream);
int pointwise_mse(const struct mse_args *a, double *partial, void *stream);
int pointwise_mse_grad(const struct mse_args *a, void *stream);
int pointwise_adamw(const struct adamw_args *a, void *stream);
int pointwise_adamw8(const struct adamw8_args *a, void *stream);

/* [out][c][taps] of any float type -> [out][taps][c] in `to_dtype`; with `phases`, taps is 9 and
 * the result [4][out][4][c] has the taps of each phase summed (gemm.h). geglu: rows in blocks of 8
 * values and 8 gates. */
struct pointwise_pack {
    void *to;
    const void *from;
    enum dtype to_dtype, from_dtype;
    int64_t out, c;
    int taps, phases, geglu;
};
int pointwise_pack(const struct pointwise_pack *a, void *stream);

#ifdef __cplusplus
}
#endif
#endif
