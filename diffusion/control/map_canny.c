/* Canny's edge detector without a blur of its own, thresholds 100 and 200 on |gx| + |gy|. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/control/map.h"

enum mark { EDGE_NONE, EDGE_WEAK, EDGE_SURE };

static float at(const float *x, int w, int h, int i, int j)
{
    i = i < 0 ? 0 : i >= h ? h - 1 : i;
    j = j < 0 ? 0 : j >= w ? w - 1 : j;
    return x[(int64_t)i * w + j];
}

static void sobel(const float *g, int w, int h, float *gx, float *gy)
{
    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            float a = at(g, w, h, i - 1, j - 1), b = at(g, w, h, i - 1, j),
                  c = at(g, w, h, i - 1, j + 1), d = at(g, w, h, i, j - 1),
                  f = at(g, w, h, i, j + 1), k = at(g, w, h, i + 1, j - 1),
                  l = at(g, w, h, i + 1, j), m = at(g, w, h, i + 1, j + 1);
            gx[(int64_t)i * w + j] = c + 2 * f + m - a - 2 * d - k;
            gy[(int64_t)i * w + j] = k + 2 * l + m - a - 2 * b - c;
        }
}

/* Strength at a pixel; zero outside. */
static float strength(const float *gx, const float *gy, int w, int h, int i, int j)
{
    if (i < 0 || j < 0 || i >= h || j >= w) return 0;
    int64_t k = (int64_t)i * w + j;
    return fabsf(gx[k]) + fabsf(gy[k]);
}

/* Whether the pixel is the strongest across the edge; 22.5 and 67.5 degrees part the directions. */
static bool strongest(const float *gx, const float *gy, int w, int h, int i, int j)
{
    int64_t k = (int64_t)i * w + j;
    float x = fabsf(gx[k]), y = fabsf(gy[k]), s = x + y;
    int di, dj;
    if (y < 0.41421356f * x) {
        di = 0;
        dj = 1;
    } else if (y > 2.4142135f * x) {
        di = 1;
        dj = 0;
    } else {
        di = 1;
        dj = (gx[k] < 0) != (gy[k] < 0) ? -1 : 1;
    }
    return s > strength(gx, gy, w, h, i - di, j - dj) &&
           s >= strength(gx, gy, w, h, i + di, j + dj);
}

/* Weak edges that hang on sure ones become sure. */
static bool follow(uint8_t *mark, int w, int h)
{
    int64_t n = (int64_t)w * h, depth = 0;
    int64_t *stack = alloc_try((size_t)n, sizeof *stack);
    if (!stack) return false;
    for (int64_t k = 0; k < n; k++)
        if (mark[k] == EDGE_SURE) stack[depth++] = k;
    while (depth > 0) {
        int64_t k = stack[--depth];
        int i = (int)(k / w), j = (int)(k % w);
        for (int di = -1; di <= 1; di++)
            for (int dj = -1; dj <= 1; dj++) {
                if (i + di < 0 || i + di >= h || j + dj < 0 || j + dj >= w) continue;
                int64_t next = k + (int64_t)di * w + dj;
                if (mark[next] != EDGE_WEAK) continue;
                mark[next] = EDGE_SURE;
                stack[depth++] = next;
            }
    }
    free(stack);
    return true;
}

uint8_t *map_edges(const struct pixels *from, float low, float high)
{
    int w = from->width, h = from->height;
    int64_t n = (int64_t)w * h;
    float *grey = map_grey(from), *gx = alloc_try((size_t)n, sizeof *gx),
          *gy = alloc_try((size_t)n, sizeof *gy);
    uint8_t *mark = alloc_try((size_t)n, 1);
    bool ok = grey && gx && gy && mark;
    for (int64_t k = 0; ok && k < n; k++) grey[k] = rintf(grey[k]);
    if (ok) sobel(grey, w, h, gx, gy);
    for (int i = 0; ok && i < h; i++)
        for (int j = 0; j < w; j++) {
            float s = strength(gx, gy, w, h, i, j);
            if (s <= low || !strongest(gx, gy, w, h, i, j)) continue;
            mark[(int64_t)i * w + j] = s > high ? EDGE_SURE : EDGE_WEAK;
        }
    ok = ok && follow(mark, w, h);
    for (int64_t k = 0; ok && k < n; k++) mark[k] = mark[k] == EDGE_SURE ? 255 : 0;
    free(grey);
    free(gx);
    free(gy);
    if (ok) return mark;
    free(mark);
    return NULL;
}

int map_canny(struct pixels *to, const struct pixels *from, struct error *err)
{
    uint8_t *edges = map_edges(from, 100, 200);
    if (!edges) return error_set(err, ERR_NO_MEMORY, "no memory for a control map");
    int rc = map_from_bytes(to, from, edges, err);
    free(edges);
    return rc;
}
