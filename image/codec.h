/*
 * codec.h - bytes <-> pixels for PNG, JPEG and WebP, and the text that pictures carry.
 *
 * Place    sources and masks on their way in, results on their way out. One table, one file a
 *          format (codec_png.c codec_jpeg.c codec_webp.c).
 * Owner    results belong to the caller (pixels_release, image_text_release). Any thread.
 * Failure  ERR_FORMAT (not a picture, damaged, animated), ERR_INVALID (over the limits of pixels.h
 *          or CODEC_BYTES_MAX, known from the header before anything is allocated), ERR_NO_MEMORY,
 *          ERR_UNSUPPORTED (format that cannot be written).
 * Source   reliability F1; PNG third edition (W3C), WebP container specification, Exif 2.3
 *          orientation.
 */
#ifndef IMAGE_CODEC_H
#define IMAGE_CODEC_H

#include <stdbool.h>

#include "base/buf.h"
#include "image/pixels.h"

#define CODEC_BYTES_MAX (16u << 20)

enum image_format { IMAGE_PNG, IMAGE_JPEG, IMAGE_WEBP, IMAGE_FORMAT_COUNT };

/* What a picture says about itself. NULL: absent. */
struct image_text {
    char *parameters; /* UTF-8; PNG keyword "parameters", as other programs read it; in WebP
                         inside XMP only */
    char *xmp;        /* an XMP packet */
};
void image_text_release(struct image_text *text);

struct image_header {
    enum image_format format;
    int width, height;
    bool alpha;
};

const char *image_format_name(enum image_format format); /* "PNG" */
const char *image_format_mime(enum image_format format); /* "image/png" */
/* By file name extension; false when there is none that we write or read. */
bool image_format_of_path(const char *path, enum image_format *format);

/* Looks at the first bytes and the header only. `name` is what messages call the picture. */
int codec_probe(struct image_header *header, const char *name, const uint8_t *data, size_t length,
                struct error *err);
/* Decodes to RGB, or RGBA when the file has alpha; JPEG Exif orientation is applied. text may be
 * NULL. */
int codec_decode(struct pixels *pixels, struct image_text *text, const char *name,
                 const uint8_t *data, size_t length, struct error *err);
/* quality 0..100 for WebP (101: lossless); ignored for PNG. text may be NULL. Appends to out. */
int codec_encode(struct buf *out, enum image_format format, const struct pixels *pixels,
                 int quality, const struct image_text *text, struct error *err);

/* Other text in an encoded picture, without touching its pixels. Appends to out. */
int codec_set_text(struct buf *out, const char *name, const uint8_t *data, size_t length,
                   const struct image_text *text, struct error *err);

/* Whole files, format by extension for writing and by content for reading. */
int image_read(struct pixels *pixels, struct image_text *text, const char *path, struct error *err);
int image_write(const struct pixels *pixels, const struct image_text *text, const char *path,
                int quality, struct error *err);

#endif
