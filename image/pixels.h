/*
 * pixels.h - decoded pictures in host memory.
 *
 * Place    between codecs (png jpeg webp), resize, and diffusion.
 * Owner    pixels_new allocates `data`; pixels_release frees it (NULL-safe). Any thread.
 * Failure  ERR_NO_MEMORY; ERR_INVALID over the limits of reliability F1.
 */
#ifndef IMAGE_PIXELS_H
#define IMAGE_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PIXELS_SIDE_MAX_PX 4096
#define PIXELS_COUNT_MAX ((int64_t)3072 * 3072)

/* 8-bit sRGB, rows top down without padding, channels interleaved: 1 grey, 3 RGB, 4 RGBA. */
struct pixels {
    int width, height, channels;
    uint8_t *data;
};

int pixels_new(struct pixels *p, int width, int height, int channels, struct error *err);
void pixels_release(struct pixels *p);

#endif
