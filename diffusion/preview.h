/*
 * preview.h - a small picture of a latent while it is still drawn.
 *
 * Place    pipeline.c's, after a step, when somebody wants to look. With a tiny decoder
 *          (vae/taesd.h) that decodes instead; this is what needs no network.
 * Owner    the result is the caller's pixels, RGB, one pixel a latent.
 * Failure  ERR_NO_MEMORY.
 * Source   comfyanonymous/ComfyUI latent_formats.py: four rows of RGB fitted to each family's VAE.
 */
#ifndef DIFFUSION_PREVIEW_H
#define DIFFUSION_PREVIEW_H

#include "image/pixels.h"
#include "proto/terms.h"

/* latent [4,h,w] on the UNet's scale */
int preview_linear(struct pixels *to, enum family family, const float *latent, int w, int h,
                   struct error *err);

#endif
