/*
 * clip_vision.h - the picture side of CLIP: a vision transformer of any size.
 *
 * Place    safety.c: pixels in, one vector a picture out; compared with vectors of the text side.
 * Owner    as clip_text.h: detect, init, weights by clip_vision_visit, clip_vision_prepare,
 *          release. One thread.
 * Failure  through the pass; detection and init: ERR_FORMAT.
 * Source   Radford et al. 2021; Dosovitskiy et al. 2021. Names: DIALECT_HF is transformers'
 *          CLIPModel (`vision_model.…`, `visual_projection.weight`), DIALECT_LDM
 *          mlfoundations/open_clip (`visual.…`).
 *
 * Patches without overlap and without bias, a class row in front, learned positions, LayerNorm, pre-norm
 * layers without mask (clip_layer_forward), LayerNorm of the class row, projection without bias.
 */
#ifndef SAFETY_CLIP_VISION_H
#define SAFETY_CLIP_VISION_H

#include "diffusion/text/clip_text.h"
#include "image/pixels.h"

struct clip_vision_config {
    int layers;
    int64_t width, heads, mlp;
    int64_t patch, grid; /* pixels of a patch's side, patches along a picture's side */
    int64_t projection;
    enum activation act;
};

/* Sizes from the shapes; act quick_gelu, as OpenAI's models have it. */
int clip_vision_detect(struct clip_vision_config *config, const struct weight_store *store,
                       enum dialect *dialect, struct error *err);

struct clip_vision {
    struct clip_vision_config config;
    struct layer patch;                /* as a linear layer: [width, 3 patch patch] */
    struct weight class_row, position; /* [width], [1 + grid grid, width] */
    struct norm norm_before, norm_after;
    struct clip_layer *layers;
    struct weight projection; /* [projection,width] */
};

int clip_vision_init(struct clip_vision *m, const struct clip_vision_config *config,
                     struct error *err);
void clip_vision_visit(struct weight_visitor *v, struct clip_vision *m);
/* After loading, before packing: the patch convolution becomes a matrix. */
void clip_vision_prepare(struct clip_vision *m);
void clip_vision_release(struct clip_vision *m, struct device *d);

/* Side in pixels of the pictures that go in. */
int clip_vision_side(const struct clip_vision *m);
/* What clip_vision_forward reads: [grid grid, 3 patch patch] floats out of any picture, by bicubic
 * resizing of the shorter side, a cut around the middle, and CLIP's mean and deviation. Copies of
 * pixels are wiped. */
int clip_vision_patches(const struct clip_vision *m, float *to, const struct pixels *from,
                        struct error *err);
/* The same for a picture of 3 channels and grid * patch pixels a side, as it is. */
void clip_cut_patches(float *to, const struct pixels *p, int64_t grid, int64_t patch);
/* x [n, grid grid, 3 patch patch] -> [n,projection], not normalised */
struct tensor clip_vision_forward(struct pass *p, struct clip_vision *m, struct tensor x);

#endif
