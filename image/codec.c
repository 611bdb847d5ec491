#include "image/codec.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "image/codec_table.h"

static const struct codec *const codecs[IMAGE_FORMAT_COUNT] = {
    [IMAGE_PNG] = &codec_png,
    [IMAGE_JPEG] = &codec_jpeg,
    [IMAGE_WEBP] = &codec_webp,
};

void image_text_release(struct image_text *text)
{
    if (!text) return;
    free(text->parameters);
    free(text->xmp);
    *text = (struct image_text){0};
}

const char *image_format_name(enum image_format format)
{
    return codecs[format]->name;
}

const char *image_format_mime(enum image_format format)
{
    return codecs[format]->mime;
}

bool image_format_of_path(const char *path, enum image_format *format)
{
    const char *dot = strrchr(path, '.');
    if (!dot) return false;
    for (int i = 0; i < IMAGE_FORMAT_COUNT; i++)
        for (int j = 0; j < 3 && codecs[i]->extensions[j]; j++)
            if (str_equal_nocase(dot + 1, codecs[i]->extensions[j])) {
                *format = (enum image_format)i;
                return true;
            }
    return false;
}

static int check_limits(const struct image_header *h, struct error *err)
{
    if (h->width < 1 || h->height < 1 || h->width > PIXELS_SIDE_MAX_PX ||
        h->height > PIXELS_SIDE_MAX_PX)
        return error_set(err, ERR_INVALID, "%d x %d pixels, each side must be 1 to %d", h->width,
                         h->height, PIXELS_SIDE_MAX_PX);
    if ((int64_t)h->width * h->height > PIXELS_COUNT_MAX)
        return error_set(err, ERR_INVALID, "%d x %d pixels are more than %lld", h->width, h->height,
                         (long long)PIXELS_COUNT_MAX);
    return 0;
}

int codec_probe(struct image_header *header, const char *name, const uint8_t *data, size_t length,
                struct error *err)
{
    if (length > CODEC_BYTES_MAX)
        return error_set(err, ERR_INVALID, "picture %s has %zu bytes, the limit is %u", name,
                         length, CODEC_BYTES_MAX);
    for (int i = 0; i < IMAGE_FORMAT_COUNT; i++) {
        if (!codecs[i]->magic(data, length)) continue;
        struct image_header found = {.format = (enum image_format)i};
        int rc = codecs[i]->probe(&found, data, length, err);
        if (!rc) rc = check_limits(&found, err);
        if (rc) return error_wrap(err, rc, "picture %s (%s)", name, codecs[i]->name);
        *header = found;
        return 0;
    }
    return error_set(err, ERR_FORMAT, "picture %s is none of PNG, JPEG, WebP", name);
}

int codec_decode(struct pixels *pixels, struct image_text *text, const char *name,
                 const uint8_t *data, size_t length, struct error *err)
{
    struct image_header header;
    int rc = codec_probe(&header, name, data, length, err);
    if (rc) return rc;
    struct image_text found = {0};
    const struct codec *codec = codecs[header.format];
    rc = codec->decode(pixels, text ? &found : NULL, &header, data, length, err);
    if (rc) {
        image_text_release(&found);
        return error_wrap(err, rc, "picture %s (%s)", name, codec->name);
    }
    if (text) *text = found;
    return 0;
}

int codec_encode(struct buf *out, enum image_format format, const struct pixels *pixels,
                 int quality, const struct image_text *text, struct error *err)
{
    static const struct image_text nothing;
    if (!codecs[format]->encode)
        return error_set(err, ERR_UNSUPPORTED, "%s pictures are read, not written",
                         codecs[format]->name);
    return codecs[format]->encode(out, pixels, quality, text ? text : &nothing, err);
}

int codec_set_text(struct buf *out, const char *name, const uint8_t *data, size_t length,
                   const struct image_text *text, struct error *err)
{
    struct image_header header;
    int rc = codec_probe(&header, name, data, length, err);
    if (rc) return rc;
    if (!codecs[header.format]->set_text)
        return error_set(err, ERR_UNSUPPORTED, "%s pictures are read, not written",
                         codecs[header.format]->name);
    return codecs[header.format]->set_text(out, data, length, text, err);
}

int image_read(struct pixels *pixels, struct image_text *text, const char *path, struct error *err)
{
    struct buf bytes;
    buf_init(&bytes, CODEC_BYTES_MAX);
    int rc = buf_read_file(&bytes, path, err);
    if (!rc) rc = codec_decode(pixels, text, path, bytes.data, bytes.length, err);
    buf_release(&bytes);
    return rc;
}

int image_write(const struct pixels *pixels, const struct image_text *text, const char *path,
                int quality, struct error *err)
{
    enum image_format format;
    if (!image_format_of_path(path, &format))
        return error_set(err, ERR_INVALID, "%s: pictures are written as .png or .webp", path);
    struct buf bytes;
    buf_init(&bytes, 512u << 20);
    int rc = codec_encode(&bytes, format, pixels, quality, text, err);
    if (!rc) rc = buf_write_file(&bytes, path, 0644, err);
    buf_release(&bytes);
    return rc;
}
