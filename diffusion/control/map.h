/*
 * map.h - control maps that need no network: from a picture to what a ControlNet looks at.
 *
 * Place    before control_net.h, when the request's picture is not a map already.
 * Owner    results are the caller's pixels, RGB, the source's size. Any thread.
 * Failure  ERR_NO_MEMORY; ERR_UNSUPPORTED for types whose annotator is a network (hed, depth,
 *          normal, openpose, seg), naming those that need none.
 * Source   Canny 1986; Duda & Hart 1972 (Hough); Winnemöller 2011 (XDoG); the classic annotators of
 *          lllyasviel/ControlNet and comfyui_controlnet_aux, whose constants are kept.
 */
#ifndef DIFFUSION_CONTROL_MAP_H
#define DIFFUSION_CONTROL_MAP_H

#include <stdbool.h>

#include "image/pixels.h"

/* type: canny, scribble, fakescribbles, tile, color, lineart, hough (without case). from: RGB. */
int control_map(struct pixels *to, const struct pixels *from, const char *type, struct error *err);
bool control_map_known(const char *type);

/* One file a kind; grey planes and separable filters are in map_filter.c. */
int map_canny(struct pixels *to, const struct pixels *from, struct error *err);
int map_scribble(struct pixels *to, const struct pixels *from, struct error *err);
int map_fakescribbles(struct pixels *to, const struct pixels *from, struct error *err);
int map_lineart(struct pixels *to, const struct pixels *from, struct error *err);
int map_tile(struct pixels *to, const struct pixels *from, struct error *err);
int map_color(struct pixels *to, const struct pixels *from, struct error *err);
int map_hough(struct pixels *to, const struct pixels *from, struct error *err);

/* grey [h,w] by Rec. 601, 0..255; NULL without memory */
float *map_grey(const struct pixels *from);
/* Gauss in place, borders mirrored, cut off at `reach` sigmas (cv2: 4 for floats, 3 for bytes).
 * channels interleaved. false without memory. */
bool map_blur(float *x, int width, int height, int channels, double sigma, double reach);
/* 255 where edges are: Sobel, thin, two thresholds on |gx| + |gy|; NULL without memory */
uint8_t *map_edges(const struct pixels *from, float low, float high);
/* grey bytes [h,w] into RGB pixels of from's size */
int map_from_bytes(struct pixels *to, const struct pixels *from, const uint8_t *grey,
                   struct error *err);

#endif
