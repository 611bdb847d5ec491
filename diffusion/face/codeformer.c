#include "diffusion/face/codeformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define GROUPS 32
#define HEADS 8
#define EPS 1e-5

bool codeformer_is(const struct weight_store *s)
{
    return weight_store_find(s, "quantize.embedding.weight") &&
           weight_store_find(s, "position_emb") && weight_store_find(s, "feat_emb.weight");
}

static int halvings(const struct vq_blocks *b)
{
    int n = 0;
    for (int i = 0; i < b->count; i++) n += b->list[i].kind == VQ_RESAMPLE;
    return n;
}

static void detect_fuses(struct codeformer *m, const struct weight_store *s)
{
    for (int size = m->size; size >= 16 && m->fuse_count < CODEFORMER_FUSES_MAX; size /= 2) {
        char name[64];
        snprintf(name, sizeof name, "fuse_convs_dict.%d.scale.0.weight", size);
        const struct safetensors_entry *e = weight_store_find(s, name);
        if (!e || e->rank != 4) continue;
        struct codeformer_fuse *f = &m->fuses[m->fuse_count++];
        *f = (struct codeformer_fuse){.size = size, .width = e->dim[0]};
        f->mix = (struct vq_res){.in = 2 * f->width, .out = f->width};
    }
}

static int detect_transformer(struct codeformer *m, const struct weight_store *s, struct error *err)
{
    const struct safetensors_entry *position = weight_store_find(s, "position_emb");
    const struct safetensors_entry *book = weight_store_find(s, "quantize.embedding.weight");
    const struct safetensors_entry *inner = weight_store_find(s, "ft_layers.0.linear1.weight");
    if (position->rank != 2 || book->rank != 2 || !inner || inner->rank != 2)
        return error_set(err, ERR_FORMAT, "%s: its transformer has an unknown form",
                         weight_store_path(s));
    m->tokens = position->dim[0];
    m->width = position->dim[1];
    m->inner = inner->dim[0];
    m->codes = book->dim[0];
    m->code_width = book->dim[1];
    for (char name[64]; m->layer_count < CODEFORMER_LAYERS_MAX; m->layer_count++) {
        snprintf(name, sizeof name, "ft_layers.%d.linear1.weight", m->layer_count);
        if (!weight_store_find(s, name)) break;
    }
    return 0;
}

int codeformer_detect(struct codeformer *model, const struct weight_store *s, struct error *err)
{
    struct codeformer m = {0};
    int rc = vq_blocks_detect(&m.encoder, s, "encoder", false, GROUPS, err);
    if (!rc) rc = vq_blocks_detect(&m.generator, s, "generator", true, GROUPS, err);
    if (!rc) rc = detect_transformer(&m, s, err);
    int steps = rc ? 0 : halvings(&m.encoder), side = 1;
    while (!rc && (int64_t)side * side < m.tokens) side++;
    if (!rc && ((int64_t)side * side != m.tokens || steps > 6 || steps != halvings(&m.generator) ||
                side > 64 || m.width % HEADS || m.width < 1 || m.codes < 1 || m.codes > 1 << 20))
        rc = error_set(err, ERR_FORMAT, "%s: %lld tokens of %lld, %d halvings: no such CodeFormer",
                       weight_store_path(s), (long long)m.tokens, (long long)m.width, steps);
    if (rc) {
        codeformer_release(&m, NULL);
        return rc;
    }
    const struct vq_block *in = m.encoder.list, *out = in + m.encoder.count - 1;
    const struct vq_block *from = m.generator.list, *to = from + m.generator.count - 1;
    if (in->in != 3 || out->out != m.code_width || from->in != m.code_width || to->out != 3)
        rc = error_set(err, ERR_FORMAT, "%s: its encoder, codes and generator do not fit together",
                       weight_store_path(s));
    if (rc) {
        codeformer_release(&m, NULL);
        return rc;
    }
    m.size = side << steps;
    detect_fuses(&m, s);
    m.layers = alloc_zero((size_t)m.layer_count, sizeof *m.layers);
    *model = m;
    return 0;
}

static void visit_part(struct weight_visitor *v, struct layer *m, int part, int64_t width)
{
    struct weight_site w = {.name = {"in_proj_weight", "in_proj_weight"},
                            .rank = 2,
                            .dim = {width, width},
                            .stacked_from = {part * width, part * width},
                            .stacked_of = {3 * width, 3 * width},
                            .layer = m};
    struct weight_site b = {.name = {"in_proj_bias", "in_proj_bias"},
                            .rank = 1,
                            .dim = {width},
                            .stacked_from = {part * width, part * width},
                            .stacked_of = {3 * width, 3 * width},
                            .layer = m};
    visit_site(v, &m->w, &w);
    visit_site(v, &m->b, &b);
}

static void visit_layer(struct weight_visitor *v, const struct codeformer *m, int i)
{
    struct codeformer_layer *l = &m->layers[i];
    char name[32];
    snprintf(name, sizeof name, "ft_layers.%d", i);
    struct visit_mark mark = visit_open(v, name, name);
    visit_norm(v, &l->norm1, "norm1", "norm1", m->width);
    visit_norm(v, &l->norm2, "norm2", "norm2", m->width);
    visit_linear(v, &l->linear1, "linear1", "linear1", m->inner, m->width, true);
    visit_linear(v, &l->linear2, "linear2", "linear2", m->width, m->inner, true);
    struct visit_mark attention = visit_open(v, "self_attn", "self_attn");
    visit_part(v, &l->q, 0, m->width);
    visit_part(v, &l->k, 1, m->width);
    visit_part(v, &l->v, 2, m->width);
    visit_linear(v, &l->out, "out_proj", "out_proj", m->width, m->width, true);
    visit_close(v, attention);
    visit_close(v, mark);
}

static void visit_fuse(struct weight_visitor *v, struct codeformer_fuse *f)
{
    char name[40];
    snprintf(name, sizeof name, "fuse_convs_dict.%d", f->size);
    struct visit_mark mark = visit_open(v, name, name);
    vq_res_visit(v, &f->mix, "encode_enc");
    visit_conv(v, &f->scale[0], "scale.0", "scale.0", f->width, f->width, 3, true);
    visit_conv(v, &f->scale[1], "scale.2", "scale.2", f->width, f->width, 3, true);
    visit_conv(v, &f->shift[0], "shift.0", "shift.0", f->width, f->width, 3, true);
    visit_conv(v, &f->shift[1], "shift.2", "shift.2", f->width, f->width, 3, true);
    visit_close(v, mark);
}

void codeformer_visit(struct weight_visitor *v, struct codeformer *m)
{
    vq_blocks_visit(v, &m->encoder);
    vq_blocks_visit(v, &m->generator);
    int64_t position[] = {m->tokens, m->width}, book[] = {m->codes, m->code_width};
    visit_weight(v, &m->position, "position_emb", "position_emb", 2, position);
    visit_weight(v, &m->book, "quantize.embedding.weight", "quantize.embedding.weight", 2, book);
    visit_linear(v, &m->embed, "feat_emb", "feat_emb", m->width, m->code_width, true);
    for (int i = 0; i < m->layer_count; i++) visit_layer(v, m, i);
    visit_norm(v, &m->predict_norm, "idx_pred_layer.0", "idx_pred_layer.0", m->width);
    visit_linear(v, &m->predict, "idx_pred_layer.1", "idx_pred_layer.1", m->codes, m->width, false);
    for (int i = 0; i < m->fuse_count; i++) visit_fuse(v, &m->fuses[i]);
}

void codeformer_release(struct codeformer *m, struct device *d)
{
    struct weight_visitor v = {.visit = weight_drop, .context = d};
    if (d && m->layers) codeformer_visit(&v, m);
    vq_blocks_release(&m->encoder, d);
    vq_blocks_release(&m->generator, d);
    free(m->layers);
    memset(m, 0, sizeof *m);
}

/* ---- running ---- */

static struct tensor transform(struct pass *p, struct codeformer *m, struct codeformer_layer *l,
                               struct tensor x, struct tensor position)
{
    struct tensor y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct tensor value = norm_layer(p, &l->norm1, x, EPS);
    struct tensor where = op_add(p, value, position);
    struct tensor h =
        op_attention(p, layer_linear(p, &l->q, where, NULL), layer_linear(p, &l->k, where, NULL),
                     layer_linear(p, &l->v, value, NULL), HEADS, false);
    h = layer_linear(p, &l->out, h, &(struct fuse){.add = x});
    struct tensor inner = layer_linear(p, &l->linear1, norm_layer(p, &l->norm2, h, EPS),
                                       &(struct fuse){.act = ACT_GELU});
    layer_linear_into(p, &l->linear2, &y, inner, &(struct fuse){.add = h});
    pass_close_scope(p, mark);
    return y;
}

/* The most likely code of each place. */
static struct tensor look_up(struct pass *p, struct codeformer *m, struct tensor logits, int side)
{
    int64_t n = m->tokens * m->codes;
    struct tensor none = {.dtype = p->dtype, .rank = 4, .dim = {1, side, side, m->code_width}};
    float *scores = alloc_try((size_t)n, sizeof *scores);
    int32_t *id = alloc_try((size_t)m->tokens, sizeof *id);
    if (!scores || !id) pass_fail(p, ERR_NO_MEMORY, "codeformer", "no memory for its codes");
    if (scores && id) {
        memset(scores, 0, (size_t)n * sizeof *scores);
        pass_output(p, scores, logits);
        for (int64_t t = 0; t < m->tokens; t++) {
            const float *row = scores + t * m->codes;
            id[t] = 0;
            for (int64_t c = 1; c < m->codes; c++)
                if (row[c] > row[id[t]]) id[t] = (int32_t)c;
        }
        none = tensor_view_4d(op_embedding(p, &m->book, id, 1, m->tokens), 1, side, side,
                              m->code_width);
    }
    free(scores);
    free(id);
    return none;
}

/* equation 5 */
static struct tensor fuse(struct pass *p, struct codeformer_fuse *f, struct tensor encoded,
                          struct tensor x, double fidelity)
{
    struct tensor y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct fuse leaky = {.act = ACT_LEAKY_RELU};
    struct tensor both = vq_res_run(p, &f->mix, GROUPS, op_concat(p, encoded, x));
    struct tensor scale = layer_conv(p, &f->scale[0], both, conv_same(3), &leaky);
    scale = layer_conv(p, &f->scale[1], scale, conv_same(3), NULL);
    struct tensor shift = layer_conv(p, &f->shift[0], both, conv_same(3), &leaky);
    shift = layer_conv(p, &f->shift[1], shift, conv_same(3),
                       &(struct fuse){.add = op_mul(p, x, scale)});
    op_add_into(p, &y, x, op_scale(p, shift, fidelity));
    pass_close_scope(p, mark);
    return y;
}

static int fuse_of(const struct codeformer *m, int64_t size)
{
    for (int i = 0; i < m->fuse_count; i++)
        if (m->fuses[i].size == size) return i;
    return -1;
}

struct tensor codeformer_forward(struct pass *p, struct codeformer *m, struct tensor x,
                                 double fidelity)
{
    struct tensor seen[CODEFORMER_FUSES_MAX] = {{0}};
    struct tensor h = x;
    for (int i = 0; i < m->encoder.count; i++) {
        int at = fuse_of(m, h.dim[1]);
        /* what the encoder knows at a size, before it goes on to the next */
        if (m->encoder.list[i].kind == VQ_RESAMPLE && at >= 0) seen[at] = h;
        h = vq_block_run(p, &m->encoder, i, h);
    }
    int side = (int)h.dim[1];
    struct tensor position = tensor_view_3d(op_weight(p, &m->position), 1, m->tokens, m->width);
    struct tensor query =
        layer_linear(p, &m->embed, tensor_view_3d(h, 1, m->tokens, m->code_width), NULL);
    for (int i = 0; i < m->layer_count; i++)
        query = transform(p, m, &m->layers[i], query, position);
    query = layer_linear(p, &m->predict, norm_layer(p, &m->predict_norm, query, EPS), NULL);
    h = look_up(p, m, query, side);
    for (int i = 0; i < m->generator.count; i++) {
        h = vq_block_run(p, &m->generator, i, h);
        /* after the first residual block of a size */
        bool first = i > 0 && m->generator.list[i].kind == VQ_RES &&
                     m->generator.list[i - 1].kind == VQ_RESAMPLE;
        int at = first ? fuse_of(m, h.dim[1]) : -1;
        if (at >= 0 && fidelity > 0 && seen[at].rank)
            h = fuse(p, &m->fuses[at], seen[at], h, fidelity);
    }
    return h;
}
