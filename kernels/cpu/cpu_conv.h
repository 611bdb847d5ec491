/*
 * cpu_conv.h - where a convolution's taps look, and one whose weight is at hand.
 *
 * Place    cpu_conv.c, for cpu_norm_conv, which does it part by part, and cpu_int8.
 * Failure  ERR_NO_MEMORY.
 */
#ifndef KERNELS_CPU_CPU_CONV_H
#define KERNELS_CPU_CPU_CONV_H

#include "kernels/cpu/cpu_pack.h"

/* Where output pixel (y, x) and tap (i, j) look in the source picture:
 *   line = y * stride + i - pad_y, divided by `divide` when that leaves nothing over (a strided
 *   convolution's derivative), and shifted right by `shift` (an enlarged source). */
struct window {
    const char *data;
    int64_t h, w, c; /* source as it lies in memory */
    int64_t oh, ow;  /* pixels that rows of A stand for */
    int64_t kh, kw;
    int64_t stride, pad_y, pad_x, divide;
    int shift;
    bool circular;
    int64_t bytes; /* of an element */
    enum dtype dtype;
};

/* Line or column of the source for a position before padding; -1: reads zero. */
ALWAYS_INLINE int64_t source_at(int64_t position, int64_t size, int64_t divide, int shift,
                                bool circular)
{
    int64_t full = size << shift;
    if (divide > 1) {
        if (circular) {
            int64_t whole = size * divide;
            position = (position % whole + whole) % whole;
        }
        if (position < 0 || position % divide) return -1;
        position /= divide;
        return position < size ? position : -1;
    }
    if (circular) position = (position % full + full) % full;
    return position < 0 || position >= full ? -1 : position >> shift;
}

struct pixel {
    const char *image;
    int64_t y, x; /* times stride, minus padding */
};

ALWAYS_INLINE void locate(const struct window *w, struct pixel *pixel, int64_t m0, int64_t rows)
{
    int64_t x = m0 % w->ow, line = m0 / w->ow, y = line % w->oh, image = line / w->oh;
    for (int64_t r = 0; r < rows; r++) {
        pixel[r] = (struct pixel){w->data + image * w->h * w->w * w->c * w->bytes,
                                  y * w->stride - w->pad_y, x * w->stride - w->pad_x};
        if (++x < w->ow) continue;
        x = 0;
        if (++y < w->oh) continue;
        y = 0;
        image++;
    }
}

/* First element of tap (i, j) of a pixel, or NULL where it reads zero. */
ALWAYS_INLINE const char *tap_at(const struct window *w, const struct pixel *p, int64_t i,
                                 int64_t j)
{
    int64_t y = p->y + i, x = p->x + j;
    if (w->divide == 1 && !w->shift && !w->circular) {
        if ((uint64_t)y >= (uint64_t)w->h || (uint64_t)x >= (uint64_t)w->w) return NULL;
    } else {
        y = source_at(y, w->h, w->divide, w->shift, w->circular);
        x = source_at(x, w->w, w->divide, w->shift, w->circular);
        if (y < 0 || x < 0) return NULL;
    }
    return p->image + (y * w->w + x) * w->c * w->bytes;
}

ALWAYS_INLINE struct window window_of(const struct conv2d_args *a)
{
    return (struct window){
        .data = a->x,
        .h = a->h,
        .w = a->w_px,
        .c = a->c,
        .oh = a->oh,
        .ow = a->ow,
        .kh = a->kh,
        .kw = a->kw,
        .stride = a->stride > 0 ? a->stride : 1,
        .pad_y = a->pad_top,
        .pad_x = a->pad_left,
        .divide = 1,
        .shift = a->upsample == 2,
        .circular = a->circular,
        .bytes = a->dtype == DTYPE_F32 ? 4 : 2,
        .dtype = a->dtype,
    };
}

/* Without phases or Winograd's planes; b is the weight's PACK_FORWARD. `direct`: the picture with a border of a pixel
 * on each side, which a->x then is not asked for; or NULL. */
int CPU_NAME(conv2d_with)(struct device *d, const struct conv2d_args *a, const struct pack_b *b,
                          const struct direct *direct, struct error *err);
#define conv2d_with CPU_NAME(conv2d_with)

#endif
