/*
 * gfpgan.h - a face restored by a U-Net that steers a StyleGAN2 decoder.
 *
 * Place    below restorer.c: an aligned face in, a restored one out.
 * Owner    gfpgan_detect makes it, weights by gfpgan_visit, then gfpgan_prepare; gfpgan_release. One
 *          thread.
 * Failure  through the pass; detection: ERR_FORMAT, ERR_UNSUPPORTED for other forms of GFPGAN.
 * Source   Wang et al. 2021 (GFP-GAN), section 3, channel-split spatial feature transform; Karras et
 *          al. 2020 (StyleGAN2), section 2: modulation and demodulation of convolutions, written as
 *          factors of their inputs and outputs. Names and order of TencentARC/GFPGAN's
 *          GFPGANv1Clean (versions 1.3 and 1.4); noise is that of the file, so that a face comes
 *          out the same each time.
 */
#ifndef DIFFUSION_FACE_GFPGAN_H
#define DIFFUSION_FACE_GFPGAN_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

#define GFPGAN_LEVELS_MAX 8

struct gfpgan_res {
    int64_t in, out;
    struct layer conv1, conv2, skip;
};

/* A convolution of the decoder, steered by a style. */
struct gfpgan_style {
    int64_t in, out;
    bool rgb; /* to red, green and blue: 1x1, no demodulation, no noise */
    struct layer conv, steer;
    struct weight bias, strength, noise;
    float *squares; /* [out,in]: squares of the weights, summed over the taps */
    float *column;  /* [out]: the noise's strength as a convolution's weights */
    struct weight noise_column;
};

struct gfpgan {
    int levels, size; /* size of a face: 4 << levels */
    int64_t style_width, first_width, deep_width;
    struct layer first, last, to_style;
    struct gfpgan_res down[GFPGAN_LEVELS_MAX], up[GFPGAN_LEVELS_MAX];
    struct layer scale[GFPGAN_LEVELS_MAX][2], shift[GFPGAN_LEVELS_MAX][2];
    int64_t steered[GFPGAN_LEVELS_MAX]; /* channels that scale and shift reach */
    struct weight constant;
    int64_t constant_width;
    struct gfpgan_style start, start_rgb;
    struct gfpgan_style convs[2 * GFPGAN_LEVELS_MAX], rgbs[GFPGAN_LEVELS_MAX];
};

bool gfpgan_is(const struct weight_store *store);
int gfpgan_detect(struct gfpgan *m, const struct weight_store *store, struct error *err);
void gfpgan_visit(struct weight_visitor *v, struct gfpgan *m);
int gfpgan_prepare(struct gfpgan *m, struct error *err); /* after loading */
void gfpgan_release(struct gfpgan *m, struct device *d);

/* x [1,S,S,3] of -1 .. 1 -> the same */
struct tensor gfpgan_forward(struct pass *p, struct gfpgan *m, struct tensor x);

#endif
