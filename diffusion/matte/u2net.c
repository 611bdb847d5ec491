#include "diffusion/matte/u2net.h"

#include <stdio.h>
#include <string.h>

#define WIDTH_MAX 4096

/* A nested U: so many levels; `flat`: dilations in place of halving. */
static const struct block {
    const char *name;
    int levels;
    bool flat;
} blocks[U2NET_BLOCKS] = {
    {"stage1", 7, false},  {"stage2", 6, false},  {"stage3", 5, false},  {"stage4", 4, false},
    {"stage5", 4, true},   {"stage6", 4, true},   {"stage5d", 4, true},  {"stage4d", 4, false},
    {"stage3d", 5, false}, {"stage2d", 6, false}, {"stage1d", 7, false},
};
/* whose result each side output looks at: side1 the last block's, side6 the deepest's */
static const int side_block[U2NET_SIDES] = {10, 9, 8, 7, 6, 5};

static int first_conv(int block)
{
    int n = 0;
    for (int i = 0; i < block; i++) n += 2 * blocks[i].levels;
    return n;
}

static const struct safetensors_entry *find(const struct weight_store *s, enum dialect d, int block,
                                            const char *conv, int index)
{
    char name[64];
    if (d == DIALECT_LDM)
        snprintf(name, sizeof name, "%s.%s.conv_s1.weight", blocks[block].name, conv);
    else
        snprintf(name, sizeof name, "conv.%d.weight", index);
    const struct safetensors_entry *e = weight_store_find(s, name);
    return e && e->rank == 4 ? e : NULL;
}

int u2net_detect(struct u2net_config *config, const struct weight_store *s, enum dialect *dialect,
                 struct error *err)
{
    struct u2net_config c;
    enum dialect d =
        weight_store_find(s, "stage1.rebnconvin.conv_s1.weight") ? DIALECT_LDM : DIALECT_HF;
    for (int i = 0; i < U2NET_BLOCKS; i++) {
        int at = first_conv(i);
        const struct safetensors_entry *in = find(s, d, i, "rebnconvin", at);
        const struct safetensors_entry *one = find(s, d, i, "rebnconv1", at + 1);
        if (!in || !one)
            return error_set(err, ERR_FORMAT, "%s holds no U2-Net", weight_store_path(s));
        c.in[i] = in->dim[1];
        c.out[i] = in->dim[0];
        c.mid[i] = one->dim[0];
        if (c.in[i] < 1 || c.out[i] < 1 || c.mid[i] < 1 || c.in[i] > WIDTH_MAX ||
            c.out[i] > WIDTH_MAX || c.mid[i] > WIDTH_MAX)
            return error_set(err, ERR_FORMAT, "%s: %s of the U2-Net is wider than %d",
                             weight_store_path(s), blocks[i].name, WIDTH_MAX);
    }
    *config = c;
    *dialect = d;
    return 0;
}

void u2net_init(struct u2net *m, const struct u2net_config *config)
{
    *m = (struct u2net){.config = *config};
}

static void visit_block(struct weight_visitor *v, struct u2net *m, int i)
{
    const struct u2net_config *c = &m->config;
    int at = first_conv(i), levels = blocks[i].levels;
    struct visit_mark mark = visit_open(v, blocks[i].name, "");
    for (int k = 0; k < 2 * levels; k++) {
        char step[32];
        bool up = k > levels;
        int level = up ? 2 * levels - k : k; /* 1 .. levels */
        if (k == 0)
            snprintf(step, sizeof step, "rebnconvin");
        else
            snprintf(step, sizeof step, "rebnconv%d%s", level, up ? "d" : "");
        int64_t in = k == 0 ? c->in[i] : k == 1 ? c->out[i] : up ? 2 * c->mid[i] : c->mid[i];
        int64_t out = k == 0 || k == 2 * levels - 1 ? c->out[i] : c->mid[i];
        struct visit_mark inner = visit_open(v, step, "");
        visit_conv_norm(v, &m->conv[at + k], "conv_s1", "bn_s1", at + k, out, in, 3, true);
        visit_close(v, inner);
    }
    visit_close(v, mark);
}

void u2net_visit(struct weight_visitor *v, struct u2net *m)
{
    int at = first_conv(U2NET_BLOCKS);
    for (int i = 0; i < U2NET_BLOCKS; i++) visit_block(v, m, i);
    for (int i = 0; i < U2NET_SIDES; i++) {
        char name[16];
        snprintf(name, sizeof name, "side%d", i + 1);
        visit_conv_norm(v, &m->conv[at + i], name, NULL, at + i, 1, m->config.out[side_block[i]], 3,
                        true);
    }
    at += U2NET_SIDES;
    visit_conv_norm(v, &m->conv[at], "outconv", NULL, at, 1, U2NET_SIDES, 1, true);
}

int u2net_fold(struct u2net *m, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < U2NET_CONVS && !rc; i++) rc = conv_norm_fold(&m->conv[i], err);
    return rc;
}

void u2net_release(struct u2net *m, struct device *d)
{
    for (int i = 0; i < U2NET_CONVS; i++) conv_norm_release(&m->conv[i], d);
}

static struct tensor halved(struct pass *p, struct tensor x)
{
    return op_max_pool(p, x, 2, 2, 0, true);
}

static struct tensor grown(struct pass *p, struct tensor x, struct tensor like)
{
    if (x.dim[1] == like.dim[1] && x.dim[2] == like.dim[2]) return x;
    return op_bilinear(p, x, like.dim[1], like.dim[2]);
}

/* One nested U (figure 2): down through its levels, up again, and what came in added. */
static struct tensor run_block(struct pass *p, struct u2net *m, int i, struct tensor x)
{
    struct conv_norm *conv = &m->conv[first_conv(i)];
    int levels = blocks[i].levels;
    bool flat = blocks[i].flat;
    struct tensor h[8];
    struct tensor y =
        pass_tensor(p, x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->config.out[i]));
    size_t mark = pass_open_scope(p);
    struct tensor first = conv_norm_run(p, &conv[0], x, 1, 1, ACT_RELU);
    h[1] = conv_norm_run(p, &conv[1], first, 1, 1, ACT_RELU);
    for (int k = 2; k <= levels; k++) {
        bool deepest = k == levels;
        struct tensor in = flat || deepest ? h[k - 1] : halved(p, h[k - 1]);
        h[k] = conv_norm_run(p, &conv[k], in, 1, flat ? 1 << (k - 1) : deepest ? 2 : 1, ACT_RELU);
    }
    struct tensor up = h[levels];
    for (int k = levels - 1; k >= 1; k--) {
        up = op_concat(p, grown(p, up, h[k]), h[k]);
        up = conv_norm_run(p, &conv[2 * levels - k], up, 1, flat ? 1 << (k - 1) : 1, ACT_RELU);
    }
    op_add_into(p, &y, up, first);
    pass_close_scope(p, mark);
    return y;
}

struct tensor u2net_forward(struct pass *p, struct u2net *m, struct tensor x)
{
    struct tensor made[U2NET_BLOCKS], sides = {0};
    for (int i = 0; i < 6; i++) made[i] = run_block(p, m, i, i ? halved(p, made[i - 1]) : x);
    for (int i = 6; i < U2NET_BLOCKS; i++) {
        struct tensor across = made[10 - i];
        made[i] = run_block(p, m, i, op_concat(p, grown(p, made[i - 1], across), across));
    }
    struct conv_norm *side = &m->conv[first_conv(U2NET_BLOCKS)];
    for (int i = 0; i < U2NET_SIDES; i++) {
        struct tensor one = conv_norm_run(p, &side[i], made[side_block[i]], 1, 1, ACT_NONE);
        one = grown(p, one, x);
        sides = i ? op_concat(p, sides, one) : one;
    }
    return op_activation(p, conv_norm_run(p, &side[U2NET_SIDES], sides, 1, 1, ACT_NONE),
                         ACT_SIGMOID);
}
