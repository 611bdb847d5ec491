/*
 * resize.h - other sizes, orientations and channel counts of a picture.
 *
 * Place    sources to the request's size, masks, training crops, thumbnails, contact sheets.
 * Owner    results belong to the caller. Any thread.
 * Failure  ERR_INVALID, ERR_NO_MEMORY.
 * Source   separable resampling as Pillow's ImagingResample up to version 11, rows first: the
 * filter is widened by the scale when shrinking, coefficients are rounded to 22 fractional bits, 8
 * bits between the two directions.
 */
#ifndef IMAGE_RESIZE_H
#define IMAGE_RESIZE_H

#include "image/pixels.h"

enum resize_filter { RESIZE_BOX, RESIZE_BILINEAR, RESIZE_BICUBIC, RESIZE_LANCZOS };

/* to: any size; channels as from. to and from must not share memory. */
int pixels_resize(struct pixels *to, const struct pixels *from, int width, int height,
                  enum resize_filter filter, struct error *err);
/* Cuts a rectangle that lies inside. */
int pixels_crop(struct pixels *to, const struct pixels *from, int x, int y, int width, int height,
                struct error *err);
/* Covers width x height: resized keeping the ratio, the rest cut evenly from both sides. */
int pixels_cover(struct pixels *to, const struct pixels *from, int width, int height,
                 enum resize_filter filter, struct error *err);
/* Applies an Exif orientation 1..8 in place. */
int pixels_orient(struct pixels *p, int orientation, struct error *err);
/* Another channel count: grey by Rec. 601 weights; alpha is laid on white when it goes, 255 when it
 * comes. */
int pixels_convert(struct pixels *to, const struct pixels *from, int channels, struct error *err);
/* Copies `from` into `to` at x, y, clipped; equal channel counts. */
void pixels_paste(struct pixels *to, const struct pixels *from, int x, int y);

#endif
