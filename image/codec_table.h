/* codec_table.h - what each format's file provides to codec.c; nobody else includes it. */
#ifndef IMAGE_CODEC_TABLE_H
#define IMAGE_CODEC_TABLE_H

#include "image/codec.h"

struct codec {
    const char *name, *mime;
    const char *extensions[3];
    bool (*magic)(const uint8_t *data, size_t length);
    int (*probe)(struct image_header *header, const uint8_t *data, size_t length,
                 struct error *err);
    /* header has been probed and is within the limits */
    int (*decode)(struct pixels *pixels, struct image_text *text, const struct image_header *header,
                  const uint8_t *data, size_t length, struct error *err);
    int (*encode)(struct buf *out, const struct pixels *pixels, int quality,
                  const struct image_text *text, struct error *err); /* NULL: cannot write */
    int (*set_text)(struct buf *out, const uint8_t *data, size_t length,
                    const struct image_text *text, struct error *err);
};

extern const struct codec codec_png, codec_jpeg, codec_webp;

#endif
