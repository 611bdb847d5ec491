/*
 * Depth, and surfaces turned from it. Source: Ranftl et al. 2021 (DPT-Hybrid, MiDaS 3) in the names
 * of huggingface/transformers (Intel/dpt-hybrid-midas): a ResNet of standardised weights (Kolesnikov
 * et al. 2020), a vision transformer on it, four feature maps fused from coarse to fine. The map of
 * surfaces is the one of lllyasviel/ControlNet.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"
#include "diffusion/control/map.h"
#include "image/resize.h"

#define STAGES 3
#define UNITS_MAX 24
#define LAYERS_MAX 48
#define MAPS 4
#define PATCH 16
#define GROUPS 32
#define STANDARD_EPS 1e-8
#define NORM_EPS 1e-5
#define LAYER_EPS 1e-12
#define HEAD_WIDTH 64

/* A convolution whose rows have mean 0 and length 1 (standardised when loaded), and its norm. */
struct standard {
    struct layer conv;
    struct norm norm;
    float *made;
    int64_t out, in;
    int kernel;
};
struct unit { /* bottleneck */
    struct standard shortcut, conv[3];
};
struct layer_vit {
    struct norm before, after;
    struct layer q, k, v, out, up, down;
};
struct fusion {
    struct layer unit[2][2], last;
};

struct dpt {
    struct standard stem;
    struct unit unit[STAGES][UNITS_MAX];
    int units[STAGES];
    struct layer patch;
    struct weight start, position; /* [1,1,d], [1,1+n,d] */
    struct layer_vit vit[LAYERS_MAX];
    int layers;
    struct layer readout[2], project[2], halve; /* of the two deep maps; the last is halved */
    struct layer neck[MAPS];
    struct fusion fusion[MAPS];
    struct layer head[3];
    int64_t width, mlp, side; /* of the transformer; side: of the picture, in pixels */
    int64_t deep[2], fused, fine, thin;
};

/* ---- what the file holds ---- */

static const char base[] = "dpt.embeddings.backbone.bit.";

static bool detect_unit(struct unit *u, const struct annotator *a, int stage, int at,
                        int64_t *channels)
{
    char name[128];
    int64_t before = *channels;
    for (int i = 0; i < 3; i++) {
        struct standard *s = &u->conv[i];
        snprintf(name, sizeof name, "%sencoder.stages.%d.layers.%d.conv%d.weight", base, stage, at,
                 i + 1);
        s->out = annotator_dim(a, name, 0);
        s->in = i ? u->conv[i - 1].out : before;
        s->kernel = i == 1 ? 3 : 1;
        if (s->out < 1 || s->out % GROUPS || s->out > 8192) return false;
    }
    *channels = u->conv[2].out;
    if (at == 0) u->shortcut = (struct standard){.out = *channels, .in = before, .kernel = 1};
    return true;
}

static int64_t root(int64_t n)
{
    int64_t r = 0;
    while ((r + 1) * (r + 1) <= n) r++;
    return r * r == n ? r : 0;
}

static int detect(struct dpt *m, const struct annotator *a, struct error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%sembedder.convolution.weight", base);
    int64_t channels = annotator_dim(a, name, 0);
    m->stem = (struct standard){.out = channels, .in = 3, .kernel = 7};
    bool ok = channels > 0 && channels % GROUPS == 0;
    for (int s = 0; ok && s < STAGES; s++) {
        while (m->units[s] < UNITS_MAX) {
            snprintf(name, sizeof name, "%sencoder.stages.%d.layers.%d.conv1.weight", base, s,
                     m->units[s]);
            if (!annotator_dim(a, name, 0)) break;
            ok = ok && detect_unit(&m->unit[s][m->units[s]], a, s, m->units[s], &channels);
            m->units[s]++;
        }
        ok = ok && m->units[s] > 0;
    }
    m->width = annotator_dim(a, "dpt.embeddings.cls_token", 2);
    m->side = PATCH * root(annotator_dim(a, "dpt.embeddings.position_embeddings", 1) - 1);
    m->mlp = annotator_dim(a, "dpt.encoder.layer.0.intermediate.dense.weight", 0);
    for (; m->layers < LAYERS_MAX; m->layers++) {
        snprintf(name, sizeof name, "dpt.encoder.layer.%d.layernorm_before.weight", m->layers);
        if (!annotator_dim(a, name, 0)) break;
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "neck.reassemble_stage.layers.%d.projection.weight", i + 2);
        m->deep[i] = annotator_dim(a, name, 0);
    }
    m->fused = annotator_dim(a, "neck.convs.0.weight", 0);
    m->fine = annotator_dim(a, "head.head.0.weight", 0);
    m->thin = annotator_dim(a, "head.head.2.weight", 0);
    if (ok && m->width > 0 && m->side > 0 && m->mlp > 0 && m->layers >= MAPS && m->deep[0] > 0 &&
        m->deep[1] > 0 && m->fused > 0 && m->fine > 0 && m->thin > 0)
        return 0;
    return error_set(err, ERR_FORMAT, "%s holds no DPT-Hybrid depth network",
                     weight_store_path(a->store));
}

static void visit_standard(struct weight_visitor *v, struct standard *s, const char *conv,
                           const char *norm)
{
    visit_conv(v, &s->conv, conv, conv, s->out, s->in, s->kernel, false);
    visit_norm(v, &s->norm, norm, norm, s->out);
}

static void visit_backbone(struct weight_visitor *v, struct dpt *m)
{
    char path[64], conv[16], norm[16];
    struct visit_mark mark =
        visit_open(v, "dpt.embeddings.backbone.bit", "dpt.embeddings.backbone.bit");
    visit_standard(v, &m->stem, "embedder.convolution", "embedder.norm");
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s]; i++) {
            struct unit *u = &m->unit[s][i];
            snprintf(path, sizeof path, "encoder.stages.%d.layers.%d", s, i);
            struct visit_mark inner = visit_open(v, path, path);
            if (i == 0) visit_standard(v, &u->shortcut, "downsample.conv", "downsample.norm");
            for (int k = 0; k < 3; k++) {
                snprintf(conv, sizeof conv, "conv%d", k + 1);
                snprintf(norm, sizeof norm, "norm%d", k + 1);
                visit_standard(v, &u->conv[k], conv, norm);
            }
            visit_close(v, inner);
        }
    visit_close(v, mark);
}

static void visit_vit(struct weight_visitor *v, struct dpt *m)
{
    const struct unit *last = &m->unit[STAGES - 1][m->units[STAGES - 1] - 1];
    int64_t d = m->width, rows = m->side / PATCH * (m->side / PATCH) + 1;
    char path[64];
    struct visit_mark mark = visit_open(v, "dpt.embeddings", "dpt.embeddings");
    visit_weight(v, &m->start, "cls_token", "cls_token", 3, TENSOR_DIM(1, 1, d));
    visit_weight(v, &m->position, "position_embeddings", "position_embeddings", 3,
                 TENSOR_DIM(1, rows, d));
    visit_conv(v, &m->patch, "projection", "projection", d, last->conv[2].out, 1, true);
    visit_close(v, mark);
    for (int i = 0; i < m->layers; i++) {
        struct layer_vit *l = &m->vit[i];
        snprintf(path, sizeof path, "dpt.encoder.layer.%d", i);
        mark = visit_open(v, path, path);
        visit_norm(v, &l->before, "layernorm_before", "layernorm_before", d);
        visit_norm(v, &l->after, "layernorm_after", "layernorm_after", d);
        visit_linear(v, &l->q, "attention.attention.query", "q", d, d, true);
        visit_linear(v, &l->k, "attention.attention.key", "k", d, d, true);
        visit_linear(v, &l->v, "attention.attention.value", "v", d, d, true);
        visit_linear(v, &l->out, "attention.output.dense", "out", d, d, true);
        visit_linear(v, &l->up, "intermediate.dense", "up", m->mlp, d, true);
        visit_linear(v, &l->down, "output.dense", "down", d, m->mlp, true);
        visit_close(v, mark);
    }
}

static void visit_neck(struct weight_visitor *v, struct dpt *m)
{
    char name[96];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "neck.reassemble_stage.readout_projects.%d.0", i + 2);
        visit_linear(v, &m->readout[i], name, name, m->width, 2 * m->width, true);
        snprintf(name, sizeof name, "neck.reassemble_stage.layers.%d.projection", i + 2);
        visit_conv(v, &m->project[i], name, name, m->deep[i], m->width, 1, true);
    }
    visit_conv(v, &m->halve, "neck.reassemble_stage.layers.3.resize", "halve", m->deep[1],
               m->deep[1], 3, true);
    for (int i = 0; i < MAPS; i++) {
        int64_t in = i < 2 ? m->unit[i][m->units[i] - 1].conv[2].out : m->deep[i - 2];
        snprintf(name, sizeof name, "neck.convs.%d", i);
        visit_conv(v, &m->neck[i], name, name, m->fused, in, 3, false);
        for (int u = i ? 0 : 1; u < 2; u++) /* the coarsest map has nothing to be added to it */
            for (int k = 0; k < 2; k++) {
                snprintf(name, sizeof name,
                         "neck.fusion_stage.layers.%d.residual_layer%d.convolution%d", i, u + 1,
                         k + 1);
                visit_conv(v, &m->fusion[i].unit[u][k], name, name, m->fused, m->fused, 3, true);
            }
        snprintf(name, sizeof name, "neck.fusion_stage.layers.%d.projection", i);
        visit_conv(v, &m->fusion[i].last, name, name, m->fused, m->fused, 1, true);
    }
    visit_conv(v, &m->head[0], "head.head.0", "head.0", m->fine, m->fused, 3, true);
    visit_conv(v, &m->head[1], "head.head.2", "head.2", m->thin, m->fine, 3, true);
    visit_conv(v, &m->head[2], "head.head.4", "head.4", 1, m->thin, 1, true);
}

static void visit(struct weight_visitor *v, void *net)
{
    visit_backbone(v, net);
    visit_vit(v, net);
    visit_neck(v, net);
}

/* Mean 0 and variance 1 for each row of the weights. */
static int standardise(struct standard *s, struct error *err)
{
    struct weight *w = &s->conv.w;
    int64_t row = weight_count(w) / s->out;
    s->made = alloc_try((size_t)weight_count(w) + 1, sizeof *s->made);
    if (!s->made) return error_set(err, ERR_NO_MEMORY, "no memory for %s", w->name);
    dtype_convert(s->made, DTYPE_F32, w->k.data, w->k.dtype, weight_count(w));
    for (int64_t o = 0; o < s->out; o++) {
        double sum = 0, squares = 0;
        float *x = s->made + o * row;
        for (int64_t i = 0; i < row; i++) sum += (double)x[i];
        double mean = sum / (double)row;
        for (int64_t i = 0; i < row; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        double scale = 1 / sqrt(squares / (double)row + STANDARD_EPS);
        for (int64_t i = 0; i < row; i++) x[i] = (float)(((double)x[i] - mean) * scale);
    }
    w->k.data = s->made;
    w->k.dtype = DTYPE_F32;
    return 0;
}

static int each_standard(struct dpt *m, struct error *err)
{
    int rc = standardise(&m->stem, err);
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s]; i++) {
            struct unit *u = &m->unit[s][i];
            if (!rc && i == 0) rc = standardise(&u->shortcut, err);
            for (int k = 0; k < 3 && !rc; k++) rc = standardise(&u->conv[k], err);
        }
    return rc;
}

static void release(struct dpt *m, struct device *d)
{
    struct weight_visitor v = {.visit = weight_drop, .context = d};
    if (m->layers) visit(&v, m);
    free(m->stem.made);
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < UNITS_MAX; i++) {
            free(m->unit[s][i].shortcut.made);
            for (int k = 0; k < 3; k++) free(m->unit[s][i].conv[k].made);
        }
}

/* ---- forward ---- */

/* Padded as TensorFlow's SAME: what is left over goes to the right and below. */
static struct conv_shape same(int64_t size, int kernel, int stride)
{
    int all = (int)(((size + stride - 1) / stride - 1) * stride + kernel - size);
    if (all < 0) all = 0;
    return (struct conv_shape){.stride = stride,
                               .pad_top = all / 2,
                               .pad_left = all / 2,
                               .pad_bottom = all - all / 2,
                               .pad_right = all - all / 2};
}

static struct tensor standard(struct pass *p, struct standard *s, struct tensor x, int stride)
{
    return norm_group(p, &s->norm,
                      layer_conv(p, &s->conv, x, same(x.dim[1], s->kernel, stride), NULL), GROUPS,
                      NORM_EPS, ACT_NONE);
}

static struct tensor relu(struct pass *p, struct tensor x)
{
    return op_activation(p, x, ACT_RELU);
}

static struct tensor unit(struct pass *p, struct unit *u, struct tensor x, int stride, bool first)
{
    struct tensor shortcut = first ? standard(p, &u->shortcut, x, stride) : x;
    struct tensor h = relu(p, standard(p, &u->conv[0], x, 1));
    h = relu(p, standard(p, &u->conv[1], h, stride));
    return relu(p, op_add(p, standard(p, &u->conv[2], h, 1), shortcut));
}

static struct tensor attend(struct pass *p, struct layer_vit *l, struct tensor x, int64_t heads)
{
    struct tensor h = norm_layer(p, &l->before, x, LAYER_EPS);
    h = op_attention(p, layer_linear(p, &l->q, h, NULL), layer_linear(p, &l->k, h, NULL),
                     layer_linear(p, &l->v, h, NULL), heads, false);
    x = op_add(p, layer_linear(p, &l->out, h, NULL), x);
    h = norm_layer(p, &l->after, x, LAYER_EPS);
    h = layer_linear(p, &l->up, h, &(struct fuse){.act = ACT_GELU});
    return op_add(p, layer_linear(p, &l->down, h, NULL), x);
}

/* Tokens back to a map, each told of the first token. */
static struct tensor reassemble(struct pass *p, struct dpt *m, int i, struct tensor x, int64_t grid)
{
    int64_t n = grid * grid, d = m->width;
    struct tensor first = op_slice_rows(p, x, 0, 1), rest = op_slice_rows(p, x, 1, n);
    first = op_repeat_batch(p, tensor_view(first, 2, TENSOR_DIM(1, d)), n);
    x = op_concat(p, rest, tensor_view_3d(first, 1, n, d));
    x = layer_linear(p, &m->readout[i], x, &(struct fuse){.act = ACT_GELU});
    x = layer_conv(p, &m->project[i], tensor_view_4d(x, 1, grid, grid, d), conv_same(1), NULL);
    struct conv_shape half = conv_same(3);
    half.stride = 2;
    return i ? layer_conv(p, &m->halve, x, half, NULL) : x;
}

static struct tensor residual(struct pass *p, struct layer conv[2], struct tensor x)
{
    struct tensor h = layer_conv(p, &conv[0], relu(p, x), conv_same(3), NULL);
    return op_add(p, layer_conv(p, &conv[1], relu(p, h), conv_same(3), NULL), x);
}

static struct tensor forward(struct pass *p, struct dpt *m, struct tensor x)
{
    struct tensor map[MAPS];
    int64_t grid = m->side / PATCH, heads = m->width / HEAD_WIDTH;
    x = relu(p, standard(p, &m->stem, x, 2));
    x = op_max_pool(p, x, 3, 2, 0, true);
    for (int s = 0; s < STAGES; s++) {
        for (int i = 0; i < m->units[s]; i++)
            x = unit(p, &m->unit[s][i], x, s && i == 0 ? 2 : 1, i == 0);
        if (s < 2) map[s] = x;
    }
    x = layer_conv(p, &m->patch, x, conv_same(1), NULL);
    x = tensor_view_3d(x, 1, grid * grid, m->width);
    x = op_concat_rows(p, op_weight(p, &m->start), x);
    x = op_add(p, x, op_weight(p, &m->position));
    for (int i = 0; i < m->layers; i++) {
        x = attend(p, &m->vit[i], x, heads ? heads : 1);
        if (i == m->layers * 3 / 4 - 1) map[2] = reassemble(p, m, 0, x, grid);
    }
    map[3] = reassemble(p, m, 1, x, grid);
    for (int i = 0; i < MAPS; i++) {
        int deep = MAPS - 1 - i;
        struct tensor h = layer_conv(p, &m->neck[deep], map[deep], conv_same(3), NULL);
        struct fusion *f = &m->fusion[i];
        x = i ? op_add(p, x, residual(p, f->unit[0], h)) : h;
        x = annotator_enlarge(p, residual(p, f->unit[1], x));
        x = layer_conv(p, &f->last, x, conv_same(1), NULL);
    }
    x = annotator_enlarge(p, layer_conv(p, &m->head[0], x, conv_same(3), NULL));
    x = relu(p, layer_conv(p, &m->head[1], x, conv_same(3), NULL));
    return relu(p, layer_conv(p, &m->head[2], x, conv_same(1), NULL));
}

/* ---- maps ---- */

static float cubic(float t) /* a = -0.75, as torch has it */
{
    t = fabsf(t);
    if (t <= 1) return (1.25f * t - 2.25f) * t * t + 1;
    if (t < 2) return ((-0.75f * t + 3.75f) * t - 6) * t + 3;
    return 0;
}

/* Between pixels, the border repeated. */
static void resize_cubic(float *to, int ow, int oh, const float *from, int w, int h)
{
    for (int y = 0; y < oh; y++)
        for (int x = 0; x < ow; x++) {
            float fy = ((float)y + 0.5f) * (float)h / (float)oh - 0.5f;
            float fx = ((float)x + 0.5f) * (float)w / (float)ow - 0.5f, sum = 0;
            int iy = (int)floorf(fy), ix = (int)floorf(fx);
            for (int j = -1; j <= 2; j++)
                for (int i = -1; i <= 2; i++) {
                    int cy = iy + j < 0 ? 0 : iy + j >= h ? h - 1 : iy + j;
                    int cx = ix + i < 0 ? 0 : ix + i >= w ? w - 1 : ix + i;
                    sum += cubic(fy - (float)(iy + j)) * cubic(fx - (float)(ix + i)) *
                           from[cy * w + cx];
                }
            to[y * ow + x] = sum;
        }
}

static int run(struct annotator *a, struct dpt *m, float *depth, const struct pixels *from,
               struct error *err)
{
    int side = (int)m->side;
    size_t n = (size_t)side * (size_t)side;
    struct pixels sized = {0};
    float *values = alloc_try(n * 3, sizeof *values);
    int rc = values ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for a depth map");
    if (!rc) rc = pixels_resize(&sized, from, side, side, RESIZE_BICUBIC, err);
    for (size_t i = 0; !rc && i < n * 3; i++) values[i] = (float)sized.data[i] / 127.5f - 1;
    if (!rc) {
        struct pass p;
        pass_start(&p, &a->memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, values, 4, TENSOR_DIM(1, side, side, 3));
        pass_output(&p, values, forward(&p, m, x));
        rc = pass_finish(&p, err);
    }
    if (!rc) resize_cubic(depth, from->width, from->height, values, side, side);
    pixels_release(&sized);
    free(values);
    return rc;
}

/* depth [h,w]: larger is nearer, on no scale. The caller frees. */
static int depth_of(struct annotator *a, float **depth, const struct pixels *from,
                    struct error *err)
{
    struct dpt *m = alloc_zero(1, sizeof *m);
    float *made = alloc_zero((size_t)from->width * (size_t)from->height, sizeof *made);
    int rc = detect(m, a, err);
    if (!rc) rc = annotator_load(a, visit, m, "the depth network", err);
    if (!rc) rc = each_standard(m, err);
    if (!rc) rc = run(a, m, made, from, err);
    release(m, a->device);
    free(m);
    if (rc)
        free(made);
    else
        *depth = made;
    return rc;
}

/* In place: 0..1 from the farthest to the nearest. */
static void stretch(float *x, int n)
{
    float least = x[0], most = x[0];
    for (int i = 1; i < n; i++) {
        least = fminf(least, x[i]);
        most = fmaxf(most, x[i]);
    }
    for (int i = 0; i < n; i++) x[i] = most > least ? (x[i] - least) / (most - least) : 0;
}

int annotate_depth(struct annotator *a, struct pixels *to, const struct pixels *from,
                   struct error *err)
{
    int n = from->width * from->height;
    float *depth;
    int rc = depth_of(a, &depth, from, err);
    if (rc) return rc;
    uint8_t *grey = alloc_zero((size_t)n, 1);
    stretch(depth, n);
    for (int i = 0; i < n; i++) grey[i] = (uint8_t)(depth[i] * 255);
    rc = map_from_bytes(to, from, grey, err);
    free(grey);
    free(depth);
    return rc;
}

/* Sobel's difference along one direction, the border mirrored. */
static float slope(const float *x, int w, int h, int column, int row, bool down)
{
    float sum = 0;
    for (int j = -1; j <= 1; j++)
        for (int i = -1; i <= 1; i++) {
            int cx = abs(column + i), cy = abs(row + j);
            if (cx >= w) cx = 2 * w - 2 - cx;
            if (cy >= h) cy = 2 * h - 2 - cy;
            int weight = (down ? j : i) * (2 - abs(down ? i : j));
            sum += (float)weight * x[cy * w + cx];
        }
    return sum;
}

int annotate_normal(struct annotator *a, struct pixels *to, const struct pixels *from,
                    struct error *err)
{
    const float up = 6.2831853f, ground = 0.1f; /* what is far away lies flat */
    int w = from->width, h = from->height, n = w * h;
    float *depth;
    int rc = depth_of(a, &depth, from, err);
    if (rc) return rc;
    float *near = alloc_zero((size_t)n, sizeof *near);
    memcpy(near, depth, (size_t)n * sizeof *near);
    stretch(near, n);
    rc = pixels_new(to, w, h, 3, err);
    for (int i = 0; !rc && i < n; i++) {
        bool flat = near[i] < ground || w < 2 || h < 2;
        float x = flat ? 0 : slope(depth, w, h, i % w, i / w, false);
        float y = flat ? 0 : slope(depth, w, h, i % w, i / w, true);
        float length = sqrtf(x * x + y * y + up * up);
        const float normal[3] = {up / length, y / length, x / length}; /* as blue, green, red */
        for (int k = 0; k < 3; k++)
            to->data[i * 3 + k] = (uint8_t)fminf(fmaxf(normal[k] * 127.5f + 127.5f, 0), 255);
    }
    free(near);
    free(depth);
    return rc;
}
