/* BLIP's shapes and names. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/alchemy/blip.h"

enum { WIDTH_MAX = 8192, GRID_MAX = 64, PATCH_MAX = 64, VOCAB_MAX = 1 << 20, POSITIONS_MAX = 4096 };

static const struct safetensors_entry *find(const struct weight_store *s, const char *name,
                                            int rank)
{
    const struct safetensors_entry *e = weight_store_find(s, name);
    return e && e->rank == rank ? e : NULL;
}

/* Layers are counted by a matrix that each has; its rows are the MLP's width. */
static int count_layers(const struct weight_store *s, const char *format, int64_t *mlp)
{
    const struct safetensors_entry *e = NULL;
    for (int n = 0;; n++) {
        char name[96];
        snprintf(name, sizeof name, format, n);
        if (n == CLIP_LAYERS_MAX || !(e = find(s, name, 2))) return n;
        *mlp = e->dim[0];
    }
}

int blip_detect(struct blip_config *config, const struct weight_store *store, enum dialect *dialect,
                struct error *err)
{
    struct blip_config c = {0};
    const struct safetensors_entry *patch, *position, *word, *place;
    enum dialect d = DIALECT_HF;
    patch = find(store, "vision_model.embeddings.patch_embedding.weight", 4);
    position = find(store, "vision_model.embeddings.position_embedding", 3);
    if (!patch) {
        d = DIALECT_LDM;
        patch = find(store, "visual_encoder.patch_embed.proj.weight", 4);
        position = find(store, "visual_encoder.pos_embed", 3);
    }
    word = find(store, "text_decoder.bert.embeddings.word_embeddings.weight", 2);
    place = find(store, "text_decoder.bert.embeddings.position_embeddings.weight", 2);
    if (!patch || !position || !word || !place)
        return error_set(err, ERR_FORMAT, "%s holds no BLIP captioner", weight_store_path(store));
    c.vision_width = patch->dim[0];
    c.patch = patch->dim[2];
    while (c.grid < GRID_MAX && (c.grid + 1) * (c.grid + 1) < position->dim[1]) c.grid++;
    c.vision_layers = count_layers(store,
                                   d == DIALECT_HF ? "vision_model.encoder.layers.%d.mlp.fc1.weight"
                                                   : "visual_encoder.blocks.%d.mlp.fc1.weight",
                                   &c.vision_mlp);
    c.vocab = word->dim[0];
    c.text_width = word->dim[1];
    c.positions = place->dim[0];
    c.text_layers = count_layers(
        store, "text_decoder.bert.encoder.layer.%d.intermediate.dense.weight", &c.text_mlp);
    c.vision_heads = clip_heads(c.vision_width);
    c.text_heads = clip_heads(c.text_width);
    c.split_bias = !weight_store_find(store, "text_decoder.cls.predictions.bias");
    *config = c;
    *dialect = d;
    return 0;
}

static bool side_fits(int layers, int64_t width, int64_t heads, int64_t mlp)
{
    return layers >= 1 && layers <= CLIP_LAYERS_MAX && width >= 1 && width <= WIDTH_MAX &&
           heads >= 1 && width % heads == 0 && mlp >= 1 && mlp <= 8 * WIDTH_MAX;
}

int blip_init(struct blip *m, const struct blip_config *config, struct error *err)
{
    const struct blip_config *c = config;
    bool fits = side_fits(c->vision_layers, c->vision_width, c->vision_heads, c->vision_mlp) &&
                side_fits(c->text_layers, c->text_width, c->text_heads, c->text_mlp) &&
                c->patch >= 1 && c->patch <= PATCH_MAX && c->grid >= 1 && c->grid <= GRID_MAX &&
                c->vocab >= 2 && c->vocab <= VOCAB_MAX && c->positions >= 2 &&
                c->positions <= POSITIONS_MAX;
    if (!fits)
        return error_set(
            err, ERR_FORMAT,
            "a captioner of %d and %d layers, %lld and %lld wide in %lld and %lld heads, "
            "%lld x %lld patches of %lld pixels, %lld words at %lld places is none that "
            "Kiln knows",
            c->vision_layers, c->text_layers, (long long)c->vision_width, (long long)c->text_width,
            (long long)c->vision_heads, (long long)c->text_heads, (long long)c->grid,
            (long long)c->grid, (long long)c->patch, (long long)c->vocab, (long long)c->positions);
    *m = (struct blip){.config = *c};
    m->vision = alloc_zero((size_t)c->vision_layers, sizeof *m->vision);
    m->text = alloc_zero((size_t)c->text_layers, sizeof *m->text);
    for (int i = 0; i < c->vision_layers; i++) {
        m->vision[i].heads = c->vision_heads;
        m->vision[i].act = ACT_GELU;
    }
    return 0;
}

/* ---- names ---- */

/* q, k or v: rows of one matrix. */
static void visit_part(struct weight_visitor *v, struct layer *m, int part, int64_t width)
{
    struct weight_site site = {
        .name = {"attn.qkv.weight", "self_attn.qkv.weight"},
        .rank = 2,
        .dim = {width, width},
        .stacked_from = {part * width, part * width},
        .stacked_of = {3 * width, 3 * width},
        .layer = m,
    };
    visit_site(v, &m->w, &site);
    site.name[DIALECT_LDM] = "attn.qkv.bias";
    site.name[DIALECT_HF] = "self_attn.qkv.bias";
    site.rank = 1;
    visit_site(v, &m->b, &site);
}

static void visit_vision(struct weight_visitor *v, struct blip *m)
{
    const struct blip_config *c = &m->config;
    int64_t width = c->vision_width;
    struct visit_mark mark = visit_open(v, "visual_encoder", "vision_model");
    visit_weight(v, &m->class_row, "cls_token", "embeddings.class_embedding", 3,
                 TENSOR_DIM(1, 1, width));
    visit_weight(v, &m->position, "pos_embed", "embeddings.position_embedding", 3,
                 TENSOR_DIM(1, 1 + c->grid * c->grid, width));
    visit_conv(v, &m->patch, "patch_embed.proj", "embeddings.patch_embedding", width, 3,
               (int)c->patch, true);
    for (int i = 0; i < c->vision_layers; i++) {
        struct clip_layer *l = &m->vision[i];
        char ldm[32], hf[32];
        snprintf(ldm, sizeof ldm, "blocks.%d", i);
        snprintf(hf, sizeof hf, "encoder.layers.%d", i);
        struct visit_mark inner = visit_open(v, ldm, hf);
        visit_norm(v, &l->norm1, "norm1", "layer_norm1", width);
        visit_part(v, &l->q, 0, width);
        visit_part(v, &l->k, 1, width);
        visit_part(v, &l->v, 2, width);
        visit_linear(v, &l->out, "attn.proj", "self_attn.projection", width, width, true);
        visit_norm(v, &l->norm2, "norm2", "layer_norm2", width);
        visit_linear(v, &l->up, "mlp.fc1", "mlp.fc1", c->vision_mlp, width, true);
        visit_linear(v, &l->down, "mlp.fc2", "mlp.fc2", width, c->vision_mlp, true);
        visit_close(v, inner);
    }
    visit_norm(v, &m->vision_norm, "norm", "post_layernorm", width);
    visit_close(v, mark);
}

static void visit_attention(struct weight_visitor *v, struct blip_attention *a, const char *name,
                            int64_t width, int64_t seen)
{
    struct visit_mark mark = visit_open(v, name, name);
    visit_linear(v, &a->q, "self.query", "self.query", width, width, true);
    visit_linear(v, &a->k, "self.key", "self.key", width, seen, true);
    visit_linear(v, &a->v, "self.value", "self.value", width, seen, true);
    visit_linear(v, &a->out, "output.dense", "output.dense", width, width, true);
    visit_norm(v, &a->norm, "output.LayerNorm", "output.LayerNorm", width);
    visit_close(v, mark);
}

static void visit_text(struct weight_visitor *v, struct blip *m)
{
    const struct blip_config *c = &m->config;
    int64_t width = c->text_width;
    struct visit_mark mark = visit_open(v, "bert", "bert");
    const char *table = "embeddings.word_embeddings.weight",
               *place = "embeddings.position_embeddings.weight", *norm = "embeddings.LayerNorm";
    visit_weight(v, &m->word, table, table, 2, TENSOR_DIM(c->vocab, width));
    visit_weight(v, &m->place, place, place, 2, TENSOR_DIM(c->positions, width));
    visit_norm(v, &m->text_norm, norm, norm, width);
    for (int i = 0; i < c->text_layers; i++) {
        struct blip_layer *l = &m->text[i];
        char name[32];
        snprintf(name, sizeof name, "encoder.layer.%d", i);
        struct visit_mark inner = visit_open(v, name, name);
        visit_attention(v, &l->self, "attention", width, width);
        visit_attention(v, &l->cross, "crossattention", width, c->vision_width);
        visit_linear(v, &l->up, "intermediate.dense", "intermediate.dense", c->text_mlp, width,
                     true);
        visit_linear(v, &l->down, "output.dense", "output.dense", width, c->text_mlp, true);
        visit_norm(v, &l->norm, "output.LayerNorm", "output.LayerNorm", width);
        visit_close(v, inner);
    }
    struct weight_site site = {
        .name = {table, table}, .rank = 2, .dim = {c->vocab, width}, .layer = &m->words};
    visit_site(v, &m->words.w, &site);
    visit_close(v, mark);
}

static void visit_head(struct weight_visitor *v, struct blip *m)
{
    const struct blip_config *c = &m->config;
    struct visit_mark mark = visit_open(v, "cls.predictions", "cls.predictions");
    const char *bias = c->split_bias ? "decoder.bias" : "bias";
    visit_linear(v, &m->head, "transform.dense", "transform.dense", c->text_width, c->text_width,
                 true);
    visit_norm(v, &m->head_norm, "transform.LayerNorm", "transform.LayerNorm", c->text_width);
    visit_weight(v, &m->words.b, bias, bias, 1, &c->vocab);
    visit_close(v, mark);
}

void blip_visit(struct weight_visitor *v, struct blip *m)
{
    visit_vision(v, m);
    struct visit_mark mark = visit_open(v, "text_decoder", "text_decoder");
    visit_text(v, m);
    visit_head(v, m);
    visit_close(v, mark);
}

void blip_prepare(struct blip *m)
{
    struct kernel_weight *k = &m->patch.w.k;
    k->rank = 2;
    k->dim[1] = 3 * m->config.patch * m->config.patch;
    k->dim[2] = k->dim[3] = 0;
}

static void release_attention(struct blip_attention *a, struct device *d)
{
    struct layer *all[] = {&a->q, &a->k, &a->v, &a->out};
    for (size_t i = 0; i < COUNT_OF(all); i++) layer_release(all[i], d);
    norm_release(&a->norm, d);
}

void blip_release(struct blip *m, struct device *d)
{
    for (int i = 0; m->vision && i < m->config.vision_layers; i++)
        clip_layer_release(&m->vision[i], d);
    for (int i = 0; m->text && i < m->config.text_layers; i++) {
        struct blip_layer *l = &m->text[i];
        release_attention(&l->self, d);
        release_attention(&l->cross, d);
        layer_release(&l->up, d);
        layer_release(&l->down, d);
        norm_release(&l->norm, d);
    }
    free(m->vision);
    free(m->text);
    struct layer *layers[] = {&m->patch, &m->head, &m->words};
    struct weight *weights[] = {&m->class_row, &m->position, &m->word, &m->place};
    struct norm *norms[] = {&m->vision_norm, &m->text_norm, &m->head_norm};
    for (size_t i = 0; i < COUNT_OF(layers); i++) layer_release(layers[i], d);
    for (size_t i = 0; i < COUNT_OF(weights); i++) weight_release(weights[i], d);
    for (size_t i = 0; i < COUNT_OF(norms); i++) norm_release(norms[i], d);
    *m = (struct blip){0};
}
