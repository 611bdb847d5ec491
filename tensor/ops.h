/*
 * ops.h - the twenty verbs in which every model is written.
 *
 * Place    models above, kernels below. Each op checks shapes (a wrong shape is a bug in the model
 *          or a hostile checkpoint: the pass fails with ERR_INVALID and both shapes in the
 *          sentence), takes its result from the pass's arena, runs the back end's kernel, and notes
 *          its derivative on the tape. An op family is one file: op_linear.c holds shape rule,
 *          forward and backward.
 * Failure  through the pass (pass.h). `_into` forms write y, which must have the result's shape; y
 *          may not overlap an input unless said.
 *
 * Fusions are arguments (struct fuse), and are composed from plain kernels where a back end lacks
 * the fused one. Layout is channels last everywhere; shape letters as in kernels/kernels.h.
 */
#ifndef TENSOR_OPS_H
#define TENSOR_OPS_H

#include "tensor/pass.h"
#include "tensor/weight.h"

/* After a linear or convolution: y = act(z + bias + row) + add. Zeroed: nothing. */
struct fuse {
    enum activation act;
    struct tensor row; /* [N,out], one vector an image; data NULL or rank 0: none */
    struct tensor add; /* y's shape; rank 0: none */
};

/* y [..,out] = x [..,K] . w[out,K]^T + b. b may be NULL or absent. f may be NULL. */
struct tensor op_linear(struct pass *p, struct tensor x, struct weight *w, struct weight *b,
                        const struct fuse *f);
void op_linear_into(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                    struct weight *b, const struct fuse *f);

/* op_geglu of op_linear in one kernel where the back end has it (and no tape records); else the two. */
struct tensor op_linear_geglu(struct pass *p, struct tensor x, struct weight *w, struct weight *b);
/* `count` (up to 3) linears of one x without bias, side by side: [..,count*out]. Only where
 * op_can_join says so. */
bool op_can_join(const struct pass *p, struct weight *const *w, int count);
struct tensor op_linear_join(struct pass *p, struct tensor x, struct weight *const *w, int count);

/* x [N,H,W,C], w [out,C,kh,kw]. */
struct conv_shape {
    int stride; /* 1 or 2; 0 means 1 */
    int pad_top, pad_left, pad_bottom, pad_right;
    int upsample;  /* 2: nearest enlargement folded in front of the convolution; 0 or 1: none */
    bool circular; /* taps wrap around instead of reading zero */
};
struct conv_shape conv_same(int kernel); /* stride 1, padding kernel / 2 on all sides */
struct tensor op_conv2d(struct pass *p, struct tensor x, struct weight *w, struct weight *b,
                        struct conv_shape shape, const struct fuse *f);
void op_conv2d_into(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                    struct weight *b, struct conv_shape shape, const struct fuse *f);

/* x [N,..,C]; act ACT_NONE or ACT_SILU. gamma/beta [C]. */
struct tensor op_group_norm(struct pass *p, struct tensor x, struct weight *gamma,
                            struct weight *beta, int64_t groups, double eps, enum activation act);
/* Over x itself, unless a tape may need it. */
struct tensor op_group_norm_over(struct pass *p, struct tensor x, struct weight *gamma,
                                 struct weight *beta, int64_t groups, double eps,
                                 enum activation act);
/* op_conv2d_into of op_group_norm, without memory for what is normalised where the back end can. */
struct norm_of {
    struct weight *gamma, *beta;
    int64_t groups;
    double eps;
    enum activation act;
    bool over; /* nobody reads x afterwards: where it is composed, the norm goes over it */
};
void op_norm_conv_into(struct pass *p, struct tensor *y, struct tensor x, const struct norm_of *n,
                       struct weight *w, struct weight *b, struct conv_shape shape,
                       const struct fuse *f);
/* over the last axis; gamma and beta may be NULL */
struct tensor op_layer_norm(struct pass *p, struct tensor x, struct weight *gamma,
                            struct weight *beta, double eps);

/* q [N,Lq,A*D], k v [N,Lk,A*D] -> [N,Lq,A*D]; scale D^-0.5. Lk of 1..n, any D. */
struct tensor op_attention(struct pass *p, struct tensor q, struct tensor k, struct tensor v,
                           int64_t heads, bool causal);

/* The same with q, k and v side by side, [N,L,3*A*D]; no tape. */
struct tensor op_attention_joined(struct pass *p, struct tensor qkv, int64_t heads, bool causal);

struct tensor op_geglu(struct pass *p, struct tensor x); /* [..,2D] -> [..,D] */
struct tensor op_activation(struct pass *p, struct tensor x, enum activation act);
/* The same in x's own memory (with a tape: in fresh memory). */
void op_activate(struct pass *p, struct tensor *x, enum activation act);

struct tensor op_add(struct pass *p, struct tensor a, struct tensor b); /* same shape */
void op_add_into(struct pass *p, struct tensor *y, struct tensor a,
                 struct tensor b); /* y may be a */
/* alpha a + beta b; b may have fewer elements and repeats (b.count divides a.count) */
struct tensor op_mix(struct pass *p, double alpha, struct tensor a, double beta, struct tensor b);
struct tensor op_scale(struct pass *p, struct tensor x, double factor);
struct tensor op_mul(struct pass *p, struct tensor a, struct tensor b); /* same shape */
/* x [..,C] times row [C], for networks that are not trained here: no derivative */
struct tensor op_mul_row(struct pass *p, struct tensor x, struct tensor row);

struct tensor op_concat(struct pass *p, struct tensor a, struct tensor b); /* last axis */
struct tensor op_concat_rows(struct pass *p, struct tensor a,
                             struct tensor b); /* axis 1 of [N,L,D] */
struct tensor op_concat_batch(struct pass *p, struct tensor a, struct tensor b); /* axis 0 */
struct tensor op_slice(struct pass *p, struct tensor x, int64_t from,
                       int64_t count); /* last axis */
struct tensor op_slice_rows(struct pass *p, struct tensor x, int64_t from, int64_t count);
struct tensor op_slice_batch(struct pass *p, struct tensor x, int64_t from, int64_t count);
struct tensor op_repeat_batch(struct pass *p, struct tensor x, int64_t times); /* axis 0, tiled */

struct tensor op_upsample(struct pass *p, struct tensor x, int64_t oh, int64_t ow); /* nearest */
/* The largest of each window (kernel, stride, padding that does not count); `ceil`: a last window
 * may hang over the edge. Not trained here: no derivative. */
struct tensor op_max_pool(struct pass *p, struct tensor x, int kernel, int stride, int pad,
                          bool ceil);
/* Between the pixels, as torch's bilinear without aligned corners. Not trained here. */
struct tensor op_bilinear(struct pass *p, struct tensor x, int64_t oh, int64_t ow);
/* 1 mirrored pixel on each side: [N,H,W,C] -> [N,H+2,W+2,C], H and W at least 2 */
struct tensor op_mirror(struct pass *p, struct tensor x);
/* [N,H,W,C] -> [N s s, H/s, W/s, C]: every s-th pixel (rounded up, zeros beyond the edge), and
 * back. A convolution between the two is one with dilation s. Not trained here. */
struct tensor op_apart(struct pass *p, struct tensor x, int64_t s);
struct tensor op_together(struct pass *p, struct tensor x, int64_t s, int64_t h, int64_t w);
struct tensor op_to_channels_last(struct pass *p, struct tensor x);  /* [N,C,H,W] -> [N,H,W,C] */
struct tensor op_to_channels_first(struct pass *p, struct tensor x); /* and back */
void op_to_channels_first_into(struct pass *p, struct tensor *y, struct tensor x);

/* id: host memory, count = N*L, read at once -> [N,L,D] */
struct tensor op_embedding(struct pass *p, struct weight *table, const int32_t *id, int64_t n,
                           int64_t l);
/* A weight as a tensor of the pass (position embeddings, adapters), with its gradient. */
struct tensor op_weight(struct pass *p, struct weight *w);

/* mean of weight (y - target)^2, a scalar (rank 0, F32/real); weight: F32/real tensor, rank 0: none */
struct tensor op_mse(struct pass *p, struct tensor y, struct tensor target, struct tensor weight);

#endif
