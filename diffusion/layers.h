/*
 * layers.h - the parts that models are made of: a layer (linear or convolution), a norm, their
 *            adapters, and the visitor that names every weight once.
 *
 * Place    below unet/ vae/ text/ control/ upscale/; above tensor/ops.h.
 * Owner    a model embeds its layers and norms. Weights borrow their data from a weight_store or
 *          from a trainer; adapters belong to the layer that they are attached to.
 * Failure  forward functions through the pass; visitors stop at the first error (visit_* do
 *          nothing after it).
 * Source   names: CompVis/stable-diffusion (LDM) and huggingface/diffusers, transformers (HF).
 */
#ifndef DIFFUSION_LAYERS_H
#define DIFFUSION_LAYERS_H

#include "tensor/ops.h"

/* Which program's names a file uses. */
enum dialect { DIALECT_LDM, DIALECT_HF, DIALECT_COUNT };

/*
 * A low-rank branch kept beside the weight (LoRA): y += scale * up(mid(down(x))).
 * down [r,in] or [r,in,kh,kw], up [out,r] or [out,r,1,1]; mid [r,r,kh,kw] (Tucker, then down is
 * 1x1) is usually absent. On a layer whose weight is a slice of a stacked matrix the branch covers
 * the slice. Training makes down and up trainable; `owned` memory is freed with the adapter.
 */
struct adapter {
    struct adapter *next;
    struct weight down, mid, up;
    double scale; /* strength * alpha / rank */
    void *owned[3];
    const void *owner; /* who attached it, for layer_detach; NULL: nobody in particular */
};

/* y = W x (+ b) (+ adapters). W [out,in] is linear, [out,in,kh,kw] a convolution. */
struct layer {
    struct weight w, b; /* b absent: no bias */
    struct adapter *adapters;
};

/* A norm's factor and offset. */
struct norm {
    struct weight w, b;
};

/* f may be NULL. Without adapters these are op_linear and op_conv2d with everything fused. */
struct tensor layer_linear(struct pass *p, struct layer *m, struct tensor x, const struct fuse *f);
struct tensor layer_conv(struct pass *p, struct layer *m, struct tensor x, struct conv_shape shape,
                         const struct fuse *f);
/* Into a tensor that the caller made before opening a scope; no activation in f. */
void layer_linear_into(struct pass *p, struct layer *m, struct tensor *y, struct tensor x,
                       const struct fuse *f);
void layer_conv_into(struct pass *p, struct layer *m, struct tensor *y, struct tensor x,
                     struct conv_shape shape, const struct fuse *f);
/* GEGLU of a linear, and self-attention of three without bias: fused where the back end can. */
struct tensor layer_geglu(struct pass *p, struct layer *m, struct tensor x);
struct tensor layer_attention(struct pass *p, struct layer *q, struct layer *k, struct layer *v,
                              struct tensor x, int64_t heads);
struct tensor norm_group(struct pass *p, struct norm *m, struct tensor x, int64_t groups,
                         double eps, enum activation act);
/* Over x itself, unless a tape may need it. */
struct tensor norm_group_over(struct pass *p, struct norm *m, struct tensor x, int64_t groups,
                              double eps, enum activation act);
/* layer_conv_into of norm_group, in one where the back end can (op_norm_conv_into); `over`: nobody reads x
 * afterwards. No activation in f. */
struct norm_conv {
    struct norm *norm;
    int64_t groups;
    double eps;
    enum activation act;
    bool over;
};
void norm_conv_into(struct pass *p, struct norm_conv n, struct layer *m, struct tensor *y,
                    struct tensor x, struct conv_shape shape, const struct fuse *f);
struct tensor norm_layer(struct pass *p, struct norm *m, struct tensor x, double eps);

/* An adapter without weights (data NULL), in front of the layer's list; fill and keep it. */
struct adapter *layer_attach(struct layer *m, double scale);
void layer_detach_all(struct layer *m, struct device *d);                /* frees the adapters */
void layer_detach(struct layer *m, struct device *d, const void *owner); /* only this owner's */
/* Frees adapters and packed forms; the struct is as if zeroed. */
void layer_release(struct layer *m, struct device *d);
void norm_release(struct norm *m, struct device *d);
/*
 * Where a weight stands. `name` is the full name in each dialect, without the component's prefix
 * ("input_blocks.0.0.weight" / "conv_in.weight"). A file may hold [out,in] where dim says
 * [out,in,1,1] and the other way round, or have ones in front or behind. `stacked_of` > 0: in that dialect the tensor has so many
 * rows and this weight is rows stacked_from .. (OpenCLIP's in_proj). `transposed`: in that dialect
 * the matrix is stored as [in,out].
 */
#define WEIGHT_NAME_BYTES 256
struct weight_site {
    const char *name[DIALECT_COUNT];
    int rank;
    int64_t dim[4];
    int64_t stacked_from[DIALECT_COUNT], stacked_of[DIALECT_COUNT];
    bool transposed[DIALECT_COUNT];
    bool optional;
    bool gated;          /* value and gate rows of a GEGLU: kernel_weight.gated */
    struct layer *layer; /* set for a layer's w and b: the one that can carry adapters */
};

/* Walks a model. Callers set visit and context, zero the rest, and call x_visit(&v, model). */
struct weight_visitor {
    int (*visit)(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                 struct error *err);
    void *context;
    struct error *err;
    int failed;
    size_t length[DIALECT_COUNT];
    char path[DIALECT_COUNT][WEIGHT_NAME_BYTES]; /* with a dot at the end, or empty */
};

/* What visit functions of models are made of. Paths are relative to the open ones. */
struct visit_mark {
    size_t length[DIALECT_COUNT];
};
struct visit_mark visit_open(struct weight_visitor *v, const char *ldm, const char *hf);
void visit_close(struct weight_visitor *v, struct visit_mark mark);
void visit_weight(struct weight_visitor *v, struct weight *w, const char *ldm, const char *hf,
                  int rank, const int64_t *dim);
void visit_norm(struct weight_visitor *v, struct norm *m, const char *ldm, const char *hf,
                int64_t channels);
void visit_linear(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                  int64_t out, int64_t in, bool bias);
/* The linear of a GEGLU, with bias. */
void visit_gated(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                 int64_t out, int64_t in);
void visit_conv(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                int64_t out, int64_t in, int kernel, bool bias);
/* A site made by hand (stacked, transposed, optional); names are relative to the open path. */
void visit_site(struct weight_visitor *v, struct weight *w, const struct weight_site *site);

#endif
