#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/alloc.h"
#include "image/codec_table.h"

#define TEXT_BYTES_MAX (1u << 20)
#define XMP_KEYWORD "XML:com.adobe.xmp"

static bool is_png(const uint8_t *data, size_t length)
{
    return length >= 8 && png_sig_cmp(data, 0, 8) == 0;
}

/* The first chunk must be IHDR: width and height at bytes 16..23, colour type at 25. */
static int probe(struct image_header *header, const uint8_t *data, size_t length, struct error *err)
{
    if (length < 33 || memcmp(data + 12, "IHDR", 4) != 0)
        return error_set(err, ERR_FORMAT, "the file has no header chunk");
    uint32_t width = png_get_uint_32(data + 16), height = png_get_uint_32(data + 20);
    if (width > INT32_MAX || height > INT32_MAX)
        return error_set(err, ERR_FORMAT, "a side has more than 2^31 pixels");
    header->width = (int)width;
    header->height = (int)height;
    header->alpha = (data[25] & PNG_COLOR_MASK_ALPHA) != 0;
    return 0;
}

struct png_source {
    const uint8_t *data;
    size_t left;
};

static void on_read(png_structp png, png_bytep to, size_t length)
{
    struct png_source *source = png_get_io_ptr(png);
    if (length > source->left) png_error(png, "the file is cut off");
    memcpy(to, source->data, length);
    source->data += length;
    source->left -= length;
}

static void on_error(png_structp png, png_const_charp message)
{
    struct error *err = png_get_error_ptr(png);
    error_set(err, ERR_FORMAT, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void take_text(png_structp png, png_infop info, struct image_text *text)
{
    png_textp list;
    int count = 0;
    png_get_text(png, info, &list, &count);
    for (int i = 0; i < count; i++) {
        if (!list[i].text || strlen(list[i].text) > TEXT_BYTES_MAX) continue;
        if (strcmp(list[i].key, "parameters") == 0 && !text->parameters)
            text->parameters = alloc_string(list[i].text);
        if (strcmp(list[i].key, XMP_KEYWORD) == 0 && !text->xmp)
            text->xmp = alloc_string(list[i].text);
    }
}

static void ask_for_rgb(png_structp png, png_infop info, bool *alpha)
{
    int colour = png_get_color_type(png, info);
    *alpha = (colour & PNG_COLOR_MASK_ALPHA) || png_get_valid(png, info, PNG_INFO_tRNS);
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static int decode(struct pixels *pixels, struct image_text *text, const struct image_header *header,
                  const uint8_t *data, size_t length, struct error *err)
{
    struct error local = {0};
    struct png_source source = {data, length};
    struct pixels volatile_free = {0};
    png_bytep *volatile rows = NULL;
    struct pixels *volatile result = &volatile_free;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &local, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return error_set(err, ERR_NO_MEMORY, "no memory for the PNG reader");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        pixels_release(result);
        free(rows);
        return error_set(err, local.code ? local.code : ERR_FORMAT, "%s", local.text);
    }
    png_set_user_limits(png, PIXELS_SIDE_MAX_PX, PIXELS_SIDE_MAX_PX);
    png_set_chunk_malloc_max(png, 4u << 20);
    png_set_chunk_cache_max(png, 64);
    png_set_read_fn(png, &source, on_read);
    png_read_info(png, info);
    bool alpha;
    ask_for_rgb(png, info, &alpha);
    size_t pitch = png_get_rowbytes(png, info);
    int channels = alpha ? 4 : 3;
    if (pitch != (size_t)header->width * (size_t)channels) png_error(png, "an odd row size");
    if (pixels_new(result, header->width, header->height, channels, &local)) png_longjmp(png, 1);
    rows = alloc_zero((size_t)header->height, sizeof *rows);
    for (int y = 0; y < header->height; y++) rows[y] = result->data + (size_t)y * pitch;
    png_read_image(png, rows);
    png_read_end(png, info);
    if (text) take_text(png, info, text);
    png_destroy_read_struct(&png, &info, NULL);
    free(rows);
    *pixels = *result;
    return 0;
}

static void on_write(png_structp png, png_bytep data, size_t length)
{
    struct error ignored;
    if (buf_append(png_get_io_ptr(png), data, length, &ignored)) png_error(png, "no memory");
}

static void on_flush(png_structp png)
{
    (void)png;
}

static void put_text(png_structp png, png_infop info, const char *keyword, const char *value)
{
    bool ascii = true;
    for (const char *s = value; *s; s++) ascii = ascii && (unsigned char)*s < 0x80;
    png_text item = {
        .compression = ascii && strcmp(keyword, XMP_KEYWORD) != 0 ? PNG_TEXT_COMPRESSION_NONE
                                                                  : PNG_ITXT_COMPRESSION_NONE,
        .key = (png_charp)(uintptr_t)keyword,
        .text = (png_charp)(uintptr_t)value,
        .text_length = strlen(value),
        .itxt_length = strlen(value),
        .lang = (png_charp)(uintptr_t) "",
        .lang_key = (png_charp)(uintptr_t) "",
    };
    png_set_text(png, info, &item, 1);
}

static int encode(struct buf *out, const struct pixels *pixels, int quality,
                  const struct image_text *text, struct error *err)
{
    static const int colours[] = {0, PNG_COLOR_TYPE_GRAY, 0, PNG_COLOR_TYPE_RGB,
                                  PNG_COLOR_TYPE_RGB_ALPHA};
    struct error local = {0};
    size_t before = out->length;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &local, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return error_set(err, ERR_NO_MEMORY, "no memory for the PNG writer");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        out->length = before;
        return error_set(err, ERR_NO_MEMORY, "writing PNG: %s", local.text);
    }
    png_set_write_fn(png, out, on_write, on_flush);
    png_set_compression_level(png, 6);
    png_set_IHDR(png, info, (png_uint_32)pixels->width, (png_uint_32)pixels->height, 8,
                 colours[pixels->channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (text->parameters) put_text(png, info, "parameters", text->parameters);
    if (text->xmp) put_text(png, info, XMP_KEYWORD, text->xmp);
    png_write_info(png, info);
    size_t pitch = (size_t)pixels->width * (size_t)pixels->channels;
    for (int y = 0; y < pixels->height; y++) png_write_row(png, pixels->data + (size_t)y * pitch);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return 0;
}

static void put_u32(struct buf *out, uint32_t value)
{
    uint8_t bytes[4];
    png_save_uint_32(bytes, value);
    buf_append(out, bytes, 4, NULL);
}

/* An uncompressed iTXt chunk: keyword, 0, flag, method, language, 0, translated keyword, 0, text. */
static void put_itxt(struct buf *out, const char *keyword, const char *value)
{
    size_t k = strlen(keyword), n = strlen(value), at = out->length + 4;
    put_u32(out, (uint32_t)(k + 5 + n));
    buf_append_string(out, "iTXt", NULL);
    buf_append(out, keyword, k + 1, NULL);
    buf_append(out, "\0\0\0\0", 4, NULL);
    buf_append(out, value, n, NULL);
    put_u32(out, (uint32_t)crc32(0, out->data + at, (uInt)(out->length - at)));
}

/* A tEXt chunk, Latin-1: what other programs read first; text beyond ASCII needs iTXt. */
static void put_text_chunk(struct buf *out, const char *keyword, const char *value)
{
    for (const char *s = value; *s; s++)
        if ((unsigned char)*s >= 0x80) {
            put_itxt(out, keyword, value);
            return;
        }
    size_t k = strlen(keyword), n = strlen(value), at = out->length + 4;
    put_u32(out, (uint32_t)(k + 1 + n));
    buf_append_string(out, "tEXt", NULL);
    buf_append(out, keyword, k + 1, NULL);
    buf_append(out, value, n, NULL);
    put_u32(out, (uint32_t)crc32(0, out->data + at, (uInt)(out->length - at)));
}

/* Copies chunk by chunk, leaving out text and putting ours behind the header. */
static int set_text(struct buf *out, const uint8_t *data, size_t length,
                    const struct image_text *text, struct error *err)
{
    size_t extra = 256 + (text->parameters ? strlen(text->parameters) : 0) +
                   (text->xmp ? strlen(text->xmp) : 0);
    if (!buf_reserve(out, length + extra, err)) return ERR_NO_MEMORY;
    buf_append(out, data, 8, NULL);
    for (size_t at = 8; length - at >= 12;) {
        size_t chunk = (size_t)png_get_uint_32(data + at) + 12;
        if (chunk > length - at) return error_set(err, ERR_FORMAT, "the file is cut off");
        const char *type = (const char *)data + at + 4;
        if (memcmp(type, "tEXt", 4) != 0 && memcmp(type, "iTXt", 4) != 0 &&
            memcmp(type, "zTXt", 4) != 0)
            buf_append(out, data + at, chunk, NULL);
        if (memcmp(type, "IHDR", 4) == 0) {
            if (text->parameters) put_text_chunk(out, "parameters", text->parameters);
            if (text->xmp) put_itxt(out, XMP_KEYWORD, text->xmp);
        }
        at += chunk;
    }
    return 0;
}

const struct codec codec_png = {
    .name = "PNG",
    .mime = "image/png",
    .extensions = {"png"},
    .magic = is_png,
    .probe = probe,
    .decode = decode,
    .encode = encode,
    .set_text = set_text,
};
