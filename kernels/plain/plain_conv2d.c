#include <stdlib.h>
#include <string.h>

#include "kernels/plain/plain.h"

/* The input pixel under tap (ky,kx) of output pixel (oy,ox), or -1 outside the picture. */
static int64_t tap_pixel(const struct conv2d_args *a, int64_t oy, int64_t ox, int ky, int kx)
{
    int64_t up = a->upsample == 2 ? 2 : 1, height = a->h * up, width = a->w_px * up;
    int64_t y = oy * a->stride + ky - a->pad_top, x = ox * a->stride + kx - a->pad_left;
    if (a->circular) {
        y = (y % height + height) % height;
        x = (x % width + width) % width;
    }
    if (y < 0 || x < 0 || y >= height || x >= width) return -1;
    return y / up * a->w_px + x / up;
}

/* [out,c,kh,kw] <-> [kh,kw,c,out], so that the innermost loops run over neighbours */
static int64_t tap_offset(const struct conv2d_args *a, int ky, int kx)
{
    return (int64_t)(ky * a->kw + kx) * a->c * a->out;
}

static int64_t weight_index(const struct conv2d_args *a, int64_t o, int64_t c, int ky, int kx)
{
    return ((o * a->c + c) * a->kh + ky) * a->kw + kx;
}

static void taps_from_weight(real *taps, const real *w, const struct conv2d_args *a, bool out_first)
{
    for (int ky = 0; ky < a->kh; ky++) {
        for (int kx = 0; kx < a->kw; kx++) {
            real *tap = taps + tap_offset(a, ky, kx);
            for (int64_t o = 0; o < a->out; o++) {
                for (int64_t c = 0; c < a->c; c++) {
                    tap[out_first ? o * a->c + c : c * a->out + o] =
                        w[weight_index(a, o, c, ky, kx)];
                }
            }
        }
    }
}

/* Calls back for each (output pixel, tap, input pixel) that meets inside the picture. */
typedef void (*tap_function)(const struct conv2d_args *a, real *out_pixel, real *in_pixel,
                             real *tap);

static void each_tap(const struct conv2d_args *a, real *out, real *in, real *taps, tap_function f)
{
    for (int64_t n = 0; n < a->n; n++) {
        for (int64_t oy = 0; oy < a->oh; oy++) {
            for (int64_t ox = 0; ox < a->ow; ox++) {
                real *out_pixel = out + ((n * a->oh + oy) * a->ow + ox) * a->out;
                for (int ky = 0; ky < a->kh; ky++) {
                    for (int kx = 0; kx < a->kw; kx++) {
                        int64_t pixel = tap_pixel(a, oy, ox, ky, kx);
                        if (pixel < 0) continue;
                        real *in_pixel = in + (n * a->h * a->w_px + pixel) * a->c;
                        f(a, out_pixel, in_pixel, taps + tap_offset(a, ky, kx));
                    }
                }
            }
        }
    }
}

static void tap_forward(const struct conv2d_args *a, real *y, real *x, real *tap)
{
    plain_matmul(y, x, tap, 1, a->out, a->c); /* tap [c,out] */
}

static void tap_dx(const struct conv2d_args *a, real *dy, real *dx, real *tap)
{
    plain_matmul(dx, dy, tap, 1, a->c, a->out); /* tap [out,c] */
}

static void tap_dw(const struct conv2d_args *a, real *dy, real *x, real *tap)
{
    plain_matmul(tap, x, dy, a->c, a->out, 1); /* tap [c,out] += x dy */
}

int plain_conv2d(struct device *d, const struct conv2d_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t weights = a->out * a->c * a->kh * a->kw, rows = a->n * a->oh * a->ow;
    const real *x = plain_read(&s, a->x, a->dtype, a->n * a->h * a->w_px * a->c);
    const real *w = plain_read(&s, a->w->data, a->w->dtype, weights);
    real *taps = plain_room(&s, weights);
    real *z = plain_room(&s, rows * a->out); /* `add` may be y's memory */
    int rc = 0;
    if (!s.failed) {
        taps_from_weight(taps, w, a, false);
        each_tap(a, z, (real *)x, taps, tap_forward);
        rc = plain_epilogue(z, rows, a->out, &a->epilogue, a->dtype, a->out, err);
    }
    real *y = plain_write(&s, a->y, a->dtype, rows * a->out, false);
    if (!s.failed && !rc) memcpy(y, z, (size_t)(rows * a->out) * sizeof(real));
    int end = plain_end(&s, "conv2d", err);
    return rc ? rc : end;
}

int plain_conv2d_dx(struct device *d, const struct conv2d_grad_args *g, struct error *err)
{
    const struct conv2d_args *a = &g->conv;
    struct plain_scratch s = {0};
    int64_t weights = a->out * a->c * a->kh * a->kw, inputs = a->n * a->h * a->w_px * a->c;
    const real *dy = plain_read(&s, g->dy, a->dtype, a->n * a->oh * a->ow * a->out);
    const real *w = plain_read(&s, a->w->data, a->w->dtype, weights);
    real *dx = plain_write(&s, g->dx, a->dtype, inputs, g->accumulate);
    real *taps = plain_room(&s, weights);
    real *sum = plain_room(&s, inputs);
    if (!s.failed) {
        taps_from_weight(taps, w, a, true);
        each_tap(a, (real *)dy, sum, taps, tap_dx);
        for (int64_t i = 0; i < inputs; i++) dx[i] = g->accumulate ? dx[i] + sum[i] : sum[i];
    }
    return plain_end(&s, "conv2d_dx", err);
}

int plain_conv2d_dw(struct device *d, const struct conv2d_grad_args *g, struct error *err)
{
    const struct conv2d_args *a = &g->conv;
    struct plain_scratch s = {0};
    const real *dy = plain_read(&s, g->dy, a->dtype, a->n * a->oh * a->ow * a->out);
    const real *x = plain_read(&s, a->x, a->dtype, a->n * a->h * a->w_px * a->c);
    real *taps = plain_room(&s, a->out * a->c * a->kh * a->kw);
    real *dw = g->dw;
    if (!s.failed) {
        each_tap(a, (real *)dy, (real *)x, taps, tap_dw);
        for (int64_t o = 0; o < a->out; o++) {
            for (int64_t c = 0; c < a->c; c++) {
                for (int ky = 0; ky < a->kh; ky++) {
                    for (int kx = 0; kx < a->kw; kx++) {
                        dw[weight_index(a, o, c, ky, kx)] +=
                            taps[tap_offset(a, ky, kx) + c * a->out + o];
                    }
                }
            }
        }
    }
    return plain_end(&s, "conv2d_dw", err);
}
