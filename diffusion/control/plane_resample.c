/*
 * Other sizes of a plane of floats, separable: shrinking by the share of each source pixel that an
 * output pixel covers, enlarging by Lanczos' window of four lobes or by cubics. As cv2's INTER_AREA,
 * INTER_LANCZOS4 and INTER_CUBIC give them, borders repeated. Bytes between two pixels likewise.
 */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"

#define PI 3.14159265358979323846

/* Output i of one axis: weights of `count` inputs from `first` on; those outside are the border. */
struct window {
    int first, count;
    float *weight;
};

static double lobe(double t)
{
    return fabs(t) < 1e-6 ? 1 : sin(PI * t) / (PI * t);
}

static void cover(struct window *o, int i, double ratio, int n)
{
    double from = i * ratio, to = fmin(from + ratio, n);
    o->first = (int)from;
    o->count = 0;
    for (int k = o->first; k < n && k < to; k++) {
        double share = (fmin(to, k + 1) - fmax(from, k)) / (to - from);
        o->weight[o->count++] = (float)share;
    }
}

static void lanczos(struct window *o, int i, double ratio)
{
    double at = (i + 0.5) * ratio - 0.5, sum = 0, w[8];
    o->first = (int)floor(at) - 3;
    o->count = 8;
    for (int k = 0; k < 8; k++) {
        double t = at - (o->first + k);
        sum += w[k] = lobe(t) * lobe(t / 4);
    }
    for (int k = 0; k < 8; k++) o->weight[k] = (float)(w[k] / sum);
}

static void cubic(struct window *o, int i, double ratio)
{
    const float a = -0.75f;
    float at = (float)((i + 0.5) * ratio - 0.5), x = at - floorf(at);
    o->first = (int)floorf(at) - 1;
    o->count = 4;
    o->weight[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    o->weight[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    o->weight[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    o->weight[3] = 1 - o->weight[0] - o->weight[1] - o->weight[2];
}

/* The windows of an axis and their weights in one block; NULL without memory. */
static struct window *windows(int out, int in, enum plane_way way)
{
    double ratio = (double)in / out;
    size_t room = way == PLANE_AREA ? (size_t)ratio + 3 : 8, n = (size_t)out;
    struct window *list = alloc_try(n * (sizeof *list + room * sizeof(float)), 1);
    if (!list) return NULL;
    float *weights = (float *)(list + n);
    for (int i = 0; i < out; i++) {
        list[i].weight = weights + (size_t)i * room;
        if (way == PLANE_AREA)
            cover(&list[i], i, ratio, in);
        else if (way == PLANE_CUBIC)
            cubic(&list[i], i, ratio);
        else
            lanczos(&list[i], i, ratio);
    }
    return list;
}

static int within(int i, int n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}

bool plane_resample(float *to, int ow, int oh, const float *from, int w, int h, enum plane_way way)
{
    struct window *across = windows(ow, w, way), *down = windows(oh, h, way);
    float *rows = alloc_try((size_t)ow * (size_t)h, sizeof *rows);
    bool ok = across && down && rows;
    for (int i = 0; ok && i < ow * h; i++) {
        const struct window *o = &across[i % ow];
        const float *row = from + (int64_t)(i / ow) * w;
        float sum = 0;
        for (int k = 0; k < o->count; k++) sum += o->weight[k] * row[within(o->first + k, w)];
        rows[i] = sum;
    }
    for (int y = 0; ok && y < oh; y++) {
        const struct window *o = &down[y];
        float *line = to + (int64_t)y * ow;
        for (int x = 0; x < ow; x++) line[x] = 0;
        for (int k = 0; k < o->count; k++) {
            const float *row = rows + (int64_t)within(o->first + k, h) * ow;
            for (int x = 0; x < ow; x++) line[x] += o->weight[k] * row[x];
        }
    }
    free(across);
    free(down);
    free(rows);
    return ok;
}

/* ---- bytes ---- */

#define FIXED 2048 /* cv2's fractional bits: 11 for each direction */

struct pair {
    int first, second;
    int32_t share[2];
};

static struct pair between(int i, int n, int m, bool by_area)
{
    double ratio = 1 / ((double)n / m); /* as cv2 rounds it */
    float at = (float)(((double)i + 0.5) * ratio - 0.5);
    int low = by_area ? (int)floor(i * ratio) : (int)floorf(at);
    float f = at - (float)low;
    if (by_area) {
        f = (float)((i + 1) - (low + 1) * ((double)n / m));
        f = f <= 0 ? 0 : f - floorf(f);
    }
    if (low < 0) low = 0, f = 0;
    if (low >= m - 1) low = m - 1, f = 0;
    return (struct pair){.first = low,
                         .second = low + 1 < m ? low + 1 : low,
                         .share = {(int32_t)lrintf((1 - f) * FIXED), (int32_t)lrintf(f * FIXED)}};
}

int pixels_resize_linear(struct pixels *to, const struct pixels *from, int width, int height,
                         bool by_area, struct error *err)
{
    struct pixels made;
    int rc = pixels_new(&made, width, height, 3, err);
    if (rc) return rc;
    for (int y = 0; y < height; y++) {
        struct pair v = between(y, height, from->height, by_area);
        const uint8_t *above = from->data + (size_t)v.first * (size_t)from->width * 3;
        const uint8_t *below = from->data + (size_t)v.second * (size_t)from->width * 3;
        for (int x = 0; x < width; x++) {
            struct pair u = between(x, width, from->width, by_area);
            for (int k = 0; k < 3; k++) {
                int a = u.first * 3 + k, b = u.second * 3 + k;
                int32_t top = above[a] * u.share[0] + above[b] * u.share[1];
                int32_t bottom = below[a] * u.share[0] + below[b] * u.share[1];
                made.data[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)k] =
                    (uint8_t)((((v.share[0] * (top >> 4)) >> 16) +
                               ((v.share[1] * (bottom >> 4)) >> 16) + 2) >>
                              2);
            }
        }
    }
    *to = made;
    return 0;
}
