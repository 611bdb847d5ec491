#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

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

const struct codec codec_png = {
    .name = "PNG",
    .mime = "image/png",
    .extensions = {"png"},
    .magic = is_png,
    .probe = probe,
    .decode = decode,
    .encode = encode,
};
