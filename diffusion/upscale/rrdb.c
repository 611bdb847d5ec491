#include "diffusion/upscale/rrdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define BLOCKS_MAX 64

static const struct safetensors_entry *find(const struct weight_store *s, enum dialect d,
                                            const char *new_name, const char *old_name)
{
    return weight_store_find(s, d == DIALECT_LDM ? new_name : old_name);
}

static bool has_block(const struct weight_store *s, enum dialect d, int i)
{
    char now[64], old[64];
    snprintf(now, sizeof now, "body.%d.rdb1.conv1.weight", i);
    snprintf(old, sizeof old, "model.1.sub.%d.RDB1.conv1.0.weight", i);
    return find(s, d, now, old) != NULL;
}

int rrdb_detect(struct rrdb_config *config, const struct weight_store *s, enum dialect *dialect,
                struct error *err)
{
    struct rrdb_config c = {.unshuffle = 1};
    enum dialect d = weight_store_find(s, "conv_first.weight") ? DIALECT_LDM : DIALECT_HF;
    const struct safetensors_entry *first = find(s, d, "conv_first.weight", "model.0.weight");
    const struct safetensors_entry *grow =
        find(s, d, "body.0.rdb1.conv1.weight", "model.1.sub.0.RDB1.conv1.0.weight");
    if (!first || !grow || first->rank != 4 || grow->rank != 4)
        return error_set(err, ERR_FORMAT, "%s holds no upscaler of the ESRGAN family",
                         weight_store_path(s));
    c.width = first->dim[0];
    c.in = first->dim[1];
    c.growth = grow->dim[0];
    while (c.blocks < BLOCKS_MAX && has_block(s, d, c.blocks)) c.blocks++;
    if (c.in == 12) c.unshuffle = 2;
    if (c.in == 48) c.unshuffle = 4;
    if (c.in != 3 * c.unshuffle * c.unshuffle)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: an upscaler with %lld input channels (3, 12, 48 "
                         "are known)",
                         weight_store_path(s), (long long)c.in);
    *config = c;
    *dialect = d;
    return 0;
}

int rrdb_init(struct rrdb *m, const struct rrdb_config *c, struct error *err)
{
    if (c->width < 1 || c->width > 1024 || c->growth < 1 || c->growth > 1024)
        return error_set(err, ERR_FORMAT, "an upscaler %lld wide that grows by %lld",
                         (long long)c->width, (long long)c->growth);
    *m = (struct rrdb){.config = *c};
    m->blocks = alloc_zero((size_t)c->blocks, sizeof *m->blocks);
    return 0;
}

void rrdb_visit(struct weight_visitor *v, struct rrdb *m)
{
    const struct rrdb_config *c = &m->config;
    int64_t w = c->width;
    char now[64], old[64];
    visit_conv(v, &m->first, "conv_first", "model.0", w, c->in, 3, true);
    for (int i = 0; i < c->blocks; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < RRDB_DENSE; k++) {
                snprintf(now, sizeof now, "body.%d.rdb%d.conv%d", i, j + 1, k + 1);
                snprintf(old, sizeof old, "model.1.sub.%d.RDB%d.conv%d.0", i, j + 1, k + 1);
                visit_conv(v, &m->blocks[i].conv[j][k], now, old,
                           k + 1 < RRDB_DENSE ? c->growth : w, w + k * c->growth, 3, true);
            }
    snprintf(old, sizeof old, "model.1.sub.%d", c->blocks);
    visit_conv(v, &m->body, "conv_body", old, w, w, 3, true);
    visit_conv(v, &m->up1, "conv_up1", "model.3", w, w, 3, true);
    visit_conv(v, &m->up2, "conv_up2", "model.6", w, w, 3, true);
    visit_conv(v, &m->hr, "conv_hr", "model.8", w, w, 3, true);
    visit_conv(v, &m->last, "conv_last", "model.10", 3, w, 3, true);
}

void rrdb_release(struct rrdb *m, struct device *d)
{
    struct weight_visitor v = {.visit = weight_drop, .context = d};
    if (m->blocks) rrdb_visit(&v, m);
    free(m->blocks);
    memset(m, 0, sizeof *m);
}

/* Each convolution sees everything before it; the last one's result comes back at a fifth. */
static struct tensor dense(struct pass *p, struct layer conv[RRDB_DENSE], struct tensor x)
{
    struct tensor y = pass_tensor_like(p, x), seen = x;
    size_t mark = pass_open_scope(p);
    for (int k = 0; k + 1 < RRDB_DENSE; k++) {
        struct tensor more =
            layer_conv(p, &conv[k], seen, conv_same(3), &(struct fuse){.act = ACT_LEAKY_RELU});
        seen = op_concat(p, seen, more);
    }
    struct tensor last = layer_conv(p, &conv[RRDB_DENSE - 1], seen, conv_same(3), NULL);
    op_add_into(p, &y, op_scale(p, last, 0.2), x);
    pass_close_scope(p, mark);
    return y;
}

static void block(struct pass *p, struct rrdb_block *b, struct tensor *y, struct tensor x)
{
    size_t mark = pass_open_scope(p);
    struct tensor h = x;
    for (int j = 0; j < 3; j++) h = dense(p, b->conv[j], h);
    op_add_into(p, y, op_scale(p, h, 0.2), x);
    pass_close_scope(p, mark);
}

/* Blocks hand on through two tensors in turn. */
static struct tensor trunk(struct pass *p, struct rrdb *m, struct tensor x)
{
    struct tensor pair[2] = {pass_tensor_like(p, x), pass_tensor_like(p, x)};
    struct tensor h = x;
    for (int i = 0; i < m->config.blocks; i++) {
        block(p, &m->blocks[i], &pair[i % 2], h);
        h = pair[i % 2];
    }
    return layer_conv(p, &m->body, h, conv_same(3), &(struct fuse){.add = x});
}

struct tensor rrdb_forward(struct pass *p, struct rrdb *m, struct tensor x)
{
    struct conv_shape twice = conv_same(3);
    twice.upsample = 2;
    struct fuse leaky = {.act = ACT_LEAKY_RELU};
    struct tensor h = trunk(p, m, layer_conv(p, &m->first, x, conv_same(3), NULL));
    h = layer_conv(p, &m->up1, h, twice, &leaky);
    h = layer_conv(p, &m->up2, h, twice, &leaky);
    h = layer_conv(p, &m->hr, h, conv_same(3), &leaky);
    return layer_conv(p, &m->last, h, conv_same(3), NULL);
}
