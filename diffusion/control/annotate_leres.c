/*
 * Depth for control type `depth`. Source: Yin et al. 2021 (LeReS) in the form of the checkpoint
 * res101.pth: ResNeXt-101 32x8d (Xie et al. 2017), four feature maps fused from coarse to fine. The
 * annotator is that of comfyui_controlnet_aux with its defaults (nothing near or far removed, no
 * boost), which feeds the network bytes, blue first, less ImageNet's means of 0..1: so do we.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"
#include "diffusion/control/map.h"

#define STAGES 4
#define UNITS_MAX 40
#define CHUNK 64 /* channels that a convolution by groups takes at a time */
#define CHUNKS_MAX 128
#define WIDTH_MAX 8192
#define STEP_PX 32
#define MAX_VALUE 65535

/* A 3x3 convolution in groups, as some that are dense in `chunk` channels. */
struct grouped {
    struct conv_norm all; /* as the file has it, [width, width / groups, 3, 3] */
    struct layer part[CHUNKS_MAX];
    float *weights; /* of the parts */
    int64_t width, in, chunk;
};
struct unit { /* bottleneck */
    struct conv_norm narrow, widen, shortcut;
    struct grouped middle;
    int64_t in, out;
    bool has_shortcut;
};
struct refine {
    struct conv_norm first, inner, last; /* first + last(inner(first)) */
    int64_t in, mid;
};
struct leres {
    struct conv_norm stem, top, out[2];
    struct unit unit[STAGES][UNITS_MAX];
    int units[STAGES];
    struct refine refine[1 + 2 * (STAGES - 1)]; /* of the deepest; then two a level */
    int64_t stem_out, mid[STAGES];
};

/* ---- what the file holds ---- */

static int64_t width_of(const struct annotator *a, const char *name, int axis)
{
    int64_t n = annotator_dim(a, name, axis);
    return n > 0 && n <= WIDTH_MAX ? n : 0;
}

static bool detect_unit(struct unit *u, const struct annotator *a, int stage, int at)
{
    char name[96];
    const int length =
        snprintf(name, sizeof name, "encoder_modules.encoder.layer%d.%d.", stage + 1, at);
    struct grouped *g = &u->middle;
    snprintf(name + length, sizeof name - (size_t)length, "conv2.weight");
    g->width = width_of(a, name, 0);
    g->in = width_of(a, name, 1);
    snprintf(name + length, sizeof name - (size_t)length, "conv3.weight");
    u->out = width_of(a, name, 0);
    snprintf(name + length, sizeof name - (size_t)length, "downsample.0.weight");
    u->has_shortcut = annotator_dim(a, name, 0) > 0;
    if (!g->width || !g->in || !u->out || g->width % g->in) return false;
    int64_t groups = g->width / g->in, together = g->in < CHUNK ? CHUNK / g->in : 1;
    while (groups % together) together--;
    g->chunk = together * g->in;
    return g->width / g->chunk <= CHUNKS_MAX && (at == 0 || u->in == u->out);
}

static int detect(struct leres *m, struct annotator *a, struct error *err)
{
    char name[96];
    annotator_find_prefix(a, "encoder_modules.encoder.conv1.weight");
    m->stem_out = width_of(a, "encoder_modules.encoder.conv1.weight", 0);
    int64_t before = m->stem_out, out[STAGES] = {0};
    bool ok = before > 0;
    for (int s = 0; ok && s < STAGES; s++) {
        for (; m->units[s] < UNITS_MAX; m->units[s]++) {
            struct unit *u = &m->unit[s][m->units[s]];
            snprintf(name, sizeof name, "encoder_modules.encoder.layer%d.%d.conv1.weight", s + 1,
                     m->units[s]);
            if (!annotator_dim(a, name, 0)) break;
            u->in = before;
            ok = ok && detect_unit(u, a, s, m->units[s]);
            before = u->out;
        }
        out[s] = before;
        ok = ok && m->units[s];
        snprintf(name, sizeof name, "decoder_modules.ffm%d.ftb1.conv1.weight", s);
        m->mid[s] = width_of(a, s < STAGES - 1 ? name : "decoder_modules.conv.conv1.weight", 0);
        ok = ok && m->mid[s];
    }
    if (!ok)
        return error_set(err, ERR_FORMAT, "%s holds no LeReS depth network",
                         weight_store_path(a->store));
    m->refine[0].in = out[STAGES - 1];
    m->refine[0].mid = m->mid[STAGES - 1];
    for (int s = 0; s < STAGES - 1; s++) {
        m->refine[1 + 2 * s].in = out[s];
        m->refine[2 + 2 * s].in = m->mid[s];
        m->refine[1 + 2 * s].mid = m->refine[2 + 2 * s].mid = m->mid[s];
    }
    return 0;
}

static void visit_unit(struct weight_visitor *v, struct unit *u)
{
    int64_t width = u->middle.width;
    visit_conv_norm(v, &u->narrow, "conv1", "bn1", 0, width, u->in, 1, false);
    visit_conv_norm(v, &u->middle.all, "conv2", "bn2", 0, width, u->middle.in, 3, false);
    visit_conv_norm(v, &u->widen, "conv3", "bn3", 0, u->out, width, 1, false);
    if (u->has_shortcut)
        visit_conv_norm(v, &u->shortcut, "downsample.0", "downsample.1", 0, u->out, u->in, 1,
                        false);
}

static void visit_refine(struct weight_visitor *v, struct refine *r, const char *name)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_conv_norm(v, &r->first, "conv1", NULL, 0, r->mid, r->in, 3, true);
    visit_conv_norm(v, &r->inner, "conv_branch.1", "conv_branch.2", 0, r->mid, r->mid, 3, true);
    visit_conv_norm(v, &r->last, "conv_branch.4", NULL, 0, r->mid, r->mid, 3, true);
    visit_close(v, mark);
}

static void visit(struct weight_visitor *v, void *net)
{
    struct leres *m = net;
    char name[64];
    int64_t finest = m->refine[2].mid;
    struct visit_mark mark = visit_open(v, "encoder_modules.encoder", "encoder_modules.encoder");
    visit_conv_norm(v, &m->stem, "conv1", "bn1", 0, m->stem_out, 3, 7, false);
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s]; i++) {
            snprintf(name, sizeof name, "layer%d.%d", s + 1, i);
            struct visit_mark inner = visit_open(v, name, name);
            visit_unit(v, &m->unit[s][i]);
            visit_close(v, inner);
        }
    visit_close(v, mark);
    mark = visit_open(v, "decoder_modules", "decoder_modules");
    visit_refine(v, &m->refine[0], "conv");
    visit_conv_norm(v, &m->top, "conv1", NULL, 0, m->mid[STAGES - 2], m->mid[STAGES - 1], 3, true);
    for (int s = 0; s < STAGES - 1; s++)
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "ffm%d.ftb%d", s, i + 1);
            visit_refine(v, &m->refine[1 + 2 * s + i], name);
        }
    visit_conv_norm(v, &m->out[0], "outconv.adapt_conv.0", "outconv.adapt_conv.1", 0, finest / 2,
                    finest, 3, true);
    visit_conv_norm(v, &m->out[1], "outconv.adapt_conv.3", NULL, 0, 1, finest / 2, 3, true);
    visit_close(v, mark);
}

/* ---- every convolution ---- */

static int each(struct leres *m, int (*f)(struct conv_norm *c, void *context), void *context)
{
    struct conv_norm *few[] = {&m->stem, &m->top, &m->out[0], &m->out[1]};
    int rc = 0;
    for (size_t i = 0; i < COUNT_OF(few) && !rc; i++) rc = f(few[i], context);
    for (size_t i = 0; i < COUNT_OF(m->refine) && !rc; i++) {
        struct refine *r = &m->refine[i];
        rc = f(&r->first, context);
        if (!rc) rc = f(&r->inner, context);
        if (!rc) rc = f(&r->last, context);
    }
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s] && !rc; i++) {
            struct unit *u = &m->unit[s][i];
            rc = f(&u->narrow, context);
            if (!rc) rc = f(&u->middle.all, context);
            if (!rc) rc = f(&u->widen, context);
            if (!rc) rc = f(&u->shortcut, context);
        }
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

/* After folding: parts that are dense within `chunk` channels, zero between its groups. */
static int spread(struct grouped *g, struct error *err)
{
    const struct kernel_weight *k = &g->all.conv.w.k, *b = &g->all.conv.b.k;
    int64_t n = g->chunk, part = n * n * 9;
    g->weights = alloc_try((size_t)(g->width / n * part), sizeof *g->weights);
    if (!g->weights) return error_set(err, ERR_NO_MEMORY, "no memory for a depth network");
    for (int64_t o = 0; o < g->width; o++) {
        int64_t first = o % n / g->in * g->in; /* of the group, within the part */
        float *to = g->weights + o / n * part + (o % n * n + first) * 9;
        dtype_convert(to, DTYPE_F32,
                      (const uint8_t *)k->data + (size_t)(o * g->in * 9) * dtype_bytes(k->dtype),
                      k->dtype, g->in * 9);
    }
    for (int64_t i = 0; i < g->width / n; i++) {
        struct layer *l = &g->part[i];
        l->w.name = g->all.conv.w.name;
        l->b.name = g->all.conv.b.name;
        l->w.k = (struct kernel_weight){
            .data = g->weights + i * part, .dtype = DTYPE_F32, .rank = 4, .dim = {n, n, 3, 3}};
        l->b.k = (struct kernel_weight){
            .data = (const float *)b->data + i * n, .dtype = DTYPE_F32, .rank = 1, .dim = {n}};
    }
    return 0;
}

static int prepare(struct leres *m, struct error *err)
{
    int rc = each(m, fold, err);
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s] && !rc; i++) rc = spread(&m->unit[s][i].middle, err);
    return rc;
}

static void release(struct leres *m, struct device *d)
{
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->units[s]; i++) {
            struct grouped *g = &m->unit[s][i].middle;
            for (int k = 0; k < CHUNKS_MAX; k++) layer_release(&g->part[k], d);
            free(g->weights);
        }
    each(m, drop, d);
}

/* ---- forward ---- */

static struct tensor run_grouped(struct pass *p, struct grouped *g, struct tensor x, int stride)
{
    struct tensor part[CHUNKS_MAX];
    struct conv_shape shape = conv_same(3);
    struct fuse relu = {.act = ACT_RELU};
    int count = (int)(g->width / g->chunk);
    shape.stride = stride;
    for (int i = 0; i < count; i++) {
        struct tensor in = count > 1 ? op_slice(p, x, i * g->chunk, g->chunk) : x;
        part[i] = layer_conv(p, &g->part[i], in, shape, &relu);
    }
    for (; count > 1; count = (count + 1) / 2) /* two by two */
        for (int i = 0; i < count; i += 2)
            part[i / 2] = i + 1 < count ? op_concat(p, part[i], part[i + 1]) : part[i];
    return part[0];
}

static struct tensor run_unit(struct pass *p, struct unit *u, struct tensor x, int stride)
{
    int64_t h = (x.dim[1] + stride - 1) / stride, w = (x.dim[2] + stride - 1) / stride;
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(1, h, w, u->out));
    size_t mark = pass_open_scope(p);
    struct tensor rest = x;
    if (u->has_shortcut) rest = conv_norm_run(p, &u->shortcut, x, stride, 1, ACT_NONE);
    struct tensor in = conv_norm_run(p, &u->narrow, x, 1, 1, ACT_RELU);
    in = run_grouped(p, &u->middle, in, stride);
    in = conv_norm_run(p, &u->widen, in, 1, 1, ACT_NONE);
    op_add_into(p, &y, in, rest);
    op_activate(p, &y, ACT_RELU);
    pass_close_scope(p, mark);
    return y;
}

/* The original's ReLU works in place: what is added is what it left. */
static struct tensor run_refine(struct pass *p, struct refine *r, struct tensor x)
{
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(1, x.dim[1], x.dim[2], r->mid));
    size_t mark = pass_open_scope(p);
    struct tensor first = conv_norm_run(p, &r->first, x, 1, 1, ACT_RELU);
    struct tensor in = conv_norm_run(p, &r->inner, first, 1, 1, ACT_RELU);
    op_add_into(p, &y, conv_norm_run(p, &r->last, in, 1, 1, ACT_NONE), first);
    op_activate(p, &y, ACT_RELU);
    pass_close_scope(p, mark);
    return y;
}

static struct tensor forward(struct pass *p, struct leres *m, struct tensor x)
{
    struct tensor seen[STAGES];
    x = conv_norm_run(p, &m->stem, x, 2, 1, ACT_RELU);
    x = op_max_pool(p, x, 3, 2, 1, false);
    for (int s = 0; s < STAGES; s++) {
        for (int i = 0; i < m->units[s]; i++)
            x = run_unit(p, &m->unit[s][i], x, s && i == 0 ? 2 : 1);
        seen[s] = x;
    }
    x = run_refine(p, &m->refine[0], x);
    x = annotator_enlarge(p, conv_norm_run(p, &m->top, x, 1, 1, ACT_NONE));
    for (int s = STAGES - 2; s >= 0; s--) {
        x = op_add(p, run_refine(p, &m->refine[1 + 2 * s], seen[s]), x);
        x = annotator_enlarge(p, run_refine(p, &m->refine[2 + 2 * s], x));
    }
    x = conv_norm_run(p, &m->out[0], x, 1, 1, ACT_RELU);
    return annotator_enlarge(p, conv_norm_run(p, &m->out[1], x, 1, 1, ACT_NONE));
}

/* ---- maps ---- */

static int run(struct annotator *a, struct leres *m, float *depth, const struct pixels *from,
               struct error *err)
{
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
    int w = from->width, h = from->height;
    size_t n = (size_t)w * (size_t)h;
    float *in = alloc_try(n * 3, sizeof *in);
    if (!in) return error_set(err, ERR_NO_MEMORY, "no memory for a depth map");
    for (size_t i = 0; i < n * 3; i++)
        in[i] = ((float)from->data[i / 3 * 3 + 2 - i % 3] - mean[i % 3]) / deviation[i % 3];
    struct pass p;
    pass_start(&p, &a->memory, DTYPE_F32, NULL);
    pass_output(&p, depth, forward(&p, m, pass_input(&p, in, 4, TENSOR_DIM(1, h, w, 3))));
    free(in);
    return pass_finish(&p, err);
}

/* 16 bits from the least to the largest, 8 of them, turned round: what is near is bright. */
static void shade(uint8_t *grey, const float *depth, int n)
{
    float least = depth[0], most = depth[0];
    for (int i = 1; i < n; i++) {
        least = fminf(least, depth[i]);
        most = fmaxf(most, depth[i]);
    }
    bool flat = !((double)(most - least) > 2.220446049250313e-16);
    for (int i = 0; i < n; i++) {
        float share = flat ? 0 : MAX_VALUE * (depth[i] - least) / (most - least);
        grey[i] = (uint8_t)(255 - lrintf((float)(uint16_t)share * (float)(255.0 / MAX_VALUE)));
    }
}

int annotate_leres(struct annotator *a, struct pixels *to, const struct pixels *from,
                   struct error *err)
{
    int w = from->width, h = from->height;
    struct leres *m = alloc_zero(1, sizeof *m);
    float *depth = alloc_zero((size_t)w * (size_t)h, sizeof *depth);
    uint8_t *grey = alloc_zero((size_t)w * (size_t)h, 1);
    int rc = detect(m, a, err);
    if (!rc && (w % STEP_PX || h % STEP_PX))
        rc = error_set(err, ERR_INVALID, "LeReS looks at multiples of %d pixels, not at %dx%d",
                       STEP_PX, w, h);
    if (!rc) rc = annotator_load(a, visit, m, "the depth network", err);
    if (!rc) rc = prepare(m, err);
    if (!rc) rc = run(a, m, depth, from, err);
    if (!rc) shade(grey, depth, w * h);
    release(m, a->device);
    free(m);
    if (!rc) rc = map_from_bytes(to, from, grey, err);
    free(depth);
    free(grey);
    return rc;
}
