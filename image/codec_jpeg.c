#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "image/codec_table.h"
#include "image/resize.h"

#define SCANS_MAX 100

struct jpeg_failure {
    struct jpeg_error_mgr base;
    jmp_buf jump;
    struct error *err;
};

static bool is_jpeg(const uint8_t *data, size_t length)
{
    return length >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

static void on_error(j_common_ptr common)
{
    struct jpeg_failure *failure = (struct jpeg_failure *)common->err;
    char message[JMSG_LENGTH_MAX];
    common->err->format_message(common, message);
    error_set(failure->err, ERR_FORMAT, "%s", message);
    longjmp(failure->jump, 1);
}

/* Warnings are damage: fatal (reliability F1). Traces (level >= 0) are not. */
static void on_message(j_common_ptr common, int level)
{
    if (level < 0) on_error(common);
}

static void on_progress(j_common_ptr common)
{
    struct jpeg_decompress_struct *jpeg = (struct jpeg_decompress_struct *)common;
    if (jpeg->input_scan_number > SCANS_MAX) {
        struct jpeg_failure *failure = (struct jpeg_failure *)common->err;
        error_set(failure->err, ERR_FORMAT, "more than %d scans", SCANS_MAX);
        longjmp(failure->jump, 1);
    }
}

static void start(struct jpeg_decompress_struct *jpeg, struct jpeg_failure *failure,
                  struct error *err)
{
    jpeg->err = jpeg_std_error(&failure->base);
    failure->base.error_exit = on_error;
    failure->base.emit_message = on_message;
    failure->err = err;
    jpeg_create_decompress(jpeg);
}

static int probe(struct image_header *header, const uint8_t *data, size_t length, struct error *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    struct jpeg_failure failure;
    if (setjmp(failure.jump)) {
        jpeg_destroy_decompress(&jpeg);
        return ERR_FORMAT;
    }
    start(&jpeg, &failure, err);
    jpeg_mem_src(&jpeg, (unsigned char *)(uintptr_t)data, length);
    jpeg_read_header(&jpeg, TRUE);
    header->width = (int)jpeg.image_width;
    header->height = (int)jpeg.image_height;
    jpeg_destroy_decompress(&jpeg);
    return 0;
}

static unsigned read_number(const uint8_t *at, int bytes, bool little)
{
    unsigned value = 0;
    for (int i = 0; i < bytes; i++) value = value << 8 | at[little ? bytes - 1 - i : i];
    return value;
}

/* Exif tag 0x0112 in the first APP1; 1 when there is none. */
static int exif_orientation(const struct jpeg_decompress_struct *jpeg)
{
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next) {
        const uint8_t *d = m->data;
        size_t n = m->data_length;
        if (m->marker != JPEG_APP0 + 1 || n < 14 || memcmp(d, "Exif\0\0", 6) != 0) continue;
        d += 6;
        n -= 6;
        bool little = d[0] == 'I';
        size_t at = read_number(d + 4, 4, little);
        if (at > n || n - at < 2) return 1;
        unsigned entries = read_number(d + at, 2, little);
        for (at += 2; entries && n - at >= 12; entries--, at += 12)
            if (read_number(d + at, 2, little) == 0x0112) {
                unsigned value = read_number(d + at + 8, 2, little);
                return value >= 1 && value <= 8 ? (int)value : 1;
            }
    }
    return 1;
}

static int decode(struct pixels *pixels, struct image_text *text, const struct image_header *header,
                  const uint8_t *data, size_t length, struct error *err)
{
    struct jpeg_decompress_struct jpeg = {0};
    struct jpeg_failure failure;
    struct jpeg_progress_mgr progress = {.progress_monitor = on_progress};
    struct pixels storage = {0};
    struct pixels *volatile result = &storage;
    struct error local = {0};
    (void)text;
    if (setjmp(failure.jump)) {
        jpeg_destroy_decompress(&jpeg);
        pixels_release(result);
        return error_set(err, local.code, "%s", local.text);
    }
    start(&jpeg, &failure, &local);
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_mem_src(&jpeg, (unsigned char *)(uintptr_t)data, length);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.progress = &progress;
    jpeg.out_color_space = JCS_RGB; /* CMYK files fail by name: no such conversion */
    jpeg_start_decompress(&jpeg);
    if (pixels_new(result, header->width, header->height, 3, &local)) longjmp(failure.jump, 1);
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = result->data + (size_t)jpeg.output_scanline * (size_t)header->width * 3;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    int orientation = exif_orientation(&jpeg);
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    int rc = pixels_orient(result, orientation, err);
    if (rc) {
        pixels_release(result);
        return rc;
    }
    *pixels = *result;
    return 0;
}

const struct codec codec_jpeg = {
    .name = "JPEG",
    .mime = "image/jpeg",
    .extensions = {"jpg", "jpeg"},
    .magic = is_jpeg,
    .probe = probe,
    .decode = decode,
};
