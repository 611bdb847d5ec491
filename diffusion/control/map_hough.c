/* Straight segments: edges vote for lines, the strongest lines give their unbroken stretches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/map.h"

#define ANGLES 180
#define LINES_MAX 400
#define GAP_PX 4

struct votes {
    int *count; /* [ANGLES, rhos] */
    int rhos, offset;
    double cosine[ANGLES], sine[ANGLES];
};

static bool count_votes(struct votes *v, const uint8_t *edge, int w, int h)
{
    v->offset = (int)ceil(hypot(w, h)) + 1;
    v->rhos = 2 * v->offset + 1;
    v->count = alloc_try((size_t)ANGLES * (size_t)v->rhos, sizeof *v->count);
    if (!v->count) return false;
    for (int a = 0; a < ANGLES; a++) {
        v->cosine[a] = cos(a * M_PI / ANGLES);
        v->sine[a] = sin(a * M_PI / ANGLES);
    }
    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            if (!edge[(int64_t)i * w + j]) continue;
            for (int a = 0; a < ANGLES; a++)
                v->count[a * v->rhos + (int)lrint(j * v->cosine[a] + i * v->sine[a]) + v->offset]++;
        }
    return true;
}

/* Walks along a line, draws stretches of at least `least` pixels and takes their edges away. */
static void draw_line(uint8_t *to, uint8_t *edge, int w, int h, double c, double s, double rho,
                      int least)
{
    int reach = w + h, from = 0, last = 0;
    bool open = false;
    for (int t = -reach; t <= reach + GAP_PX + 1; t++) {
        int x = (int)lrint(rho * c - t * s), y = (int)lrint(rho * s + t * c);
        bool on = false;
        for (int d = -1; d <= 1 && !on; d++) {
            int xx = x + (fabs(c) > fabs(s) ? d : 0), yy = y + (fabs(c) > fabs(s) ? 0 : d);
            on = xx >= 0 && yy >= 0 && xx < w && yy < h && edge[(int64_t)yy * w + xx];
        }
        if (on) {
            if (!open) from = t;
            open = true;
            last = t;
            continue;
        }
        if (!open || t - last <= GAP_PX) continue;
        open = false;
        for (int u = from; last - from + 1 >= least && u <= last; u++) {
            int px = (int)lrint(rho * c - u * s), py = (int)lrint(rho * s + u * c);
            for (int d = -1; d <= 1; d++) {
                int xx = px + (fabs(c) > fabs(s) ? d : 0), yy = py + (fabs(c) > fabs(s) ? 0 : d);
                if (xx < 0 || yy < 0 || xx >= w || yy >= h) continue;
                edge[(int64_t)yy * w + xx] = 0;
                if (d == 0) to[(int64_t)yy * w + xx] = 255;
            }
        }
    }
}

int map_hough(struct pixels *to, const struct pixels *from, struct error *err)
{
    int w = from->width, h = from->height, least = (w < h ? w : h) / 16;
    if (least < 8) least = 8;
    struct votes v = {0};
    uint8_t *edge = map_edges(from, 100, 200), *out = alloc_try((size_t)w * (size_t)h, 1);
    bool ok = edge && out && count_votes(&v, edge, w, h);
    for (int line = 0; ok && line < LINES_MAX; line++) {
        int best = 0;
        for (int k = 1; k < ANGLES * v.rhos; k++)
            if (v.count[k] > v.count[best]) best = k;
        if (v.count[best] < least) break;
        int a = best / v.rhos, r = best % v.rhos;
        draw_line(out, edge, w, h, v.cosine[a], v.sine[a], r - v.offset, least);
        /* this line and its closest neighbours have had their turn */
        for (int da = -2; da <= 2; da++)
            for (int dr = -2; dr <= 2; dr++) {
                int aa = (a + da + ANGLES) % ANGLES, rr = r + dr;
                if (a + da < 0 || a + da >= ANGLES) rr = v.rhos - 1 - rr;
                if (rr >= 0 && rr < v.rhos) v.count[aa * v.rhos + rr] = 0;
            }
    }
    int rc = ok ? map_from_bytes(to, from, out, err)
                : error_set(err, ERR_NO_MEMORY, "no memory for a control map");
    free(v.count);
    free(edge);
    free(out);
    return rc;
}
