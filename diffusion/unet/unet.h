/*
 * unet.h - the noise predictor of SD1, SD2, SDXL and the refiner: one definition.
 *
 * Place    between conditioning and sampler: latent, time and context in, prediction out. Widths,
 *          depths and kinds come from the checkpoint (unet_detect).
 * Owner    the model embeds it and never moves it: unet_init, weights by unet_visit, unet_release.
 *          One thread.
 * Failure  through the pass; unet_detect and unet_init: ERR_FORMAT, ERR_UNSUPPORTED.
 * Source   Rombach et al. 2022; CompVis openaimodel.py (structure), diffusers UNet2DConditionModel
 *          (names).
 *
 * Activations are channels last. With a tape every residual and transformer block is one
 * tape_checkpoint, so training can trade time for memory with tape_recompute.
 */
#ifndef DIFFUSION_UNET_UNET_H
#define DIFFUSION_UNET_UNET_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"
#include "tensor/tape.h"

#define UNET_LEVELS_MAX 5
#define UNET_BLOCKS_MAX 4 /* residual blocks a level on the way down; one more on the way up */

struct unet_config {
    int levels;
    int blocks[UNET_LEVELS_MAX]; /* residual blocks on the way down; the way up has one more */
    int64_t in_channels, out_channels;
    int64_t channels[UNET_LEVELS_MAX];
    int depth_down[UNET_LEVELS_MAX][UNET_BLOCKS_MAX]; /* transformer blocks; 0: no transformer */
    int depth_up[UNET_LEVELS_MAX][UNET_BLOCKS_MAX + 1];
    int depth_mid;
    bool mid_second; /* the middle has its second residual block (SSD-1B: not) */
    bool mid_present;
    int64_t heads[UNET_LEVELS_MAX]; /* the middle uses the last level's */
    int64_t context;                /* width of the text states; 0: no cross attention */
    int64_t time;                   /* width of the time embedding (1280) */
    int64_t vector;                 /* width of the vector input (label_emb); 0: none */
    int64_t guidance;               /* width of the embedded guidance scale (LCM); 0: none */
    int64_t groups;
    bool conv_proj; /* the file keeps proj_in as a 1x1 convolution (SD1) */
};

/* Reads the shapes below `prefix`. heads and groups follow the family's rule (8 heads where proj_in
 * is a convolution, else width / 64; 32 groups); callers overwrite them from a config.json. */
int unet_detect(struct unet_config *config, const struct weight_store *store, const char *prefix,
                enum dialect *dialect, struct error *err);

struct unet_res {
    struct norm in_norm, out_norm;
    struct layer in_conv, time, out_conv, skip;
    int64_t in, out, groups;
    const bool *circular;
    int index; /* its place in unet_steps */
};

/* What LayerDiffuse adds to an attention (layered/attention_sharing.h): with n its input and a its
 * output, a + T(n + a) instead of a, T being out(value(in(norm(.)))). */
struct unet_share {
    struct norm norm;
    struct layer in, value, out;
};

struct unet_attention {
    struct layer q, k, v, out;
    struct unet_share *share; /* NULL: none */
};

struct unet_transformer_block {
    struct norm norm1, norm2, norm3;
    struct unet_attention self, cross;
    struct layer up, down; /* ff.net.0.proj, ff.net.2 */
    int64_t width, context, heads;
    int cross_index; /* its place in unet_context */
};

struct unet_transformer {
    struct norm norm;
    struct layer proj_in, proj_out;
    struct unet_transformer_block *blocks;
    int depth; /* 0: absent */
    int64_t width, groups;
    bool conv_proj;
};

struct unet_step { /* a residual block with what follows it */
    struct unet_res res;
    struct unet_transformer transformer;
};

struct unet_level {
    struct unet_step down[UNET_BLOCKS_MAX], up[UNET_BLOCKS_MAX + 1];
    struct layer downsample, upsample;
};

struct unet {
    struct unet_config config;
    struct layer time1, time2, time_guidance, vector1, vector2, conv_in, conv_out;
    struct norm norm_out;
    struct unet_level level[UNET_LEVELS_MAX];
    struct unet_step mid;
    struct unet_res mid_second;
    int cross_count; /* transformer blocks in all */
    int res_count;   /* residual blocks in all */
    double
        guidance_scale; /* what networks with `guidance` are told instead of being called twice */
    bool circular;      /* seamless tiling: convolutions wrap around */
};

int unet_init(struct unet *m, const struct unet_config *config, struct error *err);
void unet_visit(struct weight_visitor *v, struct unet *m);
void unet_visit_encoder(struct weight_visitor *v, struct unet *m); /* all that ControlNets share */
void unet_release(struct unet *m, struct device *d);

/* What stays the same over all steps of one prompt: keys and values of every cross attention, and
 * the vector embedding. Tensors belong to the pass that made them (in training: the step's own
 * pass, so that gradients reach to_k and to_v; in sampling: a pass that stays open for the
 * request). */
struct unet_context {
    struct tensor *k, *v; /* [N,L,width] each, unet->cross_count of them; heap */
    struct tensor vector; /* [N,time]; rank 0: none */
    int count;
};
/* text [N,L,context]; vector [N,vector] or rank 0. */
int unet_context_init(struct unet_context *c, struct pass *p, struct unet *m, struct tensor text,
                      struct tensor vector);
void unet_context_release(struct unet_context *c);

/* Residuals of ControlNets, added to the skips and to the middle; already scaled. */
#define UNET_SKIPS_MAX (UNET_LEVELS_MAX * (UNET_BLOCKS_MAX + 1) + 1)
struct unet_residuals {
    struct tensor skip[UNET_SKIPS_MAX]; /* rank 0: none */
    struct tensor middle;
    int count;
};

/* What each residual block is told of every step of a schedule, computed at once before the first. */
struct unet_steps {
    const double *time; /* [count], the caller's */
    int count;
    int64_t rows;       /* of a step: one, or one a side of guidance where a vector differs */
    struct tensor *row; /* [count * rows, out] of each block, unet->res_count of them; heap */
};
/* vector [rows,time] as the context has it, or rank 0. The rows belong to the pass that made them. */
int unet_steps_init(struct unet_steps *s, struct pass *p, struct unet *m, const double *time,
                    int count, struct tensor vector);
void unet_steps_release(struct unet_steps *s);
int unet_steps_find(const struct unet_steps *s, double time); /* -1: not among them */

/* What a call tells the network of its time: the host's part, in device memory, or the place of rows that
 * are there already. */
struct unet_time {
    struct tensor sines;            /* [N,channels[0]] */
    struct tensor scale;            /* [1,guidance], of distilled networks; else rank 0 */
    const struct unet_steps *steps; /* NULL: `sines` counts */
    int step;
};
struct unet_time unet_time_input(struct pass *p, const struct unet *m, const double *time,
                                 int64_t n);

/* x [N,H,W,in_channels]; time[n] one timestep an image (fractions allowed); r may be NULL.
 * Returns [N,H,W,out_channels] in the pass's dtype.
 *
 * The context may have a multiple of N rows, say first N positive and then N negative ones, and so has
 * the result then: what comes before the first cross attention is computed once for all of them (once
 * for conv_in alone where a vector tells the sides apart). Bit for bit what N repeated rows give. */
struct tensor unet_forward(struct pass *p, struct unet *m, struct tensor x, const double *time,
                           const struct unet_context *c, const struct unet_residuals *r);
/* The same with the host's part made before: asks nothing of the host (tensor/record.h). */
struct tensor unet_forward_at(struct pass *p, struct unet *m, struct tensor x,
                              struct unet_time time, const struct unet_context *c,
                              const struct unet_residuals *r);

/* Sinusoidal embedding, cosines first: out[n][dim] for n values. */
void unet_sinusoid(float *out, const double *value, int n, int64_t dim);

/* The time as residual blocks take it: SiLU of the embedding, or rows made before. */
struct unet_moment {
    struct tensor embedding; /* [N,time]; rank 0: steps */
    const struct unet_steps *steps;
    int step;
};
/* Shared with ControlNet: the way down. Appends to skip[] from *count on; returns the last. */
struct unet_moment unet_time_embedding(struct pass *p, struct unet *m, struct unet_time time,
                                       const struct unet_context *c);
struct tensor unet_walk_down(struct pass *p, struct unet *m, struct tensor h, struct unet_moment t,
                             const struct unet_context *c, struct tensor *skip, int *count);
struct tensor unet_walk_middle(struct pass *p, struct unet *m, struct tensor h,
                               struct unet_moment t, const struct unet_context *c);

#endif
