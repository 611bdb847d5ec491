/*
 * apart.h - a stranger's picture decoded in a process that can do nothing else.
 *
 * Place    between the bytes of a job's source or mask and diffusion/source_picture.
 * Owner    pixels belong to the caller. Any thread; each call starts one kiln-decode and waits for
 *          it.
 * Failure  as codec_decode; ERR_FORMAT also when the helper dies (reliability F2: that is a broken
 *          picture, not an outage), ERR_NOT_FOUND when the helper program is missing.
 */
#ifndef IMAGE_APART_H
#define IMAGE_APART_H

#include "image/codec.h"

/* Same meaning as codec_decode without text. */
int apart_decode(struct pixels *pixels, const char *name, const uint8_t *data, size_t length,
                 struct error *err);

/* What kiln-decode writes: this, then the pixels, or (channels 0) a sentence of `width` bytes. */
#define APART_HEAD_BYTES 16
struct apart_head {
    uint32_t width, height, channels, code;
};

#endif
