/*
 * align.h - a face turned upright into a square, and put back with a soft edge.
 *
 * Place    below restorer.c; arithmetic on pictures, no network.
 * Owner    results are the caller's. Any thread.
 * Failure  ERR_NO_MEMORY. align_find: false when the points do not give a direction.
 * Source   the steps of xinntao/facexlib and of sczhou/CodeFormer's facelib: the five points of FFHQ
 *          faces; Rousseeuw 1984 (least median of squares) for the similarity, as OpenCV's
 *          estimateAffinePartial2D; an edge of a twentieth of the face's side, eroded and
 *          blurred.
 */
#ifndef DIFFUSION_FACE_ALIGN_H
#define DIFFUSION_FACE_ALIGN_H

#include <stdbool.h>

#include "image/pixels.h"

/* (x, y) -> (a x - b y + dx, b x + a y + dy) */
struct similarity {
    double a, b, dx, dy;
};

struct similarity similarity_inverse(struct similarity s);

/* From the picture to a square of `size` pixels in which the points lie where FFHQ's do. */
bool align_find(struct similarity *s, float point[5][2], int size);
/* RGB. Bilinear; what lies outside the picture is grey (132, 133, 135). */
int align_cut(struct pixels *face, const struct pixels *picture, struct similarity s, int size,
              struct error *err);
/* Lays `face` (RGB, square) over the picture (RGB or RGBA; alpha stays), with this share of it.
 * face_mask: grey, the face's size, or NULL. */
int align_paste(struct pixels *picture, const struct pixels *face, struct similarity s,
                const struct pixels *face_mask, double share, struct error *err);
/* Where the class map is face 255: blurred twice (sigma 11), ten pixels of edge cleared. */
int align_soften(struct pixels *mask, struct error *err);

#endif
