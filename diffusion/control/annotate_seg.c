/*
 * What is seen where, in ADE20k's colours. Source: Li et al. 2022 (UniFormer, small: two stages of
 * convolutions, two of global attention) and Xiao et al. 2018 (UPerNet: a pyramid of pooled
 * features, then fused from coarse to fine), in the names and sizes of the checkpoint that
 * lllyasviel/ControlNet uses (upernet_global_small.pth, open-mmlab/mmsegmentation's names). Its
 * annotator hands the picture over with red and blue changed round; so do we.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/control/annotator.h"

#define STAGES 4
#define BLOCKS_MAX 40
#define POOLS 4
#define WIDTH_MAX 8192
#define HEAD_WIDTH 64
#define SHORT_PX 512 /* the network's picture: its shorter side, and at most so long */
#define LONG_PX 2048
#define PATCH_EPS 1e-5
#define NORM_EPS 1e-6
#define BATCH_EPS 1e-5

static const int pools[POOLS] = {1, 2, 3, 6};

struct block {
    struct layer position; /* one filter a channel */
    bool attends;          /* else the convolutions */
    struct conv_norm in;   /* its normalisation comes first */
    struct layer mix, out;
    struct norm before, after;
    struct layer qkv, project;
    struct conv_norm up; /* likewise; without one where the stage attends */
    struct layer down;
    int64_t hidden;
};
struct stage {
    struct layer patch;
    struct norm patch_norm, norm;
    struct block block[BLOCKS_MAX];
    int blocks, step;
    int64_t width, in;
};
struct seg {
    struct stage stage[STAGES];
    struct conv_norm pool[POOLS], bottleneck, lateral[STAGES - 1], smooth[STAGES - 1], fuse;
    struct layer classes;
    int64_t channels, count;
};

/* ---- what the file holds ---- */

static int64_t width_of(const struct annotator *a, const char *name, int axis)
{
    int64_t n = annotator_dim(a, name, axis);
    return n > 0 && n <= WIDTH_MAX ? n : 0;
}

static int detect(struct seg *m, struct annotator *a, struct error *err)
{
    char name[96];
    bool ok = true;
    annotator_find_prefix(a, "backbone.patch_embed1.proj.weight");
    for (int s = 0; s < STAGES; s++) {
        struct stage *t = &m->stage[s];
        snprintf(name, sizeof name, "backbone.patch_embed%d.proj.weight", s + 1);
        t->width = width_of(a, name, 0);
        t->in = s ? m->stage[s - 1].width : 3;
        t->step = s ? 2 : 4;
        for (; t->blocks < BLOCKS_MAX; t->blocks++) {
            struct block *b = &t->block[t->blocks];
            snprintf(name, sizeof name, "backbone.blocks%d.%d.mlp.fc1.weight", s + 1, t->blocks);
            b->hidden = width_of(a, name, 0);
            if (!b->hidden) break;
            snprintf(name, sizeof name, "backbone.blocks%d.%d.attn.qkv.weight", s + 1, t->blocks);
            b->attends = annotator_dim(a, name, 0) > 0;
        }
        ok = ok && t->width && t->blocks &&
             (t->width < HEAD_WIDTH || t->width % HEAD_WIDTH == 0 || !t->block[0].attends);
    }
    m->channels = width_of(a, "decode_head.bottleneck.conv.weight", 0);
    m->count = width_of(a, "decode_head.conv_seg.weight", 0);
    if (ok && m->channels && m->count == ADE_CLASSES) return 0;
    return error_set(err, ERR_FORMAT, "%s holds no UniFormer that segments into %d classes",
                     weight_store_path(a->store), ADE_CLASSES);
}

static void visit_batch(struct weight_visitor *v, struct conv_norm *m, const char *name, int64_t n)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_weight(v, &m->norm.w, "weight", "weight", 1, &n);
    visit_weight(v, &m->norm.b, "bias", "bias", 1, &n);
    visit_weight(v, &m->mean, "running_mean", "running_mean", 1, &n);
    visit_weight(v, &m->variance, "running_var", "running_var", 1, &n);
    visit_close(v, mark);
}

static void visit_block(struct weight_visitor *v, struct block *b, int64_t d)
{
    visit_conv(v, &b->position, "pos_embed", "pos_embed", d, 1, 3, true);
    if (b->attends) {
        visit_norm(v, &b->before, "norm1", "norm1", d);
        visit_norm(v, &b->after, "norm2", "norm2", d);
        visit_linear(v, &b->qkv, "attn.qkv", "attn.qkv", 3 * d, d, true);
        visit_linear(v, &b->project, "attn.proj", "attn.proj", d, d, true);
        visit_linear(v, &b->up.conv, "mlp.fc1", "mlp.fc1", b->hidden, d, true);
        visit_linear(v, &b->down, "mlp.fc2", "mlp.fc2", d, b->hidden, true);
        return;
    }
    visit_batch(v, &b->in, "norm1", d);
    visit_batch(v, &b->up, "norm2", d);
    visit_conv(v, &b->in.conv, "conv1", "conv1", d, d, 1, true);
    visit_conv(v, &b->mix, "attn", "attn", d, 1, 5, true);
    visit_conv(v, &b->out, "conv2", "conv2", d, d, 1, true);
    visit_conv(v, &b->up.conv, "mlp.fc1", "mlp.fc1", b->hidden, d, 1, true);
    visit_conv(v, &b->down, "mlp.fc2", "mlp.fc2", d, b->hidden, 1, true);
}

static void visit_pair(struct weight_visitor *v, struct conv_norm *m, const char *at, int64_t out,
                       int64_t in, int kernel)
{
    char conv[64], norm[64];
    snprintf(conv, sizeof conv, "decode_head.%s.conv", at);
    snprintf(norm, sizeof norm, "decode_head.%s.bn", at);
    visit_conv_norm(v, m, conv, norm, 0, out, in, kernel, false);
}

static void visit(struct weight_visitor *v, void *net)
{
    struct seg *m = net;
    char path[64];
    int64_t c = m->channels, deepest = m->stage[STAGES - 1].width;
    for (int s = 0; s < STAGES; s++) {
        struct stage *t = &m->stage[s];
        snprintf(path, sizeof path, "backbone.patch_embed%d", s + 1);
        struct visit_mark mark = visit_open(v, path, path);
        visit_conv(v, &t->patch, "proj", "proj", t->width, t->in, t->step, true);
        visit_norm(v, &t->patch_norm, "norm", "norm", t->width);
        visit_close(v, mark);
        snprintf(path, sizeof path, "backbone.norm%d", s + 1);
        visit_norm(v, &t->norm, path, path, t->width);
        for (int i = 0; i < t->blocks; i++) {
            snprintf(path, sizeof path, "backbone.blocks%d.%d", s + 1, i);
            mark = visit_open(v, path, path);
            visit_block(v, &t->block[i], t->width);
            visit_close(v, mark);
        }
    }
    for (int i = 0; i < POOLS; i++) {
        snprintf(path, sizeof path, "psp_modules.%d.1", i);
        visit_pair(v, &m->pool[i], path, c, deepest, 1);
    }
    visit_pair(v, &m->bottleneck, "bottleneck", c, deepest + POOLS * c, 3);
    for (int s = 0; s < STAGES - 1; s++) {
        snprintf(path, sizeof path, "lateral_convs.%d", s);
        visit_pair(v, &m->lateral[s], path, c, m->stage[s].width, 1);
        snprintf(path, sizeof path, "fpn_convs.%d", s);
        visit_pair(v, &m->smooth[s], path, c, c, 3);
    }
    visit_pair(v, &m->fuse, "fpn_bottleneck", c, STAGES * c, 3);
    visit_conv(v, &m->classes, "decode_head.conv_seg", "decode_head.conv_seg", m->count, c, 1,
               true);
}

/* ---- normalisations into weights ---- */

/* W (f x + g) + b = (W f) x + (W g + b): for one that comes before a 1x1 convolution. */
static int fold_before(struct conv_norm *m, struct error *err)
{
    struct weight *w = &m->conv.w, *b = &m->conv.b;
    int64_t out = w->k.dim[0], in = w->k.dim[1];
    m->folded = alloc_try((size_t)(out * (in + 1)), sizeof *m->folded);
    if (!m->folded) return error_set(err, ERR_NO_MEMORY, "no memory to fold %s", w->name);
    float *offset = m->folded + out * in;
    for (int64_t o = 0; o < out; o++) {
        double sum = dtype_get(b->k.data, b->k.dtype, o);
        for (int64_t i = 0; i < in; i++) {
            double weight = dtype_get(w->k.data, w->k.dtype, o * in + i);
            double f = dtype_get(m->norm.w.k.data, m->norm.w.k.dtype, i) /
                       sqrt(dtype_get(m->variance.k.data, m->variance.k.dtype, i) + BATCH_EPS);
            double g = dtype_get(m->norm.b.k.data, m->norm.b.k.dtype, i) -
                       f * dtype_get(m->mean.k.data, m->mean.k.dtype, i);
            m->folded[o * in + i] = (float)(weight * f);
            sum += weight * g;
        }
        offset[o] = (float)sum;
    }
    w->k.data = m->folded;
    b->k.data = offset;
    w->k.dtype = b->k.dtype = DTYPE_F32;
    return 0;
}

/* The convolutions of the head. */
static int list_head(struct seg *m, struct conv_norm **list)
{
    int n = 0;
    for (int i = 0; i < POOLS; i++) list[n++] = &m->pool[i];
    for (int i = 0; i < STAGES - 1; i++) {
        list[n++] = &m->lateral[i];
        list[n++] = &m->smooth[i];
    }
    list[n++] = &m->bottleneck;
    list[n++] = &m->fuse;
    return n;
}

static int fold(struct seg *m, struct error *err)
{
    struct conv_norm *list[POOLS + 2 * STAGES];
    int n = list_head(m, list), rc = 0;
    for (int i = 0; i < n && !rc; i++) rc = conv_norm_fold(list[i], err);
    for (int s = 0; s < STAGES; s++)
        for (int i = 0; i < m->stage[s].blocks && !rc; i++) {
            struct block *b = &m->stage[s].block[i];
            if (b->attends) continue;
            rc = fold_before(&b->in, err);
            if (!rc) rc = fold_before(&b->up, err);
        }
    /* a patch is a row of the matrix: channel, row, column */
    struct kernel_weight *k = &m->stage[0].patch.w.k;
    k->dim[1] *= k->dim[2] * k->dim[3];
    k->rank = 2;
    k->dim[2] = k->dim[3] = 0;
    return rc;
}

static void release(struct seg *m, struct device *d)
{
    struct conv_norm *list[POOLS + 2 * STAGES];
    int n = list_head(m, list);
    for (int i = 0; i < n; i++) conv_norm_release(list[i], d);
    layer_release(&m->classes, d);
    for (int s = 0; s < STAGES; s++) {
        struct stage *t = &m->stage[s];
        layer_release(&t->patch, d);
        norm_release(&t->patch_norm, d);
        norm_release(&t->norm, d);
        for (int i = 0; i < t->blocks; i++) {
            struct block *b = &t->block[i];
            layer_release(&b->position, d);
            conv_norm_release(&b->in, d);
            layer_release(&b->mix, d);
            layer_release(&b->out, d);
            norm_release(&b->before, d);
            norm_release(&b->after, d);
            layer_release(&b->qkv, d);
            layer_release(&b->project, d);
            conv_norm_release(&b->up, d);
            layer_release(&b->down, d);
        }
    }
}

/* ---- forward ---- */

static struct tensor run_block(struct pass *p, struct block *b, struct tensor x)
{
    const struct conv_shape one = conv_same(1);
    int64_t h = x.dim[1], w = x.dim[2], d = x.dim[3];
    struct tensor y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    x = op_add(p, x, annotator_depthwise(p, &b->position, x));
    if (b->attends) {
        x = tensor_view_3d(x, 1, h * w, d);
        struct tensor in = norm_layer(p, &b->before, x, NORM_EPS);
        in = layer_linear(p, &b->qkv, in, NULL);
        in = op_attention_joined(p, in, d < HEAD_WIDTH ? 1 : d / HEAD_WIDTH, false);
        x = layer_linear(p, &b->project, in, &(struct fuse){.add = x});
        in = norm_layer(p, &b->after, x, NORM_EPS);
        in = layer_linear(p, &b->up.conv, in, &(struct fuse){.act = ACT_GELU});
        struct tensor flat = tensor_view_3d(y, 1, h * w, d);
        layer_linear_into(p, &b->down, &flat, in, &(struct fuse){.add = x});
    } else {
        struct tensor in = layer_conv(p, &b->in.conv, x, one, NULL);
        in = annotator_depthwise(p, &b->mix, in);
        x = layer_conv(p, &b->out, in, one, &(struct fuse){.add = x});
        in = layer_conv(p, &b->up.conv, x, one, &(struct fuse){.act = ACT_GELU});
        layer_conv_into(p, &b->down, &y, in, one, &(struct fuse){.add = x});
    }
    pass_close_scope(p, mark);
    return y;
}

/* x: patches as rows in the first stage. */
static struct tensor run_stage(struct pass *p, struct stage *t, struct tensor x, int step)
{
    if (step == 2)
        x = layer_conv(p, &t->patch, x, (struct conv_shape){.stride = 2}, NULL);
    else
        x = layer_linear(p, &t->patch, x, NULL);
    x = norm_layer(p, &t->patch_norm, x, PATCH_EPS);
    for (int i = 0; i < t->blocks; i++) x = run_block(p, &t->block[i], x);
    return x;
}

/* Means over side x side parts that may overlap (torch's adaptive_avg_pool2d). On the host. */
static struct tensor pooled(struct pass *p, struct tensor x, int side)
{
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3];
    float *in = alloc_zero((size_t)(h * w * c), sizeof *in);
    float *out = alloc_zero((size_t)(side * side * c), sizeof *out);
    pass_output(p, in, x);
    for (int part = 0; part < side * side; part++) {
        int64_t row = part / side, column = part % side;
        int64_t y0 = row * h / side, y1 = ((row + 1) * h + side - 1) / side;
        int64_t x0 = column * w / side, x1 = ((column + 1) * w + side - 1) / side;
        for (int64_t i = 0; i < c; i++) {
            double sum = 0;
            for (int64_t y = y0; y < y1; y++)
                for (int64_t k = x0; k < x1; k++) sum += (double)in[(y * w + k) * c + i];
            out[part * c + i] = (float)(sum / (double)((y1 - y0) * (x1 - x0)));
        }
    }
    struct tensor y = pass_input(p, out, 4, TENSOR_DIM(1, side, side, c));
    free(in);
    free(out);
    return y;
}

/* seen: the stages' features. -> [1,h,w,classes] at the first stage's size */
static struct tensor run_head(struct pass *p, struct seg *m, const struct tensor *seen)
{
    struct tensor lateral[STAGES], deepest = seen[STAGES - 1], x = deepest;
    for (int i = 0; i < POOLS; i++) {
        struct tensor part =
            conv_norm_run(p, &m->pool[i], pooled(p, deepest, pools[i]), 1, 1, ACT_RELU);
        x = op_concat(p, x, op_bilinear(p, part, deepest.dim[1], deepest.dim[2]));
    }
    lateral[STAGES - 1] = conv_norm_run(p, &m->bottleneck, x, 1, 1, ACT_RELU);
    for (int s = STAGES - 2; s >= 0; s--) {
        struct tensor own = conv_norm_run(p, &m->lateral[s], seen[s], 1, 1, ACT_RELU);
        lateral[s] = op_add(p, own, op_bilinear(p, lateral[s + 1], own.dim[1], own.dim[2]));
    }
    for (int s = 0; s < STAGES; s++) {
        struct tensor own = lateral[s];
        if (s < STAGES - 1) own = conv_norm_run(p, &m->smooth[s], own, 1, 1, ACT_RELU);
        if (s) own = op_bilinear(p, own, lateral[0].dim[1], lateral[0].dim[2]);
        x = s ? op_concat(p, x, own) : own;
    }
    x = conv_norm_run(p, &m->fuse, x, 1, 1, ACT_RELU);
    return layer_conv(p, &m->classes, x, conv_same(1), NULL);
}

static struct tensor forward(struct pass *p, struct seg *m, struct tensor x)
{
    struct tensor seen[STAGES];
    for (int s = 0; s < STAGES; s++) {
        x = run_stage(p, &m->stage[s], x, m->stage[s].step);
        seen[s] = norm_layer(p, &m->stage[s].norm, x, NORM_EPS);
    }
    return run_head(p, m, seen);
}

/* ---- from the picture and back ---- */

/* The normalised picture as patches [h / 4, w / 4, 3 * 16]. */
static void fill_patches(float *to, const struct pixels *from, int across, int down)
{
    static const double mean[3] = {123.675, 116.28, 103.53}, deviation[3] = {58.395, 57.12, 57.375};
    for (int i = 0; i < across * down; i++)
        for (int c = 0; c < 3; c++)
            for (int t = 0; t < 16; t++) {
                int y = i / across * 4 + t / 4, x = i % across * 4 + t % 4;
                uint8_t value = from->data[((int64_t)y * from->width + x) * 3 + 2 - c];
                to[(int64_t)i * 48 + c * 16 + t] = (float)((value - mean[c]) / deviation[c]);
            }
}

/* Row y of h rows made out of `from` [fh,fw,n], between pixel centres in both directions. */
static void enlarge_row(float *to, int y, int h, int w, const float *from, int fh, int fw, int n)
{
    float fy = fmaxf(((float)y + 0.5f) * ((float)fh / (float)h) - 0.5f, 0);
    int y0 = (int)fy < fh - 1 ? (int)fy : fh - 1, y1 = y0 + (y0 < fh - 1);
    float v = fminf(fy - (float)y0, 1);
    for (int x = 0; x < w; x++) {
        float fx = fmaxf(((float)x + 0.5f) * ((float)fw / (float)w) - 0.5f, 0);
        int x0 = (int)fx < fw - 1 ? (int)fx : fw - 1, x1 = x0 + (x0 < fw - 1);
        float u = fminf(fx - (float)x0, 1);
        const float *a = from + ((int64_t)y0 * fw + x0) * n,
                    *b = from + ((int64_t)y0 * fw + x1) * n;
        const float *c = from + ((int64_t)y1 * fw + x0) * n,
                    *d = from + ((int64_t)y1 * fw + x1) * n;
        for (int i = 0; i < n; i++)
            to[(int64_t)x * n + i] =
                (1 - v) * ((1 - u) * a[i] + u * b[i]) + v * ((1 - u) * c[i] + u * d[i]);
    }
}

/* The surest class of each pixel, drawn. scores [sh,sw,n] grow to the network's picture, then to the
 * map's size, two rows of the former at a time. */
static int draw(struct pixels *to, const float *scores, int sh, int sw, int n, int ph, int pw,
                struct error *err)
{
    int w = to->width, h = to->height;
    bool twice = ph != h || pw != w;
    size_t row = (size_t)n * (size_t)pw;
    float *pair = alloc_try(2 * row, sizeof *pair);
    float *line = alloc_try((size_t)n * (size_t)w, sizeof *line);
    int rc = pair && line ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for a map of segments");
    int held = -1;
    for (int y = 0; !rc && y < h; y++) {
        if (twice) {
            float fy = fmaxf(((float)y + 0.5f) * ((float)ph / (float)h) - 0.5f, 0);
            int y0 = (int)fy < ph - 1 ? (int)fy : ph - 1, y1 = y0 + (y0 < ph - 1);
            float v = fminf(fy - (float)y0, 1);
            if (held != y0) {
                enlarge_row(pair, y0, ph, pw, scores, sh, sw, n);
                enlarge_row(pair + row, y1, ph, pw, scores, sh, sw, n);
            }
            held = y0;
            for (int x = 0; x < w; x++) {
                float fx = fmaxf(((float)x + 0.5f) * ((float)pw / (float)w) - 0.5f, 0);
                int x0 = (int)fx < pw - 1 ? (int)fx : pw - 1, x1 = x0 + (x0 < pw - 1);
                float u = fminf(fx - (float)x0, 1);
                const float *a = pair + (int64_t)x0 * n, *b = pair + (int64_t)x1 * n;
                for (int i = 0; i < n; i++)
                    line[(int64_t)x * n + i] =
                        (1 - v) * ((1 - u) * a[i] + u * b[i]) +
                        v * ((1 - u) * a[row + (size_t)i] + u * b[row + (size_t)i]);
            }
        } else {
            enlarge_row(line, y, h, w, scores, sh, sw, n);
        }
        for (int x = 0; x < w; x++) {
            const float *score = line + (int64_t)x * n;
            int best = 0;
            for (int i = 1; i < n; i++)
                if (score[i] > score[best]) best = i;
            memcpy(to->data + ((int64_t)y * w + x) * 3, ade_palette[best], 3);
        }
    }
    free(pair);
    free(line);
    return rc;
}

static int run(struct annotator *a, struct seg *m, struct pixels *to, const struct pixels *from,
               struct error *err)
{
    int w = from->width, h = from->height, longer = w > h ? w : h, shorter = w < h ? w : h;
    double scale = fmin((double)LONG_PX / longer, (double)SHORT_PX / shorter);
    int pw = (int)(w * scale + 0.5), ph = (int)(h * scale + 0.5), across = pw / 4, down = ph / 4;
    if (across < 8 || down < 8)
        return error_set(err, ERR_INVALID, "a picture of %dx%d is too narrow to be segmented", w,
                         h);
    struct pixels sized = {0};
    float *patches = alloc_try((size_t)across * (size_t)down * 48, sizeof *patches);
    float *scores = alloc_try((size_t)across * (size_t)down * ADE_CLASSES, sizeof *scores);
    int rc = patches && scores ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for segments");
    if (!rc) rc = pixels_resize_linear(&sized, from, pw, ph, false, err);
    if (!rc) {
        struct pass p;
        fill_patches(patches, &sized, across, down);
        pass_start(&p, &a->memory, DTYPE_F32, NULL);
        struct tensor x = pass_input(&p, patches, 4, TENSOR_DIM(1, down, across, 48));
        pass_output(&p, scores, forward(&p, m, x));
        rc = pass_finish(&p, err);
    }
    if (!rc) rc = draw(to, scores, down, across, ADE_CLASSES, ph, pw, err);
    pixels_release(&sized);
    free(patches);
    free(scores);
    return rc;
}

int annotate_seg(struct annotator *a, struct pixels *to, const struct pixels *from,
                 struct error *err)
{
    struct seg *m = alloc_zero(1, sizeof *m);
    struct pixels made = {0};
    int rc = detect(m, a, err);
    if (!rc) rc = annotator_load(a, visit, m, "the segmenting network", err);
    if (!rc) rc = fold(m, err);
    if (!rc) rc = pixels_new(&made, from->width, from->height, 3, err);
    if (!rc) rc = run(a, m, &made, from, err);
    release(m, a->device);
    free(m);
    if (rc)
        pixels_release(&made);
    else
        *to = made;
    return rc;
}
