/* The UNet's memory and names: built from a config, visited in the order of the data's way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/unet/unet.h"

static void init_res(struct unet *m, struct unet_res *r, int64_t in, int64_t out)
{
    *r = (struct unet_res){.in = in,
                           .out = out,
                           .groups = m->config.groups,
                           .circular = &m->circular,
                           .index = m->res_count++};
}

static void init_step(struct unet *m, struct unet_step *s, int level, int64_t in, int depth)
{
    int64_t width = m->config.channels[level];
    init_res(m, &s->res, in, width);
    s->transformer = (struct unet_transformer){.depth = depth,
                                               .width = width,
                                               .groups = m->config.groups,
                                               .conv_proj = m->config.conv_proj};
    if (!depth) return;
    s->transformer.blocks = alloc_zero((size_t)depth, sizeof *s->transformer.blocks);
    for (int i = 0; i < depth; i++) {
        struct unet_transformer_block *b = &s->transformer.blocks[i];
        b->width = width;
        b->context = m->config.context;
        b->heads = m->config.heads[level];
        b->cross_index = m->cross_count++;
    }
}

static int check(const struct unet_config *c, struct error *err)
{
    for (int i = 0; i < c->levels; i++) {
        int64_t width = c->channels[i];
        if (width < 1 || width > 8192 || c->groups < 1 || width % c->groups)
            return error_set(err, ERR_FORMAT,
                             "the UNet's level %d is %lld wide, which does not divide "
                             "into %lld groups",
                             i, (long long)width, (long long)c->groups);
        bool attends = false;
        for (int j = 0; j < c->blocks[i]; j++) attends |= c->depth_down[i][j] > 0;
        for (int j = 0; j <= c->blocks[i]; j++) attends |= c->depth_up[i][j] > 0;
        if (attends && (c->heads[i] < 1 || width % c->heads[i]))
            return error_set(err, ERR_FORMAT,
                             "the UNet's level %d is %lld wide, which does not divide "
                             "into %lld heads",
                             i, (long long)width, (long long)c->heads[i]);
        if (attends && c->context < 1)
            return error_set(err, ERR_FORMAT, "the UNet has transformers without cross attention");
    }
    if (c->in_channels < 1 || c->out_channels < 1)
        return error_set(err, ERR_FORMAT, "the UNet has no input or output convolution");
    return 0;
}

int unet_init(struct unet *m, const struct unet_config *config, struct error *err)
{
    int rc = check(config, err);
    if (rc) return rc;
    memset(m, 0, sizeof *m);
    m->config = *config;
    const struct unet_config *c = &m->config;
    int64_t skip[UNET_SKIPS_MAX], h = c->channels[0];
    int skips = 0;
    skip[skips++] = h;
    for (int i = 0; i < c->levels; i++) {
        for (int j = 0; j < c->blocks[i]; j++) {
            init_step(m, &m->level[i].down[j], i, h, c->depth_down[i][j]);
            skip[skips++] = h = c->channels[i];
        }
        if (i + 1 < c->levels) skip[skips++] = h;
    }
    init_step(m, &m->mid, c->levels - 1, h, c->depth_mid);
    init_res(m, &m->mid_second, h, h);
    for (int i = c->levels - 1; i >= 0; i--)
        for (int j = 0; j <= c->blocks[i]; j++) {
            init_step(m, &m->level[i].up[j], i, h + skip[--skips], c->depth_up[i][j]);
            h = c->channels[i];
        }
    return 0;
}

/* ---- names ---- */

static void visit_res(struct weight_visitor *v, struct unet *m, struct unet_res *r)
{
    visit_norm(v, &r->in_norm, "in_layers.0", "norm1", r->in);
    visit_conv(v, &r->in_conv, "in_layers.2", "conv1", r->out, r->in, 3, true);
    visit_linear(v, &r->time, "emb_layers.1", "time_emb_proj", r->out, m->config.time, true);
    visit_norm(v, &r->out_norm, "out_layers.0", "norm2", r->out);
    visit_conv(v, &r->out_conv, "out_layers.3", "conv2", r->out, r->out, 3, true);
    if (r->in != r->out)
        visit_conv(v, &r->skip, "skip_connection", "conv_shortcut", r->out, r->in, 1, true);
}

static void visit_attention(struct weight_visitor *v, struct unet_attention *a, const char *name,
                            int64_t width, int64_t context)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_linear(v, &a->q, "to_q", "to_q", width, width, false);
    visit_linear(v, &a->k, "to_k", "to_k", width, context, false);
    visit_linear(v, &a->v, "to_v", "to_v", width, context, false);
    visit_linear(v, &a->out, "to_out.0", "to_out.0", width, width, true);
    visit_close(v, mark);
}

static void visit_transformer(struct weight_visitor *v, struct unet_transformer *t)
{
    int64_t w = t->width;
    visit_norm(v, &t->norm, "norm", "norm", w);
    if (t->conv_proj)
        visit_conv(v, &t->proj_in, "proj_in", "proj_in", w, w, 1, true);
    else
        visit_linear(v, &t->proj_in, "proj_in", "proj_in", w, w, true);
    for (int i = 0; i < t->depth; i++) {
        struct unet_transformer_block *b = &t->blocks[i];
        char path[64];
        snprintf(path, sizeof path, "transformer_blocks.%d", i);
        struct visit_mark mark = visit_open(v, path, path);
        visit_norm(v, &b->norm1, "norm1", "norm1", w);
        visit_attention(v, &b->self, "attn1", w, w);
        visit_norm(v, &b->norm2, "norm2", "norm2", w);
        visit_attention(v, &b->cross, "attn2", w, b->context);
        visit_norm(v, &b->norm3, "norm3", "norm3", w);
        visit_gated(v, &b->up, "ff.net.0.proj", "ff.net.0.proj", 8 * w, w);
        visit_linear(v, &b->down, "ff.net.2", "ff.net.2", w, 4 * w, true);
        visit_close(v, mark);
    }
    if (t->conv_proj)
        visit_conv(v, &t->proj_out, "proj_out", "proj_out", w, w, 1, true);
    else
        visit_linear(v, &t->proj_out, "proj_out", "proj_out", w, w, true);
}

struct names {
    char res[2][64], transformer[2][64];
};

static void visit_step(struct weight_visitor *v, struct unet *m, struct unet_step *s,
                       const struct names *n)
{
    struct visit_mark mark = visit_open(v, n->res[DIALECT_LDM], n->res[DIALECT_HF]);
    visit_res(v, m, &s->res);
    visit_close(v, mark);
    if (!s->transformer.depth) return;
    mark = visit_open(v, n->transformer[DIALECT_LDM], n->transformer[DIALECT_HF]);
    visit_transformer(v, &s->transformer);
    visit_close(v, mark);
}

static struct names step_names(const char *ldm, int index, const char *hf, int level, int block)
{
    struct names n;
    snprintf(n.res[DIALECT_LDM], 64, "%s.%d.0", ldm, index);
    snprintf(n.transformer[DIALECT_LDM], 64, "%s.%d.1", ldm, index);
    snprintf(n.res[DIALECT_HF], 64, "%s.%d.resnets.%d", hf, level, block);
    snprintf(n.transformer[DIALECT_HF], 64, "%s.%d.attentions.%d", hf, level, block);
    return n;
}

static void visit_down(struct weight_visitor *v, struct unet *m)
{
    const struct unet_config *c = &m->config;
    int index = 1;
    for (int i = 0; i < c->levels; i++) {
        for (int j = 0; j < c->blocks[i]; j++) {
            struct names n = step_names("input_blocks", index++, "down_blocks", i, j);
            visit_step(v, m, &m->level[i].down[j], &n);
        }
        if (i + 1 == c->levels) break;
        char ldm[64], hf[64];
        snprintf(ldm, sizeof ldm, "input_blocks.%d.0.op", index++);
        snprintf(hf, sizeof hf, "down_blocks.%d.downsamplers.0.conv", i);
        visit_conv(v, &m->level[i].downsample, ldm, hf, c->channels[i], c->channels[i], 3, true);
    }
}

static void visit_middle(struct weight_visitor *v, struct unet *m)
{
    struct names n = {.res = {"middle_block.0", "mid_block.resnets.0"},
                      .transformer = {"middle_block.1", "mid_block.attentions.0"}};
    visit_step(v, m, &m->mid, &n);
    if (!m->config.mid_second) return;
    struct visit_mark mark = visit_open(v, "middle_block.2", "mid_block.resnets.1");
    visit_res(v, m, &m->mid_second);
    visit_close(v, mark);
}

static void visit_up(struct weight_visitor *v, struct unet *m)
{
    const struct unet_config *c = &m->config;
    int index = 0;
    for (int i = c->levels - 1; i >= 0; i--)
        for (int j = 0; j <= c->blocks[i]; j++, index++) {
            int up = c->levels - 1 - i;
            struct names n = step_names("output_blocks", index, "up_blocks", up, j);
            visit_step(v, m, &m->level[i].up[j], &n);
            if (j < c->blocks[i] || i == 0) continue;
            char ldm[64], hf[64];
            snprintf(ldm, sizeof ldm, "output_blocks.%d.%d.conv", index, c->depth_up[i][j] ? 2 : 1);
            snprintf(hf, sizeof hf, "up_blocks.%d.upsamplers.0.conv", up);
            visit_conv(v, &m->level[i].upsample, ldm, hf, c->channels[i], c->channels[i], 3, true);
        }
}

void unet_visit_encoder(struct weight_visitor *v, struct unet *m)
{
    const struct unet_config *c = &m->config;
    visit_linear(v, &m->time1, "time_embed.0", "time_embedding.linear_1", c->time, c->channels[0],
                 true);
    visit_linear(v, &m->time2, "time_embed.2", "time_embedding.linear_2", c->time, c->time, true);
    if (c->guidance)
        visit_linear(v, &m->time_guidance, "time_embed.cond_proj", "time_embedding.cond_proj",
                     c->channels[0], c->guidance, false);
    if (c->vector) {
        visit_linear(v, &m->vector1, "label_emb.0.0", "add_embedding.linear_1", c->time, c->vector,
                     true);
        visit_linear(v, &m->vector2, "label_emb.0.2", "add_embedding.linear_2", c->time, c->time,
                     true);
    }
    visit_conv(v, &m->conv_in, "input_blocks.0.0", "conv_in", c->channels[0], c->in_channels, 3,
               true);
    visit_down(v, m);
    visit_middle(v, m);
}

void unet_visit(struct weight_visitor *v, struct unet *m)
{
    const struct unet_config *c = &m->config;
    unet_visit_encoder(v, m);
    visit_up(v, m);
    visit_norm(v, &m->norm_out, "out.0", "conv_norm_out", c->channels[0]);
    visit_conv(v, &m->conv_out, "out.2", "conv_out", c->out_channels, c->channels[0], 3, true);
}

/* ---- giving back ---- */

static int release_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                       struct error *err)
{
    struct device *d = v->context;
    if (site->layer && w == &site->layer->w) layer_detach_all(site->layer, d);
    weight_release(w, d);
    return 0;
}

static void free_step(struct unet_step *s)
{
    free(s->transformer.blocks);
}

void unet_release(struct unet *m, struct device *d)
{
    struct weight_visitor v = {.visit = release_one, .context = d};
    if (m->config.levels) unet_visit(&v, m);
    for (int i = 0; i < m->config.levels; i++) {
        for (int j = 0; j < UNET_BLOCKS_MAX; j++) free_step(&m->level[i].down[j]);
        for (int j = 0; j <= UNET_BLOCKS_MAX; j++) free_step(&m->level[i].up[j]);
    }
    free_step(&m->mid);
    memset(m, 0, sizeof *m);
}
