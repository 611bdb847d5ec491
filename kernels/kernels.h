/*
 * kernels.h - what a back end can do: one const table of functions over device memory.
 *
 * Place    below tensor/ops.h, which checks shapes and calls here; kernels own nothing. Three
 *          tables: plain_kernels (loops over `real`, complete, the truth), cpu_kernels (fast) and
 *          the CUDA plug-in's. All three take the same arguments.
 * Owner    arguments are borrowed for the call. A device is used by one thread at a time.
 * Failure  ERR_NO_MEMORY, ERR_DEVICE, or ERR_UNSUPPORTED for a dtype combination. A NULL entry
 *          means that the back end lacks the kernel: ops report ERR_UNSUPPORTED by name, or compose
 *          it where it is a fused form.
 *
 * Shape letters, everywhere in the tree:
 *   N images in the batch   C channels   H W pixels   L tokens   D width   A heads   R rank
 *   M K generic matrix rows and inner width
 * Activations are contiguous, channels last: [N,H,W,C] is [N,L,D] is [M,K] without a copy.
 * Linear weights are [out,in] and convolution weights [out,in,kh,kw] as checkpoints store them; a
 * back end packs them once into a form of its own (`pack`).
 * Storage dtypes: F32, BF16, F16 (F64 where real is double). Accumulation is F32 or better.
 * In every args struct `y` is written and may not overlap an input unless its comment says so.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/dtype.h"

struct device; /* a back end's own; see device.h */

enum activation {
    ACT_NONE,
    ACT_SILU,       /* x / (1 + exp(-x)) */
    ACT_GELU,       /* x/2 (1 + erf(x / sqrt 2)), exact */
    ACT_QUICK_GELU, /* x / (1 + exp(-1.702 x)) */
    ACT_RELU,
    ACT_LEAKY_RELU, /* slope 0.2 below zero */
    ACT_TANH,
    ACT_SIGMOID,
    ACT_COUNT
};

/* A weight as the checkpoint has it, and the back end's packed form of it (made on first use by
 * `pack`, shared between passes, freed by `unpack`). `data` is host memory (a mapped file), except
 * for a weight that training changes: it has `changes` set and lives in device memory (where adamw
 * updates it); back ends then read `data` each time or repack when `version` moved on.
 * Vectors (rank 0 and 1: bias, gamma, beta) reach the kernels as plain device pointers: ops call
 * `pack` on them too and pass kernel_weight_vector(). A device whose memory the host addresses
 * (device.host_memory) leaves them unpacked; others copy them, dtype unchanged.
 * Mapped data may be unaligned. A linear's weight may have rank 4 with a 1x1 kernel: trust the
 * counts in the args. */
struct kernel_weight {
    const void *data;
    enum dtype dtype;
    int rank;
    int64_t dim[4];
    bool changes;
    bool
        eight_bits; /* a device with device.eight_bits may round it and what it is multiplied with to 8 bits */
    bool mapped; /* data lies in a read-only mapping of a file: who keeps a form of its own may tell
                  * the kernel that the pages are not needed */
    bool gated; /* only ever asked for by linear_geglu, while no adapter sits on it */
    uint64_t version;
    void *packed;
    uint64_t packed_version;
    struct weight_pool *pool; /* where packed forms lie, on a device that fetches; NULL: each its own */
};

static inline const void *kernel_weight_vector(const struct kernel_weight *w)
{
    return !w ? NULL : w->packed ? w->packed : w->data;
}

/* What follows a linear or convolution while its result is still in registers:
 *   y = act(z + bias[out] + row[n,out]) + add[...,out]
 * `row` is one vector an image (the time embedding), `rows_per_image` rows of y share it.
 * `add` has y's shape and dtype and may be the same memory as y. Any pointer may be NULL. */
struct epilogue_args {
    const void *bias;
    enum dtype bias_dtype;
    const void *row; /* activation dtype */
    int64_t rows_per_image;
    enum activation act;
    const void *add;
};

/* y[M,out] = epilogue(x[M,K] . w[out,K]^T). x rows are ldx elements apart, y rows ldy. */
struct linear_args {
    void *y;
    const void *x;
    struct kernel_weight *w;
    int64_t m, k, out, ldx, ldy;
    enum dtype dtype; /* of x and y */
    struct epilogue_args epilogue;
};

/* Fused: linear of twice y's width, then GEGLU. y[M,out/2] = z[:, :out/2] * gelu(z[:, out/2:]) with
 * z = x w^T + bias: struct linear_args with the linear's `out`, y's pitch, and of the epilogue nothing
 * but the bias.
 * Fused: `count` linears of one x side by side. y[M, i*out + o] = x[M,K] . w[i][out,K]^T */
struct linear_join_args {
    void *y;
    const void *x;
    struct kernel_weight *w[3];
    int count; /* 1 to 3 */
    int64_t m, k, out, ldx, ldy;
    enum dtype dtype;
};

/* dx[M,K] = dy[M,out] . w[out,K]   (+= when accumulate) */
struct linear_dx_args {
    void *dx;
    const void *dy;
    struct kernel_weight *w;
    int64_t m, k, out, ldx, ldy;
    enum dtype dtype;
    bool accumulate;
};

/* dw[out,K] += dy[M,out]^T . x[M,K], F32 (real) whatever the activation dtype. */
struct linear_dw_args {
    void *dw;
    const void *dy, *x;
    int64_t m, k, out, ldx, ldy;
    enum dtype dtype;
};

/* 2-D convolution, channels last. Output size is given; taps outside the picture read zero, or
 * wrap around when `circular` (seamless tiling). upsample 2: the input is read as if it had been
 * enlarged by nearest neighbour to twice its size (h, w are the sizes before that). */
struct conv2d_args {
    void *y;                 /* [n,oh,ow,out] */
    const void *x;           /* [n,h,w,c] */
    struct kernel_weight *w; /* [out,c,kh,kw] */
    int64_t n, h, w_px, c, oh, ow, out;
    int kh, kw, stride, pad_top, pad_left, upsample;
    bool circular;
    enum dtype dtype;
    struct epilogue_args epilogue;
};
/* The same struct serves the derivatives:
 *   conv2d_dx: x is written (+= when accumulate), y is read as dy; epilogue ignored
 *   conv2d_dw: x and y (as dy) are read, dw[out,c,kh,kw] += in F32 (real) */
struct conv2d_grad_args {
    struct conv2d_args conv;
    void *dx;       /* conv2d_dx only */
    const void *dy; /* both */
    void *dw;       /* conv2d_dw only */
    bool accumulate;
};

/* y = gamma (x - mean) / sqrt(var + eps) + beta over groups of channels of one image, then act
 * (ACT_NONE or ACT_SILU). x [n,rows,c]. mean and rstd [n,groups] F32 (real) are written when not
 * NULL, for the backward. y may be x. */
struct group_norm_args {
    void *y;
    const void *x, *gamma, *beta;
    void *mean, *rstd;
    int64_t n, rows, c, groups;
    double eps;
    enum activation act;
    enum dtype dtype, weight_dtype;
};
/* dx (+= when accumulate), dgamma and dbeta (F32 (real), +=, NULL when not wanted). The
 * activation is undone first; x, gamma, beta, mean, rstd are those of the forward. */
struct group_norm_grad_args {
    struct group_norm_args forward;
    const void *dy;
    void *dx, *dgamma, *dbeta;
    bool accumulate;
};

/* y = epilogue(conv(act(group_norm(x)))), n images of conv.h x conv.w_px pixels; conv.x is x. The normalised
 * picture is made some rows at a time, so it takes no memory of its size. 3x3, stride 1, padding 1. The
 * same bits as the two kernels one after the other. epilogue.add may be y; x may not. On a device that tells
 * band_bytes, `room` is memory of the device for statistics and rows, of norm_conv2d_room bytes: it decides
 * how many rows a band has. */
struct norm_conv2d_args {
    struct conv2d_args conv;
    const void *gamma, *beta;
    enum dtype weight_dtype;
    int64_t groups;
    double eps;
    enum activation act; /* of the norm; the epilogue may have another */
    void *room;
    size_t room_bytes;
};
static inline size_t norm_conv2d_statistics(const struct norm_conv2d_args *a) /* bytes of room */
{
    return ((size_t)(a->conv.n * a->groups) * 2 * sizeof(float) + 255) / 256 * 256;
}
/* With bands of about `most` bytes; three lines at least, and no more than there are. */
static inline size_t norm_conv2d_room(const struct norm_conv2d_args *a, size_t most)
{
    const size_t line = (size_t)(a->conv.w_px * a->conv.c) * dtype_bytes(a->conv.dtype);
    const size_t all = (size_t)(a->conv.n * a->conv.h);
    size_t lines = line && most / line > 3 ? most / line : 3;
    return norm_conv2d_statistics(a) + (lines < all ? lines : all) * line;
}

/* The same over the last axis of x [rows,d]; mean and rstd [rows]. gamma and beta may be NULL. */
struct layer_norm_args {
    void *y;
    const void *x, *gamma, *beta;
    void *mean, *rstd;
    int64_t rows, d;
    double eps;
    enum dtype dtype, weight_dtype;
};
struct layer_norm_grad_args {
    struct layer_norm_args forward;
    const void *dy;
    void *dx, *dgamma, *dbeta;
    bool accumulate;
};

/* y = softmax(scale q k^T + causal mask) v for each head. q, y [n,lq,heads*d]; k, v
 * [n,lk,heads*d]; token rows ld* elements apart (so that one fused QKV result can be read in
 * place), images l* rows apart. lse [n,heads,lq] F32 (real), log-sum-exp of each row, written when
 * not NULL. Dao et al., FlashAttention-2 (2023), algorithm 1. */
struct attention_args {
    void *y;
    const void *q, *k, *v;
    void *lse;
    int64_t n, heads, lq, lk, d, ldq, ldk, ldv, ldy;
    double scale;
    bool causal;
    enum dtype dtype;
};
/* dq, dk, dv (+= when accumulate) have the layout and row pitch of q, k, v and do not overlap one
 * another; y and lse are those of the forward. Algorithm 2. */
struct attention_grad_args {
    struct attention_args forward;
    const void *dy;
    void *dq, *dk, *dv;
    bool accumulate;
};

/* y[rows,d] = x[:, :d] * gelu(x[:, d:]), x [rows,2d] (GEGLU; exact erf GELU). */
struct geglu_args {
    void *y;
    const void *x, *dy; /* dy for the backward */
    void *dx;
    int64_t rows, d;
    enum dtype dtype;
    bool accumulate;
};

/* y = act(x); backward: dx (+)= dy act'(x). y may be x. */
struct activation_args {
    void *y;
    const void *x, *dy;
    void *dx;
    int64_t count;
    enum activation act;
    enum dtype dtype;
    bool accumulate;
};

/* y = alpha a + beta b (b NULL: y = alpha a). b repeats every b_count elements when smaller. y may
 * be a or b. */
struct add_args {
    void *y;
    const void *a, *b;
    int64_t count, b_count;
    double alpha, beta;
    enum dtype dtype;
};
/* y (+)= a * b; b repeats every b_count elements (0: same size). y may be a, or b of the same size. */
struct mul_args {
    void *y;
    const void *a, *b;
    int64_t count, b_count;
    enum dtype dtype;
    bool accumulate;
};

/* A strided copy of blocks with change of dtype: for every i < rows, j < cols
 *   y[i*ldy + j] (+)= x[i*ldx + j].   Concat, slice, and their backward. */
struct copy_args {
    void *y;
    const void *x;
    int64_t rows, cols, ldy, ldx;
    enum dtype y_dtype, x_dtype;
    bool accumulate;
};
/* y[n,b,a] = x[n,a,b]: channels first <-> channels last. */
struct transpose_args {
    void *y;
    const void *x;
    int64_t n, a, b;
    enum dtype dtype;
};
/* sum[cols] += column sums of x[rows,cols] over groups: x is [groups, rows, cols] and sum is
 * [groups, cols]; sum_dtype F32 (real) or the activation's. Bias and time embedding gradients. */
struct column_sum_args {
    void *sum;
    const void *x;
    int64_t groups, rows, cols;
    enum dtype dtype, sum_dtype;
};

/* Nearest x2: y [n,2h,2w,c]; backward: dx (+)= sum of four. General size: oh, ow with nearest
 * "floor(i * h / oh)" (torch 'nearest'). */
struct upsample_args {
    void *y;
    const void *x, *dy;
    void *dx;
    int64_t n, h, w, c, oh, ow;
    enum dtype dtype;
    bool accumulate;
};

/* y [n,oh,ow,c] = the largest x of each window kernel x kernel that begins at (oy,ox) * stride - pad;
 * what lies outside the picture does not count. Each window meets the picture. */
struct max_pool_args {
    void *y;
    const void *x;
    int64_t n, h, w, c, oh, ow;
    int kernel, stride, pad;
    enum dtype dtype;
};

/* y [n,oh,ow,c]: x [n,h,w,c] between its pixels, at ((oy + 0.5) h / oh - 0.5, ...) held inside the
 * picture (torch 'bilinear', align_corners false, no antialiasing). */
struct bilinear_args {
    void *y;
    const void *x;
    int64_t n, h, w, c, oh, ow;
    enum dtype dtype;
};

/* y[l,d] = table[id[l], :]; backward: dtable[id[l],:] += dy[l,:] in F32 (real). */
struct embedding_args {
    void *y;
    struct kernel_weight *table; /* [rows,d] */
    const int32_t *id;           /* host memory */
    const void *dy;
    void *dtable;
    int64_t count, d;
    enum dtype dtype;
};

/* loss = sum(weight (y - target)^2) / count, one F32 (real) on the device; weight may be NULL or
 * one factor an element. Backward: dy = 2 weight (y - target) / count * scale. */
struct mse_args {
    void *loss;
    const void *y, *target, *weight;
    void *dy;
    int64_t count;
    double scale;
    enum dtype dtype; /* of y, target, dy; weight is F32 (real) */
};

/* One AdamW update of `count` F32 (real) parameters, decoupled weight decay (Loshchilov & Hutter
 * 2019). `step` counts from 1. grad_scale multiplies the gradient first (clipping, averaging). */
struct adamw_args {
    void *param, *m, *v;
    const void *grad;
    int64_t count, step;
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
};

/* The same update with both moments in 8 bits: base.m and base.v are one byte a value, an index into
 * a table of 256 (adamw8.h), and ADAMW8_BLOCK values share one F32 (real) factor in m_scale and
 * v_scale, their largest magnitude. All bytes zero is a valid start: a factor of 0. Dettmers et al.
 * 2022. */
#define ADAMW8_BLOCK 256
struct adamw8_args {
    struct adamw_args base;
    void *m_scale, *v_scale; /* [ceil(count / ADAMW8_BLOCK)] */
};

/* sum of squares of `count` F32 (real) into one F64 on the host */
struct norm_args {
    const void *x;
    int64_t count;
    enum dtype dtype;
    double *sum_of_squares;
};

struct kernels {
    const char *name; /* "plain", "cpu", "cuda" */

    /* memory; offsets a device cannot address from the host are still plain pointers */
    int (*alloc)(struct device *d, void **memory, size_t bytes, struct error *err);
    void (*free)(struct device *d, void *memory);
    int (*upload)(struct device *d, void *to, const void *from_host, size_t bytes,
                  struct error *err);
    int (*download)(struct device *d, void *to_host, const void *from, size_t bytes,
                    struct error *err);
    int (*zero)(struct device *d, void *memory, size_t bytes, struct error *err);
    /* Waits until everything asked so far is done, and reports a failure of any of it. */
    int (*finish)(struct device *d, struct error *err);

    /* Makes w->packed for the given use and activation dtype; cheap when it is there already.
     * Kernels with a kernel_weight in their args call it themselves. */
    int (*pack)(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                struct error *err);
    void (*unpack)(struct device *d, struct kernel_weight *w);

#define KERNEL_TABLE(X)                                                                            \
    X(linear, linear_args)                                                                         \
    X(linear_dx, linear_dx_args)                                                                   \
    X(linear_dw, linear_dw_args)                                                                   \
    X(conv2d, conv2d_args)                                                                         \
    X(conv2d_dx, conv2d_grad_args)                                                                 \
    X(conv2d_dw, conv2d_grad_args)                                                                 \
    X(group_norm, group_norm_args)                                                                 \
    X(group_norm_grad, group_norm_grad_args)                                                       \
    X(layer_norm, layer_norm_args)                                                                 \
    X(layer_norm_grad, layer_norm_grad_args)                                                       \
    X(attention, attention_args)                                                                   \
    X(attention_grad, attention_grad_args)                                                         \
    X(geglu, geglu_args)                                                                           \
    X(geglu_grad, geglu_args)                                                                      \
    X(activation, activation_args)                                                                 \
    X(activation_grad, activation_args)                                                            \
    X(add, add_args)                                                                               \
    X(mul, mul_args)                                                                               \
    X(copy, copy_args)                                                                             \
    X(transpose, transpose_args)                                                                   \
    X(column_sum, column_sum_args)                                                                 \
    X(upsample, upsample_args)                                                                     \
    X(upsample_grad, upsample_args)                                                                \
    X(max_pool, max_pool_args)                                                                     \
    X(bilinear, bilinear_args)                                                                     \
    X(embedding, embedding_args)                                                                   \
    X(embedding_grad, embedding_args)                                                              \
    X(mse, mse_args)                                                                               \
    X(mse_grad, mse_args)                                                                          \
    X(adamw, adamw_args)                                                                           \
    X(adamw8, adamw8_args)                                                                         \
    X(norm, norm_args)
/* Fused forms: NULL where a back end has none, and ops compose. Those of the second list save memory. */
#define KERNEL_FUSED_TABLE(X)                                                                      \
    X(linear_geglu, linear_args)                                                                   \
    X(linear_join, linear_join_args)
#define KERNEL_BANDED_TABLE(X) X(norm_conv2d, norm_conv2d_args)
#define X(name, args) int (*name)(struct device * d, const struct args *a, struct error *err);
    KERNEL_TABLE(X)
    KERNEL_FUSED_TABLE(X)
    KERNEL_BANDED_TABLE(X)
#undef X
};

extern const struct kernels plain_kernels;
extern const struct kernels cpu_kernels;

#endif
