/* The VAE's shapes and names. */
#include <stdio.h>
#include <string.h>

#include "diffusion/vae/vae.h"

struct probe {
    const struct weight_store *store;
    const char *prefix;
};

static const struct safetensors_entry *find(const struct probe *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static const struct safetensors_entry *find(const struct probe *p, const char *format, ...)
{
    char name[WEIGHT_NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return weight_store_find_in(p->store, p->prefix, name);
}

/* The first convolution of level i; NULL past the last level. LDM numbers a decoder's levels as the
 * encoder's, HF the other way round. */
static const struct safetensors_entry *level_conv(const struct probe *p, enum dialect dialect,
                                                  bool encoder, int i, int block)
{
    if (dialect == DIALECT_LDM)
        return find(p, "%s.%s.%d.block.%d.conv1.weight", encoder ? "encoder" : "decoder",
                    encoder ? "down" : "up", i, block);
    return find(p, "%s.%s.%d.resnets.%d.conv1.weight", encoder ? "encoder" : "decoder",
                encoder ? "down_blocks" : "up_blocks", i, block);
}

int vae_detect(struct vae_config *config, const struct weight_store *store, const char *prefix,
               enum dialect *dialect, struct error *err)
{
    struct probe p = {store, prefix};
    struct vae_config c = {.groups = 32, .scale = 0.18215};
    enum dialect d =
        find(&p, "decoder.mid.block_1.conv1.weight") || find(&p, "encoder.mid.block_1.conv1.weight")
            ? DIALECT_LDM
            : DIALECT_HF;
    c.encoder = find(&p, "encoder.conv_in.weight") != NULL;
    c.decoder = find(&p, "decoder.conv_in.weight") != NULL;
    if (!c.encoder && !c.decoder)
        return error_set(err, ERR_FORMAT, "%s holds no VAE (%sdecoder.conv_in.weight is missing)",
                         weight_store_path(store), prefix);
    bool side = c.encoder;
    const struct safetensors_entry *e;
    while (c.levels < VAE_LEVELS_MAX && (e = level_conv(&p, d, side, c.levels, 0)) && e->rank == 4)
        c.channels[c.levels++] = e->dim[0];
    if (c.levels < 1)
        return error_set(err, ERR_FORMAT, "%s: the VAE has no levels", weight_store_path(store));
    if (!side && d == DIALECT_HF)
        for (int i = 0; i < c.levels / 2; i++) {
            int64_t swap = c.channels[i];
            c.channels[i] = c.channels[c.levels - 1 - i];
            c.channels[c.levels - 1 - i] = swap;
        }
    while (c.blocks < VAE_BLOCKS_MAX + 1 && level_conv(&p, d, side, 0, c.blocks)) c.blocks++;
    if (!side) c.blocks--;
    e = c.decoder ? find(&p, "decoder.conv_in.weight") : find(&p, "encoder.conv_out.weight");
    c.latent_channels = e && e->rank == 4 ? (c.decoder ? e->dim[1] : e->dim[0] / 2) : 0;
    c.quant = find(&p, "post_quant_conv.weight") || find(&p, "quant_conv.weight");
    c.old_names = find(&p, "decoder.mid_block.attentions.0.query.weight") ||
                  find(&p, "encoder.mid_block.attentions.0.query.weight");
    if (c.blocks < 1 || c.blocks > VAE_BLOCKS_MAX || c.latent_channels < 1)
        return error_set(err, ERR_FORMAT,
                         "%s: the VAE has %d blocks a level and %lld latent channels",
                         weight_store_path(store), c.blocks, (long long)c.latent_channels);
    *config = c;
    *dialect = d;
    return 0;
}

static void init_res(struct vae *m, struct vae_res *r, int64_t in, int64_t out)
{
    *r = (struct vae_res){.in = in, .out = out, .groups = m->config.groups, .vae = m};
}

int vae_init(struct vae *m, const struct vae_config *config, struct error *err)
{
    for (int i = 0; i < config->levels; i++)
        if (config->channels[i] < 1 || config->groups < 1 || config->channels[i] > 8192 ||
            config->channels[i] % config->groups)
            return error_set(err, ERR_FORMAT,
                             "the VAE's level %d is %lld wide, which does not divide "
                             "into %lld groups",
                             i, (long long)config->channels[i], (long long)config->groups);
    memset(m, 0, sizeof *m);
    m->config = *config;
    const struct vae_config *c = &m->config;
    int64_t deep = c->channels[c->levels - 1], h = c->channels[0];
    for (int i = 0; i < c->levels; i++)
        for (int j = 0; j < c->blocks; j++) {
            init_res(m, &m->encoder.block[i][j], h, c->channels[i]);
            h = c->channels[i];
        }
    h = deep;
    for (int i = c->levels - 1; i >= 0; i--)
        for (int j = 0; j <= c->blocks; j++) {
            init_res(m, &m->decoder.block[i][j], h, c->channels[i]);
            h = c->channels[i];
        }
    struct vae_half *halves[] = {&m->encoder, &m->decoder};
    for (int i = 0; i < 2; i++) {
        init_res(m, &halves[i]->mid1, deep, deep);
        init_res(m, &halves[i]->mid2, deep, deep);
    }
    return 0;
}

int vae_factor(const struct vae *m)
{
    return 1 << (m->config.levels - 1);
}

static void visit_res(struct weight_visitor *v, struct vae_res *r, const char *ldm, const char *hf)
{
    struct visit_mark mark = visit_open(v, ldm, hf);
    visit_norm(v, &r->norm1, "norm1", "norm1", r->in);
    visit_conv(v, &r->conv1, "conv1", "conv1", r->out, r->in, 3, true);
    visit_norm(v, &r->norm2, "norm2", "norm2", r->out);
    visit_conv(v, &r->conv2, "conv2", "conv2", r->out, r->out, 3, true);
    if (r->in != r->out)
        visit_conv(v, &r->skip, "nin_shortcut", "conv_shortcut", r->out, r->in, 1, true);
    visit_close(v, mark);
}

static void visit_middle(struct weight_visitor *v, struct vae *m, struct vae_half *half)
{
    int64_t c = m->config.channels[m->config.levels - 1];
    bool old = m->config.old_names;
    struct vae_attention *a = &half->attention;
    visit_res(v, &half->mid1, "mid.block_1", "mid_block.resnets.0");
    struct visit_mark mark = visit_open(v, "mid.attn_1", "mid_block.attentions.0");
    visit_norm(v, &a->norm, "norm", "group_norm", c);
    visit_conv(v, &a->q, "q", old ? "query" : "to_q", c, c, 1, true);
    visit_conv(v, &a->k, "k", old ? "key" : "to_k", c, c, 1, true);
    visit_conv(v, &a->v, "v", old ? "value" : "to_v", c, c, 1, true);
    visit_conv(v, &a->out, "proj_out", old ? "proj_attn" : "to_out.0", c, c, 1, true);
    visit_close(v, mark);
    visit_res(v, &half->mid2, "mid.block_2", "mid_block.resnets.1");
}

static void visit_block(struct weight_visitor *v, struct vae_res *r, const char *ldm, int i,
                        const char *hf, int hf_level, int j)
{
    char ldm_path[64], hf_path[64];
    snprintf(ldm_path, sizeof ldm_path, "%s.%d.block.%d", ldm, i, j);
    snprintf(hf_path, sizeof hf_path, "%s.%d.resnets.%d", hf, hf_level, j);
    visit_res(v, r, ldm_path, hf_path);
}

void vae_visit_encoder(struct weight_visitor *v, struct vae *m)
{
    const struct vae_config *c = &m->config;
    struct vae_half *e = &m->encoder;
    int64_t deep = c->channels[c->levels - 1], z = 2 * c->latent_channels;
    char ldm[64], hf[64];
    struct visit_mark mark = visit_open(v, "encoder", "encoder");
    visit_conv(v, &e->conv_in, "conv_in", "conv_in", c->channels[0], 3, 3, true);
    for (int i = 0; i < c->levels; i++) {
        for (int j = 0; j < c->blocks; j++)
            visit_block(v, &e->block[i][j], "down", i, "down_blocks", i, j);
        if (i + 1 == c->levels) break;
        snprintf(ldm, sizeof ldm, "down.%d.downsample.conv", i);
        snprintf(hf, sizeof hf, "down_blocks.%d.downsamplers.0.conv", i);
        visit_conv(v, &e->resample[i], ldm, hf, c->channels[i], c->channels[i], 3, true);
    }
    visit_middle(v, m, e);
    visit_norm(v, &e->norm_out, "norm_out", "conv_norm_out", deep);
    visit_conv(v, &e->conv_out, "conv_out", "conv_out", z, deep, 3, true);
    visit_close(v, mark);
    if (c->quant) visit_conv(v, &m->quant, "quant_conv", "quant_conv", z, z, 1, true);
}

void vae_visit_decoder(struct weight_visitor *v, struct vae *m)
{
    const struct vae_config *c = &m->config;
    struct vae_half *d = &m->decoder;
    int64_t deep = c->channels[c->levels - 1], z = c->latent_channels;
    char ldm[64], hf[64];
    if (c->quant)
        visit_conv(v, &m->post_quant, "post_quant_conv", "post_quant_conv", z, z, 1, true);
    struct visit_mark mark = visit_open(v, "decoder", "decoder");
    visit_conv(v, &d->conv_in, "conv_in", "conv_in", deep, z, 3, true);
    visit_middle(v, m, d);
    for (int i = c->levels - 1; i >= 0; i--) {
        int up = c->levels - 1 - i;
        for (int j = 0; j <= c->blocks; j++)
            visit_block(v, &d->block[i][j], "up", i, "up_blocks", up, j);
        if (i == 0) break;
        snprintf(ldm, sizeof ldm, "up.%d.upsample.conv", i);
        snprintf(hf, sizeof hf, "up_blocks.%d.upsamplers.0.conv", up);
        visit_conv(v, &d->resample[i], ldm, hf, c->channels[i], c->channels[i], 3, true);
    }
    visit_norm(v, &d->norm_out, "norm_out", "conv_norm_out", c->channels[0]);
    visit_conv(v, &d->conv_out, "conv_out", "conv_out", 3, c->channels[0], 3, true);
    visit_close(v, mark);
}

void vae_visit(struct weight_visitor *v, struct vae *m)
{
    if (m->config.encoder) vae_visit_encoder(v, m);
    if (m->config.decoder) vae_visit_decoder(v, m);
}

void vae_release(struct vae *m, struct device *d)
{
    struct weight_visitor v = {.visit = weight_drop, .context = d};
    if (m->config.levels) vae_visit(&v, m);
    vae_rescale_release(m);
    memset(m, 0, sizeof *m);
}
