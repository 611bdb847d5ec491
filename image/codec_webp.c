#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include "base/alloc.h"
#include "image/codec_table.h"

#define XMP_BYTES_MAX (1u << 20)

static bool is_webp(const uint8_t *data, size_t length)
{
    return length >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0;
}

static int probe(struct image_header *header, const uint8_t *data, size_t length, struct error *err)
{
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(data, length, &features) != VP8_STATUS_OK)
        return error_set(err, ERR_FORMAT, "the header is damaged or cut off");
    if (features.has_animation) return error_set(err, ERR_FORMAT, "it is animated");
    header->width = features.width;
    header->height = features.height;
    header->alpha = features.has_alpha != 0;
    return 0;
}

static void take_text(struct image_text *text, const uint8_t *data, size_t length)
{
    WebPData whole = {data, length}, chunk;
    WebPMux *mux = WebPMuxCreate(&whole, 0);
    if (mux && WebPMuxGetChunk(mux, "XMP ", &chunk) == WEBP_MUX_OK && chunk.size <= XMP_BYTES_MAX &&
        !memchr(chunk.bytes, 0, chunk.size))
        text->xmp = alloc_string_n((const char *)chunk.bytes, chunk.size);
    WebPMuxDelete(mux);
}

static int decode(struct pixels *pixels, struct image_text *text, const struct image_header *header,
                  const uint8_t *data, size_t length, struct error *err)
{
    struct pixels p;
    int channels = header->alpha ? 4 : 3;
    int rc = pixels_new(&p, header->width, header->height, channels, err);
    if (rc) return rc;
    int pitch = header->width * channels;
    size_t bytes = (size_t)pitch * (size_t)header->height;
    uint8_t *ok = header->alpha ? WebPDecodeRGBAInto(data, length, p.data, bytes, pitch)
                                : WebPDecodeRGBInto(data, length, p.data, bytes, pitch);
    if (!ok) {
        pixels_release(&p);
        return error_set(err, ERR_FORMAT, "the picture is damaged or cut off");
    }
    if (text) take_text(text, data, length);
    *pixels = p;
    return 0;
}

static int import(WebPPicture *picture, const struct pixels *pixels)
{
    picture->width = pixels->width;
    picture->height = pixels->height;
    if (pixels->channels == 4)
        return WebPPictureImportRGBA(picture, pixels->data, pixels->width * 4);
    if (pixels->channels == 3)
        return WebPPictureImportRGB(picture, pixels->data, pixels->width * 3);
    return 0;
}

static int add_text(struct buf *out, const uint8_t *data, size_t length, const char *xmp,
                    struct error *err)
{
    WebPData whole = {data, length}, joined = {0};
    WebPData packet = {(const uint8_t *)xmp, strlen(xmp)};
    WebPMux *mux = WebPMuxCreate(&whole, 0);
    int rc = 0;
    if (!mux || WebPMuxSetChunk(mux, "XMP ", &packet, 0) != WEBP_MUX_OK ||
        WebPMuxAssemble(mux, &joined) != WEBP_MUX_OK)
        rc = error_set(err, ERR_NO_MEMORY, "no memory to put text into a WebP picture");
    else
        rc = buf_append(out, joined.bytes, joined.size, err);
    WebPDataClear(&joined);
    WebPMuxDelete(mux);
    return rc;
}

static int encode(struct buf *out, const struct pixels *pixels, int quality,
                  const struct image_text *text, struct error *err)
{
    WebPConfig config;
    WebPPicture picture;
    WebPMemoryWriter writer;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture))
        return error_set(err, ERR_INTERNAL, "libwebp has another version than the headers");
    config.quality = quality > 100 ? 100 : (float)quality;
    config.lossless = quality > 100;
    config.exact = quality > 100;
    config.method = 4;
    picture.use_argb = config.lossless;
    WebPMemoryWriterInit(&writer);
    picture.writer = WebPMemoryWrite;
    picture.custom_ptr = &writer;
    int rc = 0;
    if (!import(&picture, pixels) || !WebPEncode(&config, &picture))
        rc = error_set(err, ERR_NO_MEMORY, "encoding WebP failed with code %d", picture.error_code);
    else if (text->xmp)
        rc = add_text(out, writer.mem, writer.size, text->xmp, err);
    else
        rc = buf_append(out, writer.mem, writer.size, err);
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&writer);
    return rc;
}

static int set_text(struct buf *out, const uint8_t *data, size_t length,
                    const struct image_text *text, struct error *err)
{
    return text->xmp ? add_text(out, data, length, text->xmp, err)
                     : buf_append(out, data, length, err);
}

const struct codec codec_webp = {
    .name = "WebP",
    .mime = "image/webp",
    .extensions = {"webp"},
    .magic = is_webp,
    .probe = probe,
    .decode = decode,
    .encode = encode,
    .set_text = set_text,
};
