#include "image/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define PRECISION_BITS 22

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double sinc(double x)
{
    if (x == 0) return 1;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return x > -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct {
    double (*weight)(double x);
    double support;
} filters[] = {
    [RESIZE_BOX] = {box, 0.5},
    [RESIZE_BILINEAR] = {bilinear, 1},
    [RESIZE_BICUBIC] = {bicubic, 2},
    [RESIZE_LANCZOS] = {lanczos, 3},
};

/* For each output position the first input it reads, how many, and their weights. */
struct taps {
    int *first, *count;
    int *weight; /* [out][room], fixed point */
    int room;
};

static void taps_free(struct taps *t)
{
    free(t->first);
    free(t->count);
    free(t->weight);
}

static void taps_make(struct taps *t, int in, int out, enum resize_filter filter)
{
    double scale = (double)in / out, widened = scale < 1 ? 1 : scale;
    double support = filters[filter].support * widened;
    t->room = (int)ceil(support) * 2 + 1;
    t->first = alloc_zero((size_t)out, sizeof *t->first);
    t->count = alloc_zero((size_t)out, sizeof *t->count);
    t->weight = alloc_zero((size_t)out * (size_t)t->room, sizeof *t->weight);
    double *w = alloc_zero((size_t)t->room, sizeof *w);
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0;
        int from = (int)(center - support + 0.5), to = (int)(center + support + 0.5);
        if (from < 0) from = 0;
        if (to > in) to = in;
        t->first[i] = from;
        t->count[i] = to - from;
        for (int j = 0; j < to - from; j++) {
            w[j] = filters[filter].weight((j + from - center + 0.5) / widened);
            sum += w[j];
        }
        for (int j = 0; j < to - from; j++) {
            double fixed = w[j] / sum * (1 << PRECISION_BITS);
            t->weight[(size_t)i * (size_t)t->room + (size_t)j] =
                (int)(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
        }
    }
    free(w);
}

static uint8_t clamp8(int64_t sum)
{
    sum = (sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void resize_rows(uint8_t *to, const uint8_t *from, const struct taps *t, int in, int out,
                        int rows, int channels)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < out; x++)
            for (int c = 0; c < channels; c++) {
                const int *w = t->weight + (size_t)x * (size_t)t->room;
                const uint8_t *s =
                    from + ((size_t)y * (size_t)in + (size_t)t->first[x]) * (size_t)channels + c;
                int64_t sum = 0;
                for (int j = 0; j < t->count[x]; j++) sum += (int64_t)w[j] * s[j * channels];
                to[((size_t)y * (size_t)out + (size_t)x) * (size_t)channels + (size_t)c] =
                    clamp8(sum);
            }
}

static void resize_columns(uint8_t *to, const uint8_t *from, const struct taps *t, int out,
                           size_t pitch)
{
    for (int y = 0; y < out; y++) {
        const int *w = t->weight + (size_t)y * (size_t)t->room;
        const uint8_t *s = from + (size_t)t->first[y] * pitch;
        for (size_t x = 0; x < pitch; x++) {
            int64_t sum = 0;
            for (int j = 0; j < t->count[y]; j++) sum += (int64_t)w[j] * s[(size_t)j * pitch + x];
            to[(size_t)y * pitch + x] = clamp8(sum);
        }
    }
}

int pixels_resize(struct pixels *to, const struct pixels *from, int width, int height,
                  enum resize_filter filter, struct error *err)
{
    struct pixels wide, result;
    int rc = pixels_new(&wide, width, from->height, from->channels, err);
    if (rc) return rc;
    rc = pixels_new(&result, width, height, from->channels, err);
    if (rc) {
        pixels_release(&wide);
        return rc;
    }
    struct taps t;
    taps_make(&t, from->width, width, filter);
    resize_rows(wide.data, from->data, &t, from->width, width, from->height, from->channels);
    taps_free(&t);
    taps_make(&t, from->height, height, filter);
    resize_columns(result.data, wide.data, &t, height, (size_t)width * (size_t)from->channels);
    taps_free(&t);
    pixels_release(&wide);
    *to = result;
    return 0;
}

int pixels_crop(struct pixels *to, const struct pixels *from, int x, int y, int width, int height,
                struct error *err)
{
    struct pixels result;
    if (x < 0 || y < 0 || width < 1 || height < 1 || width > from->width - x ||
        height > from->height - y)
        return error_set(err, ERR_INVALID,
                         "a crop of %d x %d at %d, %d leaves the picture of %d x %d", width, height,
                         x, y, from->width, from->height);
    int rc = pixels_new(&result, width, height, from->channels, err);
    if (rc) return rc;
    size_t pitch = (size_t)width * (size_t)from->channels;
    for (int i = 0; i < height; i++)
        memcpy(result.data + (size_t)i * pitch,
               from->data +
                   ((size_t)(y + i) * (size_t)from->width + (size_t)x) * (size_t)from->channels,
               pitch);
    *to = result;
    return 0;
}

int pixels_cover(struct pixels *to, const struct pixels *from, int width, int height,
                 enum resize_filter filter, struct error *err)
{
    double scale = fmax((double)width / from->width, (double)height / from->height);
    int w = (int)lround(from->width * scale), h = (int)lround(from->height * scale);
    if (w < width) w = width;
    if (h < height) h = height;
    struct pixels large;
    int rc = pixels_resize(&large, from, w, h, filter, err);
    if (rc) return rc;
    rc = pixels_crop(to, &large, (w - width) / 2, (h - height) / 2, width, height, err);
    pixels_release(&large);
    return rc;
}

int pixels_orient(struct pixels *p, int orientation, struct error *err)
{
    if (orientation <= 1 || orientation > 8) return 0;
    bool swap = orientation >= 5;
    /* Exif: which of the stored axes run backwards once rows and columns are (not) swapped */
    bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    struct pixels turned;
    int rc = pixels_new(&turned, swap ? p->height : p->width, swap ? p->width : p->height,
                        p->channels, err);
    if (rc) return rc;
    for (int y = 0; y < turned.height; y++)
        for (int x = 0; x < turned.width; x++) {
            int sx = swap ? y : x, sy = swap ? x : y;
            if (flip_x) sx = p->width - 1 - sx;
            if (flip_y) sy = p->height - 1 - sy;
            memcpy(turned.data +
                       ((size_t)y * (size_t)turned.width + (size_t)x) * (size_t)p->channels,
                   p->data + ((size_t)sy * (size_t)p->width + (size_t)sx) * (size_t)p->channels,
                   (size_t)p->channels);
        }
    pixels_release(p);
    *p = turned;
    return 0;
}

int pixels_convert(struct pixels *to, const struct pixels *from, int channels, struct error *err)
{
    struct pixels result;
    int rc = pixels_new(&result, from->width, from->height, channels, err);
    if (rc) return rc;
    size_t count = (size_t)from->width * (size_t)from->height;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *s = from->data + i * (size_t)from->channels;
        uint8_t *d = result.data + i * (size_t)channels;
        int a = from->channels == 4 ? s[3] : from->channels == 2 ? s[1] : 255;
        int rgb[3];
        for (int c = 0; c < 3; c++) {
            int v = s[from->channels >= 3 ? c : 0];
            rgb[c] = channels == 4 || channels == 2 ? v : (v * a + 255 * (255 - a) + 127) / 255;
        }
        int grey = (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 32768) >> 16;
        for (int c = 0; c < channels; c++) d[c] = (uint8_t)(channels >= 3 && c < 3 ? rgb[c] : grey);
        if (channels == 4) d[3] = (uint8_t)a;
        if (channels == 2) d[1] = (uint8_t)a;
    }
    *to = result;
    return 0;
}

void pixels_paste(struct pixels *to, const struct pixels *from, int x, int y)
{
    for (int i = 0; i < from->height; i++) {
        int row = y + i;
        int left = x < 0 ? -x : 0, right = from->width;
        if (row < 0 || row >= to->height) continue;
        if (x + right > to->width) right = to->width - x;
        if (right <= left) continue;
        memcpy(to->data +
                   ((size_t)row * (size_t)to->width + (size_t)(x + left)) * (size_t)to->channels,
               from->data +
                   ((size_t)i * (size_t)from->width + (size_t)left) * (size_t)from->channels,
               (size_t)(right - left) * (size_t)to->channels);
    }
}
