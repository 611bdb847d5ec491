/*
 * matting.h - soft edges of what is cut out of a picture: how much of each pixel is foreground, and of
 *             which colour.
 *
 * Place    after matte.c's mask.
 * Owner    results go into the caller's arrays. One thread; numbers are double, on the host.
 * Failure  ERR_INVALID where nothing is surely foreground or surely background, where too many pixels
 *          are unsure, or the solution does not come: then the mask itself must do. ERR_NO_MEMORY,
 *          ERR_CANCELED.
 * Source   Levin, Lischinski & Weiss 2008 (closed-form matting, section 3; windows of 3 x 3), Germer
 *          et al. 2020 (colours, coarse to fine), with the constants and the trimap of danielgatis/rembg
 *          (alpha_matting) and of pymatting: epsilon 1e-7, residue 1e-7.
 */
#ifndef DIFFUSION_MATTE_MATTING_H
#define DIFFUSION_MATTE_MATTING_H

#include <stdbool.h>
#include <stdint.h>

#include "image/pixels.h"

enum trimap { TRIMAP_BACKGROUND, TRIMAP_UNSURE, TRIMAP_FOREGROUND };

/* From a grey mask: over 240 and under 10, each shrunk by squares of 10 x 10. */
int matting_trimap(uint8_t *trimap, const struct pixels *mask, struct error *err);

/* alpha [h,w], 0..1. rgb: 3 or 4 channels, alpha not looked at. */
int matting_alpha(double *alpha, const struct pixels *rgb, const uint8_t *trimap,
                  bool (*canceled)(void *context), void *context, struct error *err);

/* colour [h,w,3], 0..1: what the foreground alone would look like. */
int matting_colour(float *colour, const struct pixels *rgb, const double *alpha, struct error *err);

#endif
