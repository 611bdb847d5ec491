/* The foreground's own colours, coarse to fine. Source: Germer et al. 2020, constants of pymatting. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/matte/matting.h"

#define REGULARISATION 1e-5f
#define SMALL_PX 32
#define SMALL_ROUNDS 10
#define LARGE_ROUNDS 2

struct level {
    int w, h;
    float *image, *alpha; /* the source, nearest */
    float *fore, *back;   /* [h,w,3] */
};

static int64_t source_of(int64_t at, int from, int to)
{
    int64_t s = at * from / to;
    return s < from ? s : from - 1;
}

/* [h,w,n] from [fh,fw,n] */
static void nearest(float *to, int w, int h, const float *from, int fw, int fh, int n)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            memcpy(to + ((int64_t)y * w + x) * n,
                   from + (source_of(y, fh, h) * fw + source_of(x, fw, w)) * n,
                   (size_t)n * sizeof *to);
}

/* One pixel from its neighbours: the two colours that mix to what is seen and differ least from
 * theirs. In place, row after row, so that a round carries on what it found. */
static void settle(struct level *l, int x, int y)
{
    static const int dx[4] = {-1, 1, 0, 0}, dy[4] = {0, 0, -1, 1};
    int64_t at = (int64_t)y * l->w + x;
    double a0 = (double)l->alpha[at], a1 = 1 - a0, a00 = a0 * a0, a01 = a0 * a1, a11 = a1 * a1;
    double fore[3], back[3];
    for (int c = 0; c < 3; c++) {
        fore[c] = a0 * (double)l->image[at * 3 + c];
        back[c] = a1 * (double)l->image[at * 3 + c];
    }
    for (int d = 0; d < 4; d++) {
        int nx = x + dx[d], ny = y + dy[d];
        nx = nx < 0 ? 0 : nx < l->w ? nx : l->w - 1;
        ny = ny < 0 ? 0 : ny < l->h ? ny : l->h - 1;
        int64_t n = (int64_t)ny * l->w + nx;
        double weight = (double)(REGULARISATION + fabsf(l->alpha[at] - l->alpha[n]));
        a00 += weight;
        a11 += weight;
        for (int c = 0; c < 3; c++) {
            fore[c] += weight * (double)l->fore[n * 3 + c];
            back[c] += weight * (double)l->back[n * 3 + c];
        }
    }
    double det = a00 * a11 - a01 * a01;
    for (int c = 0; c < 3; c++) {
        double f = (a11 * fore[c] - a01 * back[c]) / det, b = (a00 * back[c] - a01 * fore[c]) / det;
        l->fore[at * 3 + c] = (float)fmin(fmax(f, 0), 1);
        l->back[at * 3 + c] = (float)fmin(fmax(b, 0), 1);
    }
}

/* The mean colours of what is nearly all foreground and nearly all background. */
static void means(float fore[3], float back[3], const float *image, const float *alpha, int64_t n)
{
    double count[2] = {1e-5, 1e-5}, sum[2][3] = {{0}};
    for (int64_t i = 0; i < n; i++) {
        if (alpha[i] <= 0.9f && alpha[i] >= 0.1f) continue;
        int side = alpha[i] < 0.1f;
        count[side]++;
        for (int c = 0; c < 3; c++) sum[side][c] += (double)image[i * 3 + c];
    }
    for (int c = 0; c < 3; c++) {
        fore[c] = (float)(sum[0][c] / count[0]);
        back[c] = (float)(sum[1][c] / count[1]);
    }
}

static void refine(struct level *l, const float *image, const float *alpha, int w, int h)
{
    nearest(l->image, l->w, l->h, image, w, h, 3);
    nearest(l->alpha, l->w, l->h, alpha, w, h, 1);
    int rounds = l->w <= SMALL_PX && l->h <= SMALL_PX ? SMALL_ROUNDS : LARGE_ROUNDS;
    for (int r = 0; r < rounds; r++)
        for (int y = 0; y < l->h; y++)
            for (int x = 0; x < l->w; x++) settle(l, x, y);
}

int matting_colour(float *colour, const struct pixels *rgb, const double *alpha, struct error *err)
{
    int w = rgb->width, h = rgb->height, longer = w > h ? w : h;
    int levels = (int)ceil(log2(longer));
    size_t n = (size_t)w * (size_t)h;
    float *memory = alloc_try(n * 18, sizeof *memory);
    if (!memory) return error_set(err, ERR_NO_MEMORY, "no memory for the foreground's colours");
    float *image = memory, *share = image + 3 * n, *old_fore = share + n,
          *old_back = old_fore + 3 * n;
    struct level l = {.image = old_back + 3 * n};
    l.alpha = l.image + 3 * n;
    l.fore = colour;
    l.back = l.alpha + n;
    for (size_t i = 0; i < n; i++) {
        share[i] = (float)alpha[i];
        for (size_t c = 0; c < 3; c++)
            image[i * 3 + c] = (float)(rgb->data[i * (size_t)rgb->channels + c] / 255.0);
    }
    means(old_fore, old_back, image, share, (int64_t)n);
    int old_w = 1, old_h = 1;
    for (int i = 0; i <= levels; i++) {
        double part = levels ? (double)i / levels : 1;
        l.w = (int)rint(pow(w, part));
        l.h = (int)rint(pow(h, part));
        nearest(l.fore, l.w, l.h, old_fore, old_w, old_h, 3);
        nearest(l.back, l.w, l.h, old_back, old_w, old_h, 3);
        refine(&l, image, share, w, h);
        old_w = l.w;
        old_h = l.h;
        memcpy(old_fore, l.fore, (size_t)l.w * (size_t)l.h * 3 * sizeof *l.fore);
        memcpy(old_back, l.back, (size_t)l.w * (size_t)l.h * 3 * sizeof *l.back);
    }
    free(memory);
    return 0;
}
