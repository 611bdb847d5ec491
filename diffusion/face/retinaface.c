#include "diffusion/face/retinaface.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define WIDTH_MAX 8192

static const struct safetensors_entry *find(const struct weight_store *s, const char *prefix,
                                            const char *name)
{
    const struct safetensors_entry *e = weight_store_find_in(s, prefix, name);
    for (int i = 0; e && i < e->rank; i++)
        if (e->dim[i] < 1 || e->dim[i] > WIDTH_MAX) return NULL;
    return e && e->rank == 4 ? e : NULL;
}

static bool detect_block(struct retinaface_block *b, const struct weight_store *s,
                         const char *prefix, int stage, int i)
{
    char name[64];
    snprintf(name, sizeof name, "body.layer%d.%d.conv1.weight", stage + 1, i);
    const struct safetensors_entry *one = find(s, prefix, name);
    snprintf(name, sizeof name, "body.layer%d.%d.conv3.weight", stage + 1, i);
    const struct safetensors_entry *three = find(s, prefix, name);
    snprintf(name, sizeof name, "body.layer%d.%d.downsample.0.weight", stage + 1, i);
    if (!one || !three) return false;
    *b = (struct retinaface_block){.has_shortcut = find(s, prefix, name) != NULL,
                                   .in = one->dim[1],
                                   .mid = one->dim[0],
                                   .out = three->dim[0],
                                   .stride = stage && i == 0 ? 2 : 1};
    return true;
}

int retinaface_detect(struct retinaface *model, const struct weight_store *s, const char **prefix,
                      struct error *err)
{
    struct retinaface m = {0};
    *prefix = weight_store_has_prefix(s, "module.") ? "module." : "";
    const struct safetensors_entry *first = find(s, *prefix, "body.conv1.weight");
    const struct safetensors_entry *pyramid = find(s, *prefix, "fpn.output1.0.weight");
    if (!first || !pyramid)
        return error_set(err, ERR_FORMAT, "%s holds no RetinaFace on a ResNet",
                         weight_store_path(s));
    m.first_width = first->dim[0];
    m.width = pyramid->dim[0];
    if (m.width <= 64 || m.width % 4)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: a RetinaFace whose pyramid is %lld wide; those wider than 64 are "
                         "known",
                         weight_store_path(s), (long long)m.width);
    m.list = alloc_zero(RETINAFACE_BLOCKS_MAX, sizeof *m.list);
    for (int stage = 0; stage < RETINAFACE_STAGES; stage++)
        while (m.block_count < RETINAFACE_BLOCKS_MAX &&
               detect_block(&m.list[m.block_count], s, *prefix, stage, m.blocks[stage])) {
            m.blocks[stage]++;
            m.block_count++;
        }
    for (int stage = 0; stage < RETINAFACE_STAGES; stage++)
        if (!m.blocks[stage]) {
            free(m.list);
            return error_set(err, ERR_FORMAT, "%s: stage %d of the ResNet is missing",
                             weight_store_path(s), stage + 1);
        }
    *model = m;
    return 0;
}

/* ---- names ---- */

static void visit_block(struct weight_visitor *v, struct retinaface_block *b, const char *name)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_conv_norm(v, &b->conv[0], "conv1", "bn1", 0, b->mid, b->in, 1, false);
    visit_conv_norm(v, &b->conv[1], "conv2", "bn2", 0, b->mid, b->mid, 3, false);
    visit_conv_norm(v, &b->conv[2], "conv3", "bn3", 0, b->out, b->mid, 1, false);
    if (b->has_shortcut)
        visit_conv_norm(v, &b->shortcut, "downsample.0", "downsample.1", 0, b->out, b->in, 1,
                        false);
    visit_close(v, mark);
}

static void visit_named(struct weight_visitor *v, struct conv_norm *m, const char *name,
                        int64_t out, int64_t in, int kernel)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_conv_norm(v, m, "0", "1", 0, out, in, kernel, false);
    visit_close(v, mark);
}

static void visit_heads(struct weight_visitor *v, struct retinaface *m, int level)
{
    static const char *const parts[] = {"conv3X3", "conv5X5_1", "conv5X5_2", "conv7X7_2",
                                        "conv7x7_3"};
    int64_t w = m->width;
    char name[40];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "ssh%d.%s", level + 1, parts[i]);
        visit_named(v, &m->context[level][i], name, i == 0 ? w / 2 : w / 4, i < 2 ? w : w / 4, 3);
    }
    snprintf(name, sizeof name, "ClassHead.%d.conv1x1", level);
    visit_conv(v, &m->score[level], name, name, 4, w, 1, true);
    snprintf(name, sizeof name, "BboxHead.%d.conv1x1", level);
    visit_conv(v, &m->box[level], name, name, 8, w, 1, true);
    snprintf(name, sizeof name, "LandmarkHead.%d.conv1x1", level);
    visit_conv(v, &m->point[level], name, name, 20, w, 1, true);
}

void retinaface_visit(struct weight_visitor *v, struct retinaface *m)
{
    char name[40];
    int at = 0;
    struct visit_mark body = visit_open(v, "body", "body");
    visit_conv_norm(v, &m->first, "conv1", "bn1", 0, m->first_width, 3, 7, false);
    for (int stage = 0; stage < RETINAFACE_STAGES; stage++)
        for (int i = 0; i < m->blocks[stage]; i++) {
            snprintf(name, sizeof name, "layer%d.%d", stage + 1, i);
            visit_block(v, &m->list[at++], name);
        }
    visit_close(v, body);
    at = m->blocks[0];
    for (int level = 0; level < RETINAFACE_LEVELS; level++) {
        at += m->blocks[level + 1];
        snprintf(name, sizeof name, "fpn.output%d", level + 1);
        visit_named(v, &m->output[level], name, m->width, m->list[at - 1].out, 1);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "fpn.merge%d", i + 1);
        visit_named(v, &m->merge[i], name, m->width, m->width, 3);
    }
    for (int level = 0; level < RETINAFACE_LEVELS; level++) visit_heads(v, m, level);
}

/* Every conv_norm of it, one after the other. */
static struct conv_norm *part_of(struct retinaface *m, int index)
{
    int pyramid = index - 1 - 4 * m->block_count;
    if (index == 0) return &m->first;
    if (pyramid < 0) {
        struct retinaface_block *b = &m->list[(index - 1) / 4];
        return (index - 1) % 4 < 3 ? &b->conv[(index - 1) % 4] : &b->shortcut;
    }
    if (pyramid < 3) return &m->output[pyramid];
    if (pyramid < 5) return &m->merge[pyramid - 3];
    return pyramid < 20 ? &m->context[(pyramid - 5) / 5][(pyramid - 5) % 5] : NULL;
}

int retinaface_fold(struct retinaface *m, struct error *err)
{
    int rc = 0;
    struct conv_norm *part;
    for (int i = 0; !rc && (part = part_of(m, i)); i++) rc = conv_norm_fold(part, err);
    return rc;
}

void retinaface_release(struct retinaface *m, struct device *d)
{
    struct conv_norm *part;
    for (int i = 0; m->list && (part = part_of(m, i)); i++) conv_norm_release(part, d);
    for (int i = 0; i < RETINAFACE_LEVELS; i++) {
        layer_release(&m->score[i], d);
        layer_release(&m->box[i], d);
        layer_release(&m->point[i], d);
    }
    free(m->list);
    memset(m, 0, sizeof *m);
}

/* ---- running ---- */

static struct tensor bottleneck(struct pass *p, struct retinaface_block *b, struct tensor x)
{
    int64_t h = (x.dim[1] + b->stride - 1) / b->stride, w = (x.dim[2] + b->stride - 1) / b->stride;
    struct tensor sum = pass_tensor(p, x.dtype, 4, TENSOR_DIM(x.dim[0], h, w, b->out));
    size_t mark = pass_open_scope(p);
    struct tensor rest = x;
    if (b->has_shortcut) rest = conv_norm_run(p, &b->shortcut, x, b->stride, 1, ACT_NONE);
    struct tensor in = conv_norm_run(p, &b->conv[0], x, 1, 1, ACT_RELU);
    in = conv_norm_run(p, &b->conv[1], in, b->stride, 1, ACT_RELU);
    layer_conv_into(p, &b->conv[2].conv, &sum, in, conv_same(1), &(struct fuse){.add = rest});
    pass_close_scope(p, mark);
    op_activate(p, &sum, ACT_RELU);
    return sum;
}

static struct tensor context(struct pass *p, struct conv_norm m[5], struct tensor x)
{
    struct tensor three = conv_norm_run(p, &m[0], x, 1, 1, ACT_NONE);
    struct tensor two = conv_norm_run(p, &m[1], x, 1, 1, ACT_RELU);
    struct tensor five = conv_norm_run(p, &m[2], two, 1, 1, ACT_NONE);
    struct tensor seven = conv_norm_run(p, &m[3], two, 1, 1, ACT_RELU);
    seven = conv_norm_run(p, &m[4], seven, 1, 1, ACT_NONE);
    return op_activation(p, op_concat(p, op_concat(p, three, five), seven), ACT_RELU);
}

static struct tensor merged(struct pass *p, struct conv_norm *m, struct tensor fine,
                            struct tensor coarse)
{
    struct tensor grown = op_upsample(p, coarse, fine.dim[1], fine.dim[2]);
    return conv_norm_run(p, m, op_add(p, fine, grown), 1, 1, ACT_RELU);
}

struct retinaface_raw retinaface_forward(struct pass *p, struct retinaface *m, struct tensor x)
{
    struct tensor level[RETINAFACE_LEVELS];
    struct retinaface_raw raw;
    struct tensor h = conv_norm_run(p, &m->first, x, 2, 1, ACT_RELU);
    h = op_max_pool(p, h, 3, 2, 1, false);
    for (int stage = 0, at = 0; stage < RETINAFACE_STAGES; stage++) {
        for (int i = 0; i < m->blocks[stage]; i++) h = bottleneck(p, &m->list[at++], h);
        if (stage) level[stage - 1] = conv_norm_run(p, &m->output[stage - 1], h, 1, 1, ACT_RELU);
    }
    level[1] = merged(p, &m->merge[1], level[1], level[2]);
    level[0] = merged(p, &m->merge[0], level[0], level[1]);
    for (int i = 0; i < RETINAFACE_LEVELS; i++) {
        struct tensor f = context(p, m->context[i], level[i]);
        raw.score[i] = layer_conv(p, &m->score[i], f, conv_same(1), NULL);
        raw.box[i] = layer_conv(p, &m->box[i], f, conv_same(1), NULL);
        raw.point[i] = layer_conv(p, &m->point[i], f, conv_same(1), NULL);
    }
    return raw;
}

/* ---- faces out of the raw results ---- */

struct anchor {
    float x, y, side;
};

static struct found_face face_of(struct anchor a, const float *box, const float *point, float score)
{
    struct found_face f = {.score = score};
    float x = a.x + box[0] * 0.1f * a.side, y = a.y + box[1] * 0.1f * a.side;
    float w = a.side * expf(box[2] * 0.2f), h = a.side * expf(box[3] * 0.2f);
    f.box[0] = x - w / 2;
    f.box[1] = y - h / 2;
    f.box[2] = f.box[0] + w;
    f.box[3] = f.box[1] + h;
    for (int i = 0; i < 5; i++) {
        f.point[i][0] = a.x + point[2 * i] * 0.1f * a.side;
        f.point[i][1] = a.y + point[2 * i + 1] * 0.1f * a.side;
    }
    return f;
}

static bool is_finite(const struct found_face *f)
{
    bool finite = true;
    for (int k = 0; k < 4; k++) finite = finite && isfinite(f->box[k]);
    for (int k = 0; k < 5; k++) finite = finite && isfinite(f->point[k][0] + f->point[k][1]);
    return finite;
}

static bool overlaps(const struct found_face *a, const struct found_face *b)
{
    float w = fminf(a->box[2], b->box[2]) - fmaxf(a->box[0], b->box[0]);
    float h = fminf(a->box[3], b->box[3]) - fmaxf(a->box[1], b->box[1]);
    if (w <= 0 || h <= 0) return false;
    float area_a = (a->box[2] - a->box[0]) * (a->box[3] - a->box[1]);
    float area_b = (b->box[2] - b->box[0]) * (b->box[3] - b->box[1]);
    return w * h > 0.4f * (area_a + area_b - w * h);
}

static int surer(const void *a, const void *b)
{
    float x = ((const struct found_face *)a)->score, y = ((const struct found_face *)b)->score;
    return (x < y) - (x > y);
}

/* The surest of `count` that do not overlap; a strange picture may have thousands of candidates. */
static int pick(struct found_face faces[FACES_MAX], struct found_face *candidates, int count)
{
    int kept = 0;
    qsort(candidates, (size_t)count, sizeof *candidates, surer);
    for (int i = 0; i < count && kept < FACES_MAX; i++) {
        bool free_place = true;
        for (int k = 0; k < kept && free_place; k++)
            free_place = !overlaps(&faces[k], &candidates[i]);
        if (free_place) faces[kept++] = candidates[i];
    }
    return kept;
}

int retinaface_decode(struct found_face faces[FACES_MAX], float *const score[RETINAFACE_LEVELS],
                      float *const box[RETINAFACE_LEVELS], float *const point[RETINAFACE_LEVELS],
                      int width, int height, double least)
{
    int count = 0, room = 0;
    struct found_face *list = NULL;
    for (int level = 0; level < RETINAFACE_LEVELS; level++) {
        int step = 8 << level, across = (width + step - 1) / step;
        int n = across * ((height + step - 1) / step) * 2;
        for (int i = 0; i < n; i++) {
            const float *s = score[level] + i * 2;
            float sure = 1 / (1 + expf(s[0] - s[1]));
            struct anchor a = {((float)(i / 2 % across) + 0.5f) * (float)step,
                               ((float)(i / 2 / across) + 0.5f) * (float)step,
                               (float)(i % 2 ? 32 << 2 * level : 16 << 2 * level)};
            if (!(sure > least)) continue;
            struct found_face f = face_of(a, box[level] + i * 4, point[level] + i * 10, sure);
            if (!is_finite(&f)) continue;
            if (count == room)
                list = alloc_grow(list, (size_t)(room = room ? 2 * room : 64), sizeof *list);
            list[count++] = f;
        }
    }
    int kept = pick(faces, list, count);
    free(list);
    return kept;
}
