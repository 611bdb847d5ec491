#include "diffusion/face/parsenet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define WIDTH_MAX 4096
#define CLASSES_MAX 64

static const struct safetensors_entry *find(const struct weight_store *s, const char *block,
                                            const char *part)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s.weight", block, part);
    const struct safetensors_entry *e = weight_store_find(s, name);
    if (!e || e->rank != 4 || e->dim[0] < 1 || e->dim[1] < 1 || e->dim[0] > WIDTH_MAX ||
        e->dim[1] > WIDTH_MAX)
        return NULL;
    return e;
}

/* Blocks list.first, list.first + 1, ... while there are any. */
static int detect_list(struct parsenet *m, const struct weight_store *s, const char *list,
                       int first, enum parsenet_scale scale)
{
    int before = m->downs + m->bodies + m->ups, count = 0;
    while (before + count < PARSENET_BLOCKS_MAX) {
        struct parsenet_block *b = &m->list[before + count];
        *b = (struct parsenet_block){.scale = scale};
        snprintf(b->name, sizeof b->name, "%s.%d", list, first + count);
        const struct safetensors_entry *one = find(s, b->name, "conv1.conv2d");
        if (!one) break;
        b->in = one->dim[1];
        b->out = one->dim[0];
        b->has_shortcut = find(s, b->name, "shortcut_func.conv2d") != NULL;
        count++;
    }
    return count;
}

int parsenet_detect(struct parsenet *model, const struct weight_store *s, struct error *err)
{
    struct parsenet m = {0};
    const struct safetensors_entry *first = find(s, "encoder.0", "conv2d");
    const struct safetensors_entry *last = find(s, "out_mask_conv", "conv2d");
    if (!first || !last)
        return error_set(err, ERR_FORMAT, "%s holds no ParseNet", weight_store_path(s));
    m.base = first->dim[0];
    m.classes = last->dim[0];
    if (m.classes > CLASSES_MAX)
        return error_set(err, ERR_FORMAT, "%s: a ParseNet of %lld classes, %d are the limit",
                         weight_store_path(s), (long long)m.classes, CLASSES_MAX);
    m.list = alloc_zero(PARSENET_BLOCKS_MAX, sizeof *m.list);
    m.downs = detect_list(&m, s, "encoder", 1, PARSENET_DOWN);
    m.bodies = detect_list(&m, s, "body", 0, PARSENET_SAME);
    m.ups = detect_list(&m, s, "decoder", 0, PARSENET_UP);
    if (m.downs < 1 || m.downs != m.ups || m.downs > 6) {
        free(m.list);
        return error_set(err, ERR_FORMAT, "%s: a ParseNet of %d halvings and %d doublings",
                         weight_store_path(s), m.downs, m.ups);
    }
    *model = m;
    return 0;
}

static int block_count(const struct parsenet *m)
{
    return m->downs + m->bodies + m->ups;
}

void parsenet_visit(struct weight_visitor *v, struct parsenet *m)
{
    visit_conv_norm(v, &m->first, "encoder.0.conv2d", NULL, 0, m->base, 3, 3, true);
    for (int i = 0; i < block_count(m); i++) {
        struct parsenet_block *b = &m->list[i];
        struct visit_mark mark = visit_open(v, b->name, b->name);
        visit_conv_norm(v, &b->conv1, "conv1.conv2d", "conv1.norm.norm", 0, b->out, b->in, 3,
                        false);
        visit_conv_norm(v, &b->conv2, "conv2.conv2d", "conv2.norm.norm", 0, b->out, b->out, 3,
                        false);
        if (b->has_shortcut)
            visit_conv_norm(v, &b->shortcut, "shortcut_func.conv2d", NULL, 0, b->out, b->in, 3,
                            true);
        visit_close(v, mark);
    }
    visit_conv_norm(v, &m->last, "out_mask_conv.conv2d", NULL, 0, m->classes,
                    m->list[block_count(m) - 1].out, 3, true);
}

int parsenet_fold(struct parsenet *m, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < block_count(m) && !rc; i++) {
        rc = conv_norm_fold(&m->list[i].conv1, err);
        if (!rc) rc = conv_norm_fold(&m->list[i].conv2, err);
    }
    return rc;
}

void parsenet_release(struct parsenet *m, struct device *d)
{
    if (!m->list) return;
    conv_norm_release(&m->first, d);
    conv_norm_release(&m->last, d);
    for (int i = 0; i < block_count(m); i++) {
        conv_norm_release(&m->list[i].conv1, d);
        conv_norm_release(&m->list[i].conv2, d);
        conv_norm_release(&m->list[i].shortcut, d);
    }
    free(m->list);
    memset(m, 0, sizeof *m);
}

/* Doubled by nearest neighbour, edges mirrored, convolved. */
static struct tensor mirrored(struct pass *p, struct conv_norm *m, struct tensor x,
                              enum parsenet_scale scale, const struct fuse *f)
{
    struct conv_shape bare = {.stride = scale == PARSENET_DOWN ? 2 : 1};
    if (scale == PARSENET_UP) x = op_upsample(p, x, 2 * x.dim[1], 2 * x.dim[2]);
    return layer_conv(p, &m->conv, op_mirror(p, x), bare, f);
}

static struct tensor run_block(struct pass *p, struct parsenet_block *b, struct tensor x)
{
    bool down = b->scale == PARSENET_DOWN, up = b->scale == PARSENET_UP;
    int64_t h = up ? 2 * x.dim[1] : down ? (x.dim[1] + 1) / 2 : x.dim[1];
    int64_t w = up ? 2 * x.dim[2] : down ? (x.dim[2] + 1) / 2 : x.dim[2];
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(x.dim[0], h, w, b->out));
    size_t mark = pass_open_scope(p);
    struct tensor rest = x;
    if (b->has_shortcut) rest = mirrored(p, &b->shortcut, x, b->scale, NULL);
    struct tensor in = mirrored(p, &b->conv1, x, up ? PARSENET_UP : PARSENET_SAME,
                                &(struct fuse){.act = ACT_LEAKY_RELU});
    in = mirrored(p, &b->conv2, in, down ? PARSENET_DOWN : PARSENET_SAME, NULL);
    op_add_into(p, &y, rest, in);
    pass_close_scope(p, mark);
    return y;
}

struct tensor parsenet_forward(struct pass *p, struct parsenet *m, struct tensor x)
{
    struct tensor h = mirrored(p, &m->first, x, PARSENET_SAME, NULL), encoded = h;
    for (int i = 0; i < block_count(m); i++) {
        if (i == m->downs) encoded = h;
        h = run_block(p, &m->list[i], h);
        if (i == m->downs + m->bodies - 1 && m->bodies) h = op_add(p, encoded, h);
    }
    return mirrored(p, &m->last, h, PARSENET_SAME, NULL);
}

bool parsenet_is_face(int class)
{
    /* background, hat, necklace, neck and clothes are not; ears, hair ... as facexlib counts them */
    static const bool face[] = {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0};
    return class >= 0 && class < (int)COUNT_OF(face) && face[class];
}
