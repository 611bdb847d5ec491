/* The text encoder's shapes and names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/text/clip_text.h"

enum { HEAD_WIDTH = 64, WIDTH_MAX = 8192, VOCAB_MAX = 1 << 20 };

static const struct safetensors_entry *find_level(const struct weight_store *store,
                                                  const char *prefix, bool bare, const char *name)
{
    char full[WEIGHT_NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", bare ? "" : "text_model.", name);
    return weight_store_find_in(store, prefix, full);
}

/* Layers are counted by a tensor that each has. */
static const struct safetensors_entry *find_up(const struct weight_store *store, const char *prefix,
                                               enum dialect dialect, bool bare, int i)
{
    char name[WEIGHT_NAME_BYTES];
    if (dialect == DIALECT_LDM) {
        snprintf(name, sizeof name, "transformer.resblocks.%d.mlp.c_fc.weight", i);
        return weight_store_find_in(store, prefix, name);
    }
    snprintf(name, sizeof name, "encoder.layers.%d.mlp.fc1.weight", i);
    return find_level(store, prefix, bare, name);
}

int64_t clip_heads(int64_t width)
{
    if (width % HEAD_WIDTH == 0) return width / HEAD_WIDTH;
    int64_t heads = 4;
    while (width % heads) heads /= 2;
    return heads;
}

int clip_text_detect(struct clip_text_config *config, const struct weight_store *store,
                     const char *prefix, enum dialect *dialect, struct error *err)
{
    struct clip_text_config c = {0};
    const struct safetensors_entry *token, *position, *up, *projection;
    enum dialect d = DIALECT_HF;
    const char *name = "embeddings.token_embedding.weight";
    if (!(token = find_level(store, prefix, false, name)) &&
        (token = find_level(store, prefix, true, name)))
        c.bare_names = true;
    if (token) {
        position = find_level(store, prefix, c.bare_names, "embeddings.position_embedding.weight");
        /* beside text_model, not inside it */
        projection = weight_store_find_in(store, prefix, "text_projection.weight");
    } else {
        d = DIALECT_LDM;
        token = weight_store_find_in(store, prefix, "token_embedding.weight");
        position = weight_store_find_in(store, prefix, "positional_embedding");
        projection = weight_store_find_in(store, prefix, "text_projection");
    }
    if (!token || !position || token->rank != 2 || position->rank != 2)
        return error_set(err, ERR_FORMAT, "%s holds no CLIP text encoder below '%s'",
                         weight_store_path(store), prefix);
    c.vocab = token->dim[0];
    c.width = token->dim[1];
    c.positions = position->dim[0];
    while (c.layers < CLIP_LAYERS_MAX && (up = find_up(store, prefix, d, c.bare_names, c.layers))) {
        if (!c.layers++) c.mlp = up->rank == 2 ? up->dim[0] : 0;
    }
    if (projection && projection->rank == 2) c.projection = projection->dim[d == DIALECT_LDM];
    c.last_dropped = d == DIALECT_HF && c.layers != 24;
    c.heads = clip_heads(c.width);
    bool openclip = d == DIALECT_LDM || c.width == 1024 || c.width == 1280;
    c.act = openclip ? ACT_GELU : ACT_QUICK_GELU;
    *config = c;
    *dialect = d;
    return 0;
}

int clip_text_init(struct clip_text *m, const struct clip_text_config *config, struct error *err)
{
    const struct clip_text_config *c = config;
    bool fits = c->layers >= 1 && c->layers <= CLIP_LAYERS_MAX && c->width >= 1 &&
                c->width <= WIDTH_MAX && c->mlp >= 1 && c->mlp <= 8 * WIDTH_MAX && c->vocab >= 2 &&
                c->vocab <= VOCAB_MAX && c->positions >= 3 && c->positions <= 1024 &&
                c->projection >= 0 && c->projection <= WIDTH_MAX;
    if (!fits)
        return error_set(
            err, ERR_FORMAT,
            "a text encoder of %d layers, %lld wide, mlp %lld, %lld ids at %lld places "
            "is none that Kiln knows",
            c->layers, (long long)c->width, (long long)c->mlp, (long long)c->vocab,
            (long long)c->positions);
    if (c->heads < 1 || c->width % c->heads)
        return error_set(err, ERR_FORMAT,
                         "the text encoder's width %lld does not divide into %lld heads",
                         (long long)c->width, (long long)c->heads);
    *m = (struct clip_text){.config = *c};
    m->layers = alloc_zero((size_t)c->layers, sizeof *m->layers);
    for (int i = 0; i < c->layers; i++) {
        m->layers[i].heads = c->heads;
        m->layers[i].act = c->act;
        m->layers[i].causal = true;
    }
    return 0;
}

/* q, k or v: a layer of its own in HF names, rows of one matrix in OpenCLIP's. */
static void visit_stacked(struct weight_visitor *v, struct layer *m, int part,
                          const char *hf_weight, const char *hf_bias, int64_t width)
{
    struct weight_site site = {
        .name = {"attn.in_proj_weight", hf_weight},
        .rank = 2,
        .dim = {width, width},
        .stacked_from = {part * width, 0},
        .stacked_of = {3 * width, 0},
        .layer = m,
    };
    visit_site(v, &m->w, &site);
    site.name[DIALECT_LDM] = "attn.in_proj_bias";
    site.name[DIALECT_HF] = hf_bias;
    site.rank = 1;
    visit_site(v, &m->b, &site);
}

void clip_layer_visit(struct weight_visitor *v, struct clip_layer *l, int i, int64_t width,
                      int64_t mlp)
{
    char ldm[64], hf[64];
    snprintf(ldm, sizeof ldm, "transformer.resblocks.%d", i);
    snprintf(hf, sizeof hf, "encoder.layers.%d", i);
    struct visit_mark mark = visit_open(v, ldm, hf);
    visit_norm(v, &l->norm1, "ln_1", "layer_norm1", width);
    visit_stacked(v, &l->q, 0, "self_attn.q_proj.weight", "self_attn.q_proj.bias", width);
    visit_stacked(v, &l->k, 1, "self_attn.k_proj.weight", "self_attn.k_proj.bias", width);
    visit_stacked(v, &l->v, 2, "self_attn.v_proj.weight", "self_attn.v_proj.bias", width);
    visit_linear(v, &l->out, "attn.out_proj", "self_attn.out_proj", width, width, true);
    visit_norm(v, &l->norm2, "ln_2", "layer_norm2", width);
    visit_linear(v, &l->up, "mlp.c_fc", "mlp.fc1", mlp, width, true);
    visit_linear(v, &l->down, "mlp.c_proj", "mlp.fc2", width, mlp, true);
    visit_close(v, mark);
}

void clip_text_visit(struct weight_visitor *v, struct clip_text *m)
{
    const struct clip_text_config *c = &m->config;
    struct visit_mark mark = visit_open(v, "", c->bare_names ? "" : "text_model");
    visit_weight(v, &m->token, "token_embedding.weight", "embeddings.token_embedding.weight", 2,
                 TENSOR_DIM(c->vocab, c->width));
    visit_weight(v, &m->position, "positional_embedding", "embeddings.position_embedding.weight", 2,
                 TENSOR_DIM(c->positions, c->width));
    for (int i = 0; i < c->layers; i++) clip_layer_visit(v, &m->layers[i], i, c->width, c->mlp);
    visit_norm(v, &m->final_norm, "ln_final", "final_layer_norm", c->width);
    visit_close(v, mark);
    if (!c->projection) return;
    struct weight_site site = {
        .name = {"text_projection", "text_projection.weight"},
        .rank = 2,
        .dim = {c->projection, c->width},
        .transposed = {true, false}, /* OpenCLIP multiplies from the other side */
    };
    visit_site(v, &m->projection, &site);
}

void clip_layer_release(struct clip_layer *l, struct device *d)
{
    struct layer *all[] = {&l->q, &l->k, &l->v, &l->out, &l->up, &l->down};
    for (size_t k = 0; k < COUNT_OF(all); k++) layer_release(all[k], d);
    norm_release(&l->norm1, d);
    norm_release(&l->norm2, d);
}

void clip_text_release(struct clip_text *m, struct device *d)
{
    for (int i = 0; m->layers && i < m->config.layers; i++) clip_layer_release(&m->layers[i], d);
    free(m->layers);
    weight_release(&m->token, d);
    weight_release(&m->position, d);
    weight_release(&m->projection, d);
    norm_release(&m->final_norm, d);
    *m = (struct clip_text){0};
}
