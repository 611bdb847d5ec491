/*
 * Straight lines. Source: Gu et al. 2022 (M-LSD), the large network over MobileNetV2 (Sandler et
 * al. 2018) and its decoding, as navervision/mlsd and comfyui_controlnet_aux have them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"
#include "diffusion/control/map.h"

#define BLOCKS 13 /* inverted residuals */
#define JOINS 4
#define LINES_MAX 200
#define LEAST_SCORE 0.1f
#define LEAST_LENGTH 0.1f
#define CENTRE 7 /* channel of the result; then two ends, x and y each */
#define CHANNELS 12

/* of each residual: whether it halves; the first has no widening convolution, and narrows: it is
 * never added to what it comes from */
static const uint8_t halves[BLOCKS] = {0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
static const int looked_at[JOINS + 1] = {0, 2, 5, 9, 12}; /* residuals whose results are joined */

struct residual {
    struct conv_norm widen, depthwise, narrow;
    int64_t in, hidden, out;
};
struct join {
    struct conv_norm deep, shallow, same, mix;
    int64_t deep_in, shallow_in, deep_out, shallow_out, out;
};
struct mlsd {
    struct conv_norm first;
    struct residual residual[BLOCKS];
    struct join join[JOINS];
    struct conv_norm spread, smooth, last;
    int64_t first_out, last_in, last_out;
};

static void path_of(char *name, size_t room, int i, int k, const char *rest)
{
    snprintf(name, room, "backbone.features.%d.conv.%d%s", i + 1, k, rest);
}

static int detect(struct mlsd *m, const struct annotator *a, struct error *err)
{
    char name[80];
    m->first_out = annotator_dim(a, "backbone.features.0.0.weight", 0);
    int64_t before = m->first_out;
    bool ok = before > 0 && annotator_dim(a, "backbone.features.0.0.weight", 1) == 4;
    for (int i = 0; i < BLOCKS; i++) {
        struct residual *r = &m->residual[i];
        path_of(name, sizeof name, i, i ? 1 : 0, ".0.weight");
        r->in = before;
        r->hidden = annotator_dim(a, name, 0);
        path_of(name, sizeof name, i, i ? 2 : 1, ".weight");
        before = r->out = annotator_dim(a, name, 0);
        ok = ok && r->hidden > 0 && r->out > 0 && r->hidden <= 4096 && r->out <= 4096;
    }
    for (int i = 0; i < JOINS; i++) {
        struct join *j = &m->join[i];
        j->deep_in = i ? m->join[i - 1].out : before;
        j->shallow_in = m->residual[looked_at[JOINS - 1 - i]].out;
        snprintf(name, sizeof name, "block%d.conv1.0.weight", 15 + 2 * i);
        j->deep_out = annotator_dim(a, name, 0);
        snprintf(name, sizeof name, "block%d.conv2.0.weight", 15 + 2 * i);
        j->shallow_out = annotator_dim(a, name, 0);
        snprintf(name, sizeof name, "block%d.conv2.0.weight", 16 + 2 * i);
        j->out = annotator_dim(a, name, 0);
        ok = ok && j->deep_out > 0 && j->shallow_out > 0 && j->out > 0;
    }
    m->last_in = m->join[JOINS - 1].out;
    m->last_out = annotator_dim(a, "block23.conv3.weight", 0);
    if (ok && m->last_out >= CHANNELS) return 0;
    return error_set(err, ERR_FORMAT, "%s holds no large M-LSD network",
                     weight_store_path(a->store));
}

static void visit_one(struct weight_visitor *v, struct conv_norm *m, const char *at, int64_t out,
                      int64_t in, int kernel, bool bias)
{
    char conv[80], norm[80];
    snprintf(conv, sizeof conv, "%s.0", at);
    snprintf(norm, sizeof norm, "%s.1", at);
    visit_conv_norm(v, m, conv, norm, 0, out, in, kernel, bias);
}

static void visit(struct weight_visitor *v, void *net)
{
    struct mlsd *m = net;
    char name[80], norm[80];
    visit_one(v, &m->first, "backbone.features.0", m->first_out, 4, 3, false);
    for (int i = 0; i < BLOCKS; i++) {
        struct residual *r = &m->residual[i];
        int k = 0;
        if (i) {
            path_of(name, sizeof name, i, k++, "");
            visit_one(v, &r->widen, name, r->hidden, r->in, 1, false);
        }
        path_of(name, sizeof name, i, k++, "");
        visit_one(v, &r->depthwise, name, r->hidden, 1, 3, false);
        path_of(name, sizeof name, i, k++, "");
        path_of(norm, sizeof norm, i, k, "");
        visit_conv_norm(v, &r->narrow, name, norm, 0, r->out, r->hidden, 1, false);
    }
    for (int i = 0; i < JOINS; i++) {
        struct join *j = &m->join[i];
        int64_t both = j->shallow_out + j->deep_out;
        snprintf(name, sizeof name, "block%d.conv1", 15 + 2 * i);
        visit_one(v, &j->deep, name, j->deep_out, j->deep_in, 1, true);
        snprintf(name, sizeof name, "block%d.conv2", 15 + 2 * i);
        visit_one(v, &j->shallow, name, j->shallow_out, j->shallow_in, 1, true);
        snprintf(name, sizeof name, "block%d.conv1", 16 + 2 * i);
        visit_one(v, &j->same, name, both, both, 3, true);
        snprintf(name, sizeof name, "block%d.conv2", 16 + 2 * i);
        visit_one(v, &j->mix, name, j->out, both, 3, true);
    }
    visit_one(v, &m->spread, "block23.conv1", m->last_in, m->last_in, 3, true);
    visit_one(v, &m->smooth, "block23.conv2", m->last_in, m->last_in, 3, true);
    visit_conv_norm(v, &m->last, "block23.conv3", NULL, 0, m->last_out, m->last_in, 1, true);
}

/* ---- forward ---- */

static float clamp6(float x)
{
    return fminf(fmaxf(x, 0), 6);
}

/* One 3x3 filter a channel on the host, max(0, min(6, .)) before and after. Stride 2 looks at the
 * pixel and its right and lower neighbours, as TFLite pads. */
static void filter(float *y, const float *x, int h, int w, int c, int stride, const float *weight,
                   const float *bias)
{
    int before = stride == 1 ? 1 : 0, oh = h / stride, ow = w / stride;
    for (int oy = 0; oy < oh; oy++)
        for (int ox = 0; ox < ow; ox++) {
            float *to = y + ((int64_t)oy * ow + ox) * c;
            for (int k = 0; k < c; k++) to[k] = bias[k];
            for (int t = 0; t < 9; t++) {
                int iy = oy * stride + t / 3 - before, ix = ox * stride + t % 3 - before;
                if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
                const float *from = x + ((int64_t)iy * w + ix) * c;
                for (int k = 0; k < c; k++) to[k] += weight[k * 9 + t] * clamp6(from[k]);
            }
            for (int k = 0; k < c; k++) to[k] = clamp6(to[k]);
        }
}

static struct tensor depthwise(struct pass *p, struct conv_norm *m, struct tensor x, int stride)
{
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3], oh = h / stride, ow = w / stride;
    float *in = alloc_zero((size_t)(h * w * c), sizeof *in);
    float *out = alloc_zero((size_t)(oh * ow * c), sizeof *out);
    pass_output(p, in, x);
    filter(out, in, (int)h, (int)w, (int)c, stride, m->conv.w.k.data, m->conv.b.k.data);
    struct tensor y = pass_input(p, out, 4, TENSOR_DIM(1, oh, ow, c));
    free(in);
    free(out);
    return y;
}

static struct tensor residual(struct pass *p, struct residual *r, struct tensor x, bool widen,
                              bool halve)
{
    struct tensor h = widen ? conv_norm_run(p, &r->widen, x, 1, 1, ACT_NONE) : x;
    h = depthwise(p, &r->depthwise, h, halve ? 2 : 1);
    h = conv_norm_run(p, &r->narrow, h, 1, 1, ACT_NONE);
    return !halve && r->in == r->out && widen ? op_add(p, h, x) : h;
}

static struct tensor join(struct pass *p, struct join *j, struct tensor deep, struct tensor shallow,
                          bool grow)
{
    struct tensor d = conv_norm_run(p, &j->deep, deep, 1, 1, ACT_RELU);
    struct tensor s = conv_norm_run(p, &j->shallow, shallow, 1, 1, ACT_RELU);
    struct tensor x = op_concat(p, s, grow ? annotator_enlarge(p, d) : d);
    x = op_add(p, conv_norm_run(p, &j->same, x, 1, 1, ACT_RELU), x);
    return conv_norm_run(p, &j->mix, x, 1, 1, ACT_RELU);
}

static struct tensor forward(struct pass *p, struct mlsd *m, struct tensor x)
{
    struct tensor seen[BLOCKS];
    struct conv_shape half = {.stride = 2, .pad_bottom = 1, .pad_right = 1};
    x = layer_conv(p, &m->first.conv, x, half, NULL);
    for (int i = 0; i < BLOCKS; i++)
        x = seen[i] = residual(p, &m->residual[i], x, i > 0, halves[i]);
    for (int i = 0; i < JOINS; i++)
        x = join(p, &m->join[i], x, seen[looked_at[JOINS - 1 - i]], i > 0);
    x = conv_norm_run(p, &m->spread, x, 1, 5, ACT_RELU);
    x = conv_norm_run(p, &m->smooth, x, 1, 1, ACT_RELU);
    return conv_norm_run(p, &m->last, x, 1, 1, ACT_NONE);
}

/* ---- decoding ---- */

struct candidate {
    float score;
    int at;
};

static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->at - y->at;
}

/* Centres that are the best of their eight neighbours. */
static int find_centres(struct candidate *list, const float *map, int w, int h, int channels)
{
    int count = 0;
    for (int i = 0; i < w * h; i++) {
        float here = map[(int64_t)i * channels + CENTRE];
        bool best = 1 / (1 + expf(-here)) > LEAST_SCORE;
        for (int k = 0; best && k < 9; k++) {
            int x = i % w + k % 3 - 1, y = i / w + k / 3 - 1;
            if (x < 0 || y < 0 || x >= w || y >= h) continue;
            best = map[((int64_t)y * w + x) * channels + CENTRE] <= here;
        }
        if (best) list[count++] = (struct candidate){here, i};
    }
    qsort(list, (size_t)count, sizeof *list, by_score);
    return count < LINES_MAX ? count : LINES_MAX;
}

static void draw_line(uint8_t *grey, int w, int h, int x0, int y0, int x1, int y1)
{
    int dx = abs(x1 - x0), dy = -abs(y1 - y0), sx = x0 < x1 ? 1 : -1, sy = y0 < y1 ? 1 : -1;
    for (int e = dx + dy, steps = 0; steps <= 8 * (w + h); steps++) {
        if (x0 >= 0 && y0 >= 0 && x0 < w && y0 < h) grey[y0 * w + x0] = 255;
        if (x0 == x1 && y0 == y1) return;
        int twice = 2 * e;
        if (twice >= dy) e += dy, x0 += sx;
        if (twice <= dx) e += dx, y0 += sy;
    }
}

static void draw_lines(uint8_t *grey, const float *map, struct candidate *list, int w, int h,
                       int channels)
{
    int count = find_centres(list, map, w, h, channels);
    for (int i = 0; i < count; i++) {
        const float *d = map + (int64_t)list[i].at * channels + CENTRE + 1;
        float x = (float)(list[i].at % w), y = (float)(list[i].at / w);
        if (!(hypotf(d[0] - d[2], d[1] - d[3]) > LEAST_LENGTH)) continue;
        const float end[4] = {2 * (x + d[0]), 2 * (y + d[1]), 2 * (x + d[2]), 2 * (y + d[3])};
        bool near = true; /* a network gone wild points anywhere */
        for (int k = 0; k < 4; k++) near = near && fabsf(end[k]) < 4 * (float)(w + h);
        if (near) draw_line(grey, 2 * w, 2 * h, (int)end[0], (int)end[1], (int)end[2], (int)end[3]);
    }
}

static int run(struct annotator *a, struct mlsd *m, uint8_t *grey, const struct pixels *from,
               struct error *err)
{
    int w = from->width, h = from->height;
    size_t n = (size_t)w * (size_t)h, cells = n / 4;
    float *in = alloc_try(n * 4, sizeof *in);
    float *map = alloc_zero(cells * (size_t)m->last_out, sizeof *map);
    struct candidate *list = alloc_try(cells, sizeof *list);
    int rc = in && list ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for lines");
    for (size_t i = 0; !rc && i < n * 4; i++)
        in[i] = (float)((i % 4 < 3 ? from->data[i / 4 * 3 + i % 4] : 1) / 127.5 - 1);
    if (!rc) {
        struct pass p;
        pass_start(&p, &a->memory, DTYPE_F32, NULL);
        pass_output(&p, map, forward(&p, m, pass_input(&p, in, 4, TENSOR_DIM(1, h, w, 4))));
        rc = pass_finish(&p, err);
    }
    if (!rc) draw_lines(grey, map, list, w / 2, h / 2, (int)m->last_out);
    free(in);
    free(map);
    free(list);
    return rc;
}

/* Every convolution of the network. */
static int each(struct mlsd *m, int (*f)(struct conv_norm *c, void *context), void *context)
{
    struct conv_norm *all[3 * BLOCKS + 4 * JOINS + 4];
    int n = 0, rc = 0;
    all[n++] = &m->first;
    for (int i = 0; i < BLOCKS; i++) {
        struct residual *r = &m->residual[i];
        all[n++] = &r->widen;
        all[n++] = &r->depthwise;
        all[n++] = &r->narrow;
    }
    for (int i = 0; i < JOINS; i++) {
        struct join *j = &m->join[i];
        all[n++] = &j->deep;
        all[n++] = &j->shallow;
        all[n++] = &j->same;
        all[n++] = &j->mix;
    }
    all[n++] = &m->spread;
    all[n++] = &m->smooth;
    all[n++] = &m->last;
    for (int i = 0; i < n && !rc; i++) rc = f(all[i], context);
    return rc;
}

static int fold(struct conv_norm *c, void *err)
{
    return conv_norm_fold(c, err);
}

static int drop(struct conv_norm *c, void *device)
{
    conv_norm_release(c, device);
    return 0;
}

int annotate_mlsd(struct annotator *a, struct pixels *to, const struct pixels *from,
                  struct error *err)
{
    struct mlsd m = {0};
    uint8_t *grey = alloc_zero((size_t)from->width * (size_t)from->height, 1);
    int rc = detect(&m, a, err);
    if (!rc && (from->width % 16 || from->height % 16))
        rc = error_set(err, ERR_INVALID, "M-LSD looks at multiples of 16 pixels, not at %dx%d",
                       from->width, from->height);
    if (!rc) rc = annotator_load(a, visit, &m, "the M-LSD network", err);
    if (!rc) rc = each(&m, fold, err);
    if (!rc) rc = run(a, &m, grey, from, err);
    each(&m, drop, a->device);
    if (!rc) rc = map_from_bytes(to, from, grey, err);
    free(grey);
    return rc;
}
