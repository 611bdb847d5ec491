#include "diffusion/safety/clip_vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "image/resize.h"

enum { WIDTH_MAX = 8192, GRID_MAX = 64, PATCH_MAX = 64 };
static const double EPS = 1e-5;

static const struct safetensors_entry *find(const struct weight_store *s, enum dialect d,
                                            const char *ldm, const char *hf)
{
    return weight_store_find_in(s, "", d == DIALECT_LDM ? ldm : hf);
}

static const struct safetensors_entry *find_up(const struct weight_store *s, enum dialect d, int i)
{
    char ldm[96], hf[96];
    snprintf(ldm, sizeof ldm, "visual.transformer.resblocks.%d.mlp.c_fc.weight", i);
    snprintf(hf, sizeof hf, "vision_model.encoder.layers.%d.mlp.fc1.weight", i);
    return find(s, d, ldm, hf);
}

int clip_vision_detect(struct clip_vision_config *config, const struct weight_store *store,
                       enum dialect *dialect, struct error *err)
{
    struct clip_vision_config c = {.act = ACT_QUICK_GELU};
    enum dialect d = DIALECT_HF;
    const char *hf = "vision_model.embeddings.patch_embedding.weight";
    if (!weight_store_find_in(store, "", hf)) d = DIALECT_LDM;
    const struct safetensors_entry *patch = find(store, d, "visual.conv1.weight", hf), *up;
    const struct safetensors_entry *position =
        find(store, d, "visual.positional_embedding",
             "vision_model.embeddings.position_embedding.weight");
    const struct safetensors_entry *projection =
        find(store, d, "visual.proj", "visual_projection.weight");
    if (!patch || !position || !projection || patch->rank != 4 || position->rank != 2 ||
        projection->rank != 2)
        return error_set(err, ERR_FORMAT, "%s holds no CLIP vision transformer",
                         weight_store_path(store));
    c.width = patch->dim[0];
    c.patch = patch->dim[2];
    c.projection = projection->dim[d == DIALECT_LDM];
    while (c.grid < GRID_MAX && (c.grid + 1) * (c.grid + 1) < position->dim[0]) c.grid++;
    while (c.layers < CLIP_LAYERS_MAX && (up = find_up(store, d, c.layers)))
        if (!c.layers++) c.mlp = up->rank == 2 ? up->dim[0] : 0;
    c.heads = clip_heads(c.width);
    *config = c;
    *dialect = d;
    return 0;
}

int clip_vision_init(struct clip_vision *m, const struct clip_vision_config *config,
                     struct error *err)
{
    const struct clip_vision_config *c = config;
    bool fits = c->layers >= 1 && c->layers <= CLIP_LAYERS_MAX && c->width >= 1 &&
                c->width <= WIDTH_MAX && c->mlp >= 1 && c->mlp <= 8 * WIDTH_MAX && c->patch >= 1 &&
                c->patch <= PATCH_MAX && c->grid >= 1 && c->grid <= GRID_MAX &&
                c->projection >= 1 && c->projection <= WIDTH_MAX && c->heads >= 1 &&
                c->width % c->heads == 0;
    if (!fits)
        return error_set(
            err, ERR_FORMAT,
            "a vision transformer of %d layers, %lld wide, mlp %lld, %lld x %lld patches "
            "of %lld pixels is none that Kiln knows",
            c->layers, (long long)c->width, (long long)c->mlp, (long long)c->grid,
            (long long)c->grid, (long long)c->patch);
    *m = (struct clip_vision){.config = *c};
    m->layers = alloc_zero((size_t)c->layers, sizeof *m->layers);
    for (int i = 0; i < c->layers; i++) {
        m->layers[i].heads = c->heads;
        m->layers[i].act = c->act;
    }
    return 0;
}

void clip_vision_visit(struct weight_visitor *v, struct clip_vision *m)
{
    const struct clip_vision_config *c = &m->config;
    struct visit_mark mark = visit_open(v, "visual", "vision_model");
    visit_weight(v, &m->class_row, "class_embedding", "embeddings.class_embedding", 1, &c->width);
    visit_conv(v, &m->patch, "conv1", "embeddings.patch_embedding", c->width, 3, (int)c->patch,
               false);
    visit_weight(v, &m->position, "positional_embedding", "embeddings.position_embedding.weight", 2,
                 TENSOR_DIM(1 + c->grid * c->grid, c->width));
    visit_norm(v, &m->norm_before, "ln_pre", "pre_layrnorm", c->width);
    for (int i = 0; i < c->layers; i++) clip_layer_visit(v, &m->layers[i], i, c->width, c->mlp);
    visit_norm(v, &m->norm_after, "ln_post", "post_layernorm", c->width);
    visit_close(v, mark);
    struct weight_site site = {
        .name = {"visual.proj", "visual_projection.weight"},
        .rank = 2,
        .dim = {c->projection, c->width},
        .transposed = {true, false}, /* OpenCLIP multiplies from the other side */
    };
    visit_site(v, &m->projection, &site);
}

void clip_vision_prepare(struct clip_vision *m)
{
    struct kernel_weight *k = &m->patch.w.k;
    k->rank = 2;
    k->dim[1] = 3 * m->config.patch * m->config.patch;
    k->dim[2] = k->dim[3] = 0;
}

void clip_vision_release(struct clip_vision *m, struct device *d)
{
    for (int i = 0; m->layers && i < m->config.layers; i++) clip_layer_release(&m->layers[i], d);
    free(m->layers);
    layer_release(&m->patch, d);
    weight_release(&m->class_row, d);
    weight_release(&m->position, d);
    weight_release(&m->projection, d);
    norm_release(&m->norm_before, d);
    norm_release(&m->norm_after, d);
    *m = (struct clip_vision){0};
}

int clip_vision_side(const struct clip_vision *m)
{
    return (int)(m->config.grid * m->config.patch);
}

static void wipe(struct pixels *p)
{
    if (p->data)
        explicit_bzero(p->data, (size_t)p->width * (size_t)p->height * (size_t)p->channels);
    pixels_release(p);
}

/* The shorter side to `side`, the longer one cut (not rounded) as torchvision and transformers do. */
static int square(struct pixels *to, const struct pixels *from, int side, struct error *err)
{
    struct pixels scaled = {0};
    bool wide = from->width > from->height;
    int shorter = wide ? from->height : from->width, longer = wide ? from->width : from->height;
    int long_side = (int)((int64_t)side * longer / shorter);
    int width = wide ? long_side : side, height = wide ? side : long_side;
    int rc = pixels_resize(&scaled, from, width, height, RESIZE_BICUBIC, err);
    /* halves go to the even neighbour */
    int x = (int)lrint((width - side) / 2.0), y = (int)lrint((height - side) / 2.0);
    if (!rc) rc = pixels_crop(to, &scaled, x, y, side, side, err);
    wipe(&scaled);
    return rc;
}

void clip_cut_patches(float *to, const struct pixels *p, int64_t grid, int64_t patch)
{
    static const double mean[] = {0.48145466, 0.4578275, 0.40821073};
    static const double deviation[] = {0.26862954, 0.26130258, 0.27577711};
    for (int64_t gy = 0; gy < grid; gy++)
        for (int64_t gx = 0; gx < grid; gx++)
            for (int c = 0; c < 3; c++)
                for (int64_t y = 0; y < patch; y++)
                    for (int64_t x = 0; x < patch; x++) {
                        int64_t at = (gy * patch + y) * p->width + gx * patch + x;
                        *to++ = (float)((p->data[at * 3 + c] / 255.0 - mean[c]) / deviation[c]);
                    }
}

int clip_vision_patches(const struct clip_vision *m, float *to, const struct pixels *from,
                        struct error *err)
{
    struct pixels rgb = {0}, part = {0};
    int rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = square(&part, &rgb, clip_vision_side(m), err);
    if (!rc) clip_cut_patches(to, &part, m->config.grid, m->config.patch);
    wipe(&rgb);
    wipe(&part);
    return rc;
}

struct tensor clip_vision_forward(struct pass *p, struct clip_vision *m, struct tensor x)
{
    const struct clip_vision_config *c = &m->config;
    int64_t n = x.dim[0];
    struct tensor rows = layer_linear(p, &m->patch, x, NULL); /* [n,G,D] */
    struct tensor first = tensor_view_3d(op_weight(p, &m->class_row), 1, 1, c->width);
    if (n > 1) first = op_repeat_batch(p, first, n);
    struct tensor h = op_concat_rows(p, first, rows); /* [n,1+G,D] */
    h = op_mix(p, 1, h, 1, op_weight(p, &m->position));
    h = norm_layer(p, &m->norm_before, h, EPS);
    for (int i = 0; i < c->layers; i++) h = clip_layer_forward(p, &m->layers[i], h);
    h = tensor_view(op_slice_rows(p, h, 0, 1), 2, TENSOR_DIM(n, c->width));
    h = norm_layer(p, &m->norm_after, h, EPS);
    return op_linear(p, h, &m->projection, NULL, NULL);
}
