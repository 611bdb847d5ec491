/*
 * attention.h - launchers of attention, forward and backward.
 *
 * Place    cuda_attention.c picks one of three ways.
 *
 *          flash: 16-bit storage, even head sizes up to 160. `aligned` says that the head size is
 *          a multiple of 8 and rows begin at 16 bytes, which allows asynchronous copies.
 *
 *          slabs: 16-bit storage, aligned, head sizes up to 512 (the VAE's). Product, softmax,
 *          product, a slab of queries at a time; attention_softmax is the middle.
 *
 *          simple: everything else, one row a warp.
 *
 * Failure  a CUDA error number. shared_limit is what a block may have: sm_75 has too little for
 *          the largest one-tile form.
 * Source   Dao, FlashAttention-2 (2023), algorithms 1 and 2; softmax in base 2.
 */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/kernels.h"

enum {
    ATTENTION_FLASH_D = 160,
    ATTENTION_GRAD_SM75_D = 128,     /* backward without cp.async */
    ATTENTION_GRAD_UNALIGNED_D = 80, /* backward of unaligned rows */
    ATTENTION_SIMPLE_D = 512,
};

int attention_flash_f16(const struct attention_args *a, int aligned, size_t shared_limit,
                        void *stream);
int attention_flash_bf16(const struct attention_args *a, int aligned, size_t shared_limit,
                         void *stream);
int attention_simple(const struct attention_args *a, void *stream);

/* p[i, j] = exp(scale (s[i, j] - max)), 16 bit, zero up to p_pitch; over[i] = 1 / sum; lse when not
 * NULL. s F32 [rows][s_pitch]. first_row: of the first row here (for the causal mask). */
struct attention_softmax {
    void *p;
    float *over, *lse;
    const float *s;
    int64_t rows, keys, s_pitch, p_pitch, first_row;
    float scale;
    int causal;
    enum dtype dtype;
};
int attention_softmax(const struct attention_softmax *a, void *stream);

/* delta [n][heads][lq]: row sums of dy * y. lse of the forward is needed. */
int attention_delta(const struct attention_grad_args *g, float *delta, void *stream);
int attention_grad_flash_f16(const struct attention_grad_args *g, const float *delta, int aligned,
                             void *stream);
int attention_grad_flash_bf16(const struct attention_grad_args *g, const float *delta, int aligned,
                              void *stream);
int attention_grad_simple(const struct attention_grad_args *g, const float *delta, void *stream);

#ifdef __cplusplus
}
#endif
#endif
