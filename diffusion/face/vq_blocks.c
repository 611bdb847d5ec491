#include "diffusion/face/vq_blocks.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define EPS 1e-6
#define WIDTH_MAX 4096

static const struct safetensors_entry *find(const struct weight_store *s, const char *list, int i,
                                            const char *part)
{
    char name[WEIGHT_NAME_BYTES];
    snprintf(name, sizeof name, "%s.blocks.%d.%s", list, i, part);
    return weight_store_find(s, name);
}

/* False past the last block. */
static bool detect_one(struct vq_block *b, const struct weight_store *s, const char *list, int i)
{
    const struct safetensors_entry *e;
    if ((e = find(s, list, i, "conv1.weight")) && e->rank == 4) {
        *b = (struct vq_block){.kind = VQ_RES, .in = e->dim[1], .out = e->dim[0]};
        b->res.in = b->in;
        b->res.out = b->out;
    } else if ((e = find(s, list, i, "q.weight")) && e->rank >= 2) {
        *b = (struct vq_block){.kind = VQ_ATTENTION, .in = e->dim[0], .out = e->dim[0]};
    } else if ((e = find(s, list, i, "conv.weight")) && e->rank == 4) {
        *b = (struct vq_block){.kind = VQ_RESAMPLE, .in = e->dim[1], .out = e->dim[0]};
    } else if ((e = find(s, list, i, "weight")) && e->rank == 4) {
        *b = (struct vq_block){.kind = VQ_CONV, .in = e->dim[1], .out = e->dim[0]};
    } else if (e && e->rank == 1) {
        *b = (struct vq_block){.kind = VQ_NORM, .in = e->dim[0], .out = e->dim[0]};
    } else {
        return false;
    }
    return true;
}

int vq_blocks_detect(struct vq_blocks *blocks, const struct weight_store *s, const char *name,
                     bool up, int64_t groups, struct error *err)
{
    struct vq_blocks b = {.name = name, .up = up, .groups = groups};
    b.list = alloc_zero(VQ_BLOCKS_MAX, sizeof *b.list);
    while (b.count < VQ_BLOCKS_MAX && detect_one(&b.list[b.count], s, name, b.count)) {
        const struct vq_block *m = &b.list[b.count++];
        bool fits = b.count == 1 || m->in == b.list[b.count - 2].out;
        bool grouped = m->kind == VQ_CONV || m->kind == VQ_RESAMPLE ||
                       (m->in % groups == 0 && m->out % groups == 0);
        if (fits && grouped && m->in > 0 && m->out > 0 && m->in <= WIDTH_MAX && m->out <= WIDTH_MAX)
            continue;
        free(b.list);
        return error_set(err, ERR_FORMAT, "%s: block %d of the %s is %lld to %lld channels wide",
                         weight_store_path(s), b.count - 1, name, (long long)m->in,
                         (long long)m->out);
    }
    if (b.count < 3) {
        free(b.list);
        return error_set(err, ERR_FORMAT, "%s has no %s of a VQGAN", weight_store_path(s), name);
    }
    *blocks = b;
    return 0;
}

void vq_res_visit(struct weight_visitor *v, struct vq_res *m, const char *name)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_norm(v, &m->norm1, "norm1", "norm1", m->in);
    visit_conv(v, &m->conv1, "conv1", "conv1", m->out, m->in, 3, true);
    visit_norm(v, &m->norm2, "norm2", "norm2", m->out);
    visit_conv(v, &m->conv2, "conv2", "conv2", m->out, m->out, 3, true);
    if (m->in != m->out) visit_conv(v, &m->skip, "conv_out", "conv_out", m->out, m->in, 1, true);
    visit_close(v, mark);
}

static void visit_attention(struct weight_visitor *v, struct vq_block *m, const char *name)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_norm(v, &m->norm, "norm", "norm", m->in);
    visit_conv(v, &m->q, "q", "q", m->in, m->in, 1, true);
    visit_conv(v, &m->k, "k", "k", m->in, m->in, 1, true);
    visit_conv(v, &m->v, "v", "v", m->in, m->in, 1, true);
    visit_conv(v, &m->out_project, "proj_out", "proj_out", m->in, m->in, 1, true);
    visit_close(v, mark);
}

void vq_blocks_visit(struct weight_visitor *v, struct vq_blocks *b)
{
    struct visit_mark mark = visit_open(v, b->name, b->name);
    for (int i = 0; i < b->count; i++) {
        struct vq_block *m = &b->list[i];
        char name[32], inner[40];
        snprintf(name, sizeof name, "blocks.%d", i);
        snprintf(inner, sizeof inner, "%s.conv", name);
        switch (m->kind) {
        case VQ_CONV: visit_conv(v, &m->conv, name, name, m->out, m->in, 3, true); break;
        case VQ_NORM: visit_norm(v, &m->norm, name, name, m->in); break;
        case VQ_RES: vq_res_visit(v, &m->res, name); break;
        case VQ_ATTENTION: visit_attention(v, m, name); break;
        case VQ_RESAMPLE: visit_conv(v, &m->conv, inner, inner, m->out, m->in, 3, true); break;
        }
    }
    visit_close(v, mark);
}

void vq_blocks_release(struct vq_blocks *b, struct device *d)
{
    free(b->list); /* packed weights go with the model's release visitor */
    b->list = NULL;
    b->count = 0;
}

struct tensor vq_res_run(struct pass *p, struct vq_res *m, int64_t groups, struct tensor x)
{
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct fuse rest = {.add = x};
    if (m->in != m->out) rest.add = layer_conv(p, &m->skip, x, conv_same(1), NULL);
    struct tensor h = norm_group(p, &m->norm1, x, groups, EPS, ACT_SILU);
    h = layer_conv(p, &m->conv1, h, conv_same(3), NULL);
    h = norm_group(p, &m->norm2, h, groups, EPS, ACT_SILU);
    layer_conv_into(p, &m->conv2, &y, h, conv_same(3), &rest);
    pass_close_scope(p, mark);
    return y;
}

static struct tensor attend(struct pass *p, struct vq_block *m, int64_t groups, struct tensor x)
{
    int64_t n = x.dim[0], rows = x.dim[1] * x.dim[2], c = x.dim[3];
    struct tensor y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct conv_shape point = conv_same(1);
    struct tensor h = norm_group(p, &m->norm, x, groups, EPS, ACT_NONE);
    struct tensor q = tensor_view_3d(layer_conv(p, &m->q, h, point, NULL), n, rows, c);
    struct tensor k = tensor_view_3d(layer_conv(p, &m->k, h, point, NULL), n, rows, c);
    struct tensor v = tensor_view_3d(layer_conv(p, &m->v, h, point, NULL), n, rows, c);
    h = tensor_view_4d(op_attention(p, q, k, v, 1, false), n, x.dim[1], x.dim[2], c);
    layer_conv_into(p, &m->out_project, &y, h, point, &(struct fuse){.add = x});
    pass_close_scope(p, mark);
    return y;
}

struct tensor vq_block_run(struct pass *p, const struct vq_blocks *b, int index, struct tensor x)
{
    struct vq_block *m = &b->list[index];
    /* zeros to the right and below only */
    struct conv_shape half = {.stride = 2, .pad_bottom = 1, .pad_right = 1}, twice = conv_same(3);
    twice.upsample = 2;
    switch (m->kind) {
    case VQ_RES: return vq_res_run(p, &m->res, b->groups, x);
    case VQ_ATTENTION: return attend(p, m, b->groups, x);
    case VQ_RESAMPLE: return layer_conv(p, &m->conv, x, b->up ? twice : half, NULL);
    case VQ_NORM: return norm_group(p, &m->norm, x, b->groups, EPS, ACT_NONE);
    case VQ_CONV: break;
    }
    return layer_conv(p, &m->conv, x, conv_same(3), NULL);
}
