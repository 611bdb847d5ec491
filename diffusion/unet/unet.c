#include "diffusion/unet/unet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define RES_EPS 1e-5
#define TRANSFORMER_EPS 1e-6
#define LAYER_NORM_EPS 1e-5
#define SHARE_EPS 1e-6

void unet_sinusoid(float *out, const double *value, int n, int64_t dim)
{
    int64_t half = dim / 2;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < half; k++) {
            /* single precision as in the reference, whose angles reach 999 rad */
            float f = expf(-logf(10000.0f) * (float)k / (float)half);
            float angle = (float)value[i] * f;
            out[i * dim + k] = cosf(angle);
            out[i * dim + half + k] = sinf(angle);
        }
}

static struct conv_shape same(const bool *circular, int kernel)
{
    struct conv_shape s = conv_same(kernel);
    s.circular = *circular;
    return s;
}

/* One side of guidance serves all until they part: [N,..] -> [batch,..], repeated whole. */
static struct tensor widen(struct pass *p, struct tensor x, int64_t batch)
{
    return x.dim[0] == batch ? x : op_repeat_batch(p, x, batch / x.dim[0]);
}

/* row: what the block is told of the time, [N or 1,out], or rank 0: from the SiLU of the embedding */
static struct tensor res_run(struct pass *p, struct unet_res *m, struct tensor x,
                             struct tensor embedding, struct tensor row)
{
    struct conv_shape three = same(m->circular, 3);
    struct tensor y = pass_tensor(p, p->dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct fuse time = {.row = row.rank ? row : layer_linear(p, &m->time, embedding, NULL)};
    struct tensor h = norm_group(p, &m->in_norm, x, m->groups, RES_EPS, ACT_SILU);
    h = layer_conv(p, &m->in_conv, h, three, &time);
    h = norm_group(p, &m->out_norm, h, m->groups, RES_EPS, ACT_SILU);
    struct fuse rest = {.add = x};
    if (m->in != m->out) rest.add = layer_conv(p, &m->skip, x, conv_same(1), NULL);
    layer_conv_into(p, &m->out_conv, &y, h, three, &rest);
    pass_close_scope(p, mark);
    return y;
}

/* in: x [N,H,W,in], SiLU of the time embedding [N,time] */
static struct tensor res_block(struct pass *p, const void *context, const struct tensor *in,
                               int count)
{
    return res_run(p, (struct unet_res *)context, in[0], in[1], (struct tensor){0});
}

static struct tensor residual(struct pass *p, struct unet_res *m, struct tensor x,
                              struct unet_moment t)
{
    if (t.steps) {
        struct tensor row = t.steps->row[m->index];
        size_t bytes = (size_t)(t.steps->rows * m->out) * dtype_bytes(row.dtype);
        row.dim[0] = t.steps->rows;
        row.data = (char *)row.data + (size_t)t.step * bytes;
        return res_run(p, m, x, (struct tensor){0}, row);
    }
    /* a single row is told to all pictures */
    struct tensor embedding = t.embedding;
    if (embedding.dim[0] > 1) embedding = widen(p, embedding, x.dim[0]);
    return tape_checkpoint(p, res_block, m, (struct tensor[]){x, embedding}, 2);
}

/* h + what the attention makes of n: `a` is the weighted sum of its values */
static struct tensor attended(struct pass *p, struct unet_attention *m, struct tensor h,
                              struct tensor n, struct tensor a)
{
    struct unet_share *s = m->share;
    if (!s) return layer_linear(p, &m->out, a, &(struct fuse){.add = h});
    a = layer_linear(p, &m->out, a, NULL);
    struct tensor t = norm_layer(p, &s->norm, op_add(p, n, a), SHARE_EPS);
    t = layer_linear(p, &s->value, layer_linear(p, &s->in, t, NULL), NULL);
    t = layer_linear(p, &s->out, t, &(struct fuse){.add = a});
    return op_add(p, h, t);
}

/* in: x [N,L,width], and the cross attention's k, v [N,Lc,width] if the model has one */
static struct tensor transformer_block(struct pass *p, const void *context, const struct tensor *in,
                                       int count)
{
    struct unet_transformer_block *m = (struct unet_transformer_block *)context;
    struct tensor h = in[0];
    const int64_t batch = in[1].rank ? in[1].dim[0] : h.dim[0];
    struct tensor y = pass_tensor(p, h.dtype, 3, TENSOR_DIM(batch, h.dim[1], h.dim[2]));
    size_t mark = pass_open_scope(p);

    struct tensor n = norm_layer(p, &m->norm1, h, LAYER_NORM_EPS);
    struct tensor a = layer_attention(p, &m->self.q, &m->self.k, &m->self.v, n, m->heads);
    h = attended(p, &m->self, h, n, a);

    n = norm_layer(p, &m->norm2, h, LAYER_NORM_EPS);
    a = widen(p, layer_linear(p, &m->cross.q, n, NULL), batch);
    h = widen(p, h, batch);
    a = op_attention(p, a, in[1], in[2], m->heads, false);
    if (m->cross.share) n = widen(p, n, batch);
    h = attended(p, &m->cross, h, n, a);

    n = norm_layer(p, &m->norm3, h, LAYER_NORM_EPS);
    n = layer_geglu(p, &m->up, n);
    layer_linear_into(p, &m->down, &y, n, &(struct fuse){.add = h});
    pass_close_scope(p, mark);
    return y;
}

static struct tensor project(struct pass *p, const struct unet_transformer *m, struct layer *layer,
                             struct tensor x)
{
    return m->conv_proj ? layer_conv(p, layer, x, conv_same(1), NULL)
                        : layer_linear(p, layer, x, NULL);
}

/* Rows of the context, or of x where there is none. */
static int64_t batch_of(const struct unet_context *c, struct tensor x)
{
    return c->count && c->k[0].rank ? c->k[0].dim[0] : x.dim[0];
}

static struct tensor transformer(struct pass *p, struct unet_transformer *m, struct tensor x,
                                 const struct unet_context *c)
{
    const int64_t batch = batch_of(c, x), rows = x.dim[1] * x.dim[2];
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(batch, x.dim[1], x.dim[2], x.dim[3]));
    size_t mark = pass_open_scope(p);
    struct tensor h = norm_group(p, &m->norm, x, m->groups, TRANSFORMER_EPS, ACT_NONE);
    h = tensor_view_3d(project(p, m, &m->proj_in, h), x.dim[0], rows, m->width);
    for (int i = 0; i < m->depth; i++) {
        struct unet_transformer_block *b = &m->blocks[i];
        struct tensor in[3] = {h, c->k[b->cross_index], c->v[b->cross_index]};
        h = tape_checkpoint(p, transformer_block, b, in, 3);
    }
    struct fuse around = {.add = widen(p, x, batch)};
    h = tensor_view_4d(h, batch, x.dim[1], x.dim[2], m->width);
    if (m->conv_proj)
        layer_conv_into(p, &m->proj_out, &y, h, conv_same(1), &around);
    else
        layer_linear_into(p, &m->proj_out, &y, h, &around);
    pass_close_scope(p, mark);
    return y;
}

static struct tensor step(struct pass *p, struct unet_step *m, struct tensor x,
                          struct unet_moment t, const struct unet_context *c)
{
    struct tensor h = residual(p, &m->res, x, t);
    return m->transformer.depth ? transformer(p, &m->transformer, h, c) : h;
}

static struct tensor upsample(struct pass *p, struct unet *m, struct layer *conv, struct tensor h,
                              struct tensor like)
{
    struct conv_shape shape = same(&m->circular, 3);
    int64_t oh = like.dim[1], ow = like.dim[2];
    if (oh == 2 * h.dim[1] && ow == 2 * h.dim[2])
        shape.upsample = 2;
    else
        h = op_upsample(p, h, oh, ow);
    return layer_conv(p, conv, h, shape, NULL);
}

/* Distilled networks learn the scale: w = scale - 1 in thousandths, sines first (Luo et al. 2023). */
static struct tensor scale_input(struct pass *p, const struct unet *m)
{
    int64_t width = m->config.guidance, half = width / 2;
    float *host = alloc_zero((size_t)width, sizeof *host);
    for (int64_t k = 0; k < half; k++) {
        float f = expf((float)k * -(logf(10000.0f) / (float)(half - 1)));
        float angle = (float)((m->guidance_scale - 1) * 1000) * f;
        host[k] = sinf(angle);
        host[half + k] = cosf(angle);
    }
    struct tensor w = pass_input(p, host, 2, TENSOR_DIM(1, width));
    free(host);
    return w;
}

struct unet_time unet_time_input(struct pass *p, const struct unet *m, const double *time,
                                 int64_t n)
{
    struct unet_time t = {0};
    int64_t dim = m->config.channels[0];
    float *host = alloc_zero((size_t)(n * dim), sizeof *host);
    unet_sinusoid(host, time, (int)n, dim);
    t.sines = pass_input(p, host, 2, TENSOR_DIM(n, dim));
    free(host);
    if (m->config.guidance) t.scale = scale_input(p, m);
    return t;
}

struct unet_moment unet_time_embedding(struct pass *p, struct unet *m, struct unet_time time,
                                       const struct unet_context *c)
{
    if (time.steps) return (struct unet_moment){.steps = time.steps, .step = time.step};
    struct tensor t = time.sines;
    if (time.scale.rank) {
        struct tensor w = layer_linear(p, &m->time_guidance, time.scale, NULL);
        t = op_add(p, t, op_repeat_batch(p, w, t.dim[0]));
    }
    t = layer_linear(p, &m->time1, t, &(struct fuse){.act = ACT_SILU});
    t = layer_linear(p, &m->time2, t, NULL);
    if (c->vector.rank) t = op_add(p, widen(p, t, c->vector.dim[0]), c->vector);
    return (struct unet_moment){.embedding = op_activation(p, t, ACT_SILU)};
}

struct tensor unet_walk_down(struct pass *p, struct unet *m, struct tensor h, struct unet_moment t,
                             const struct unet_context *c, struct tensor *skip, int *count)
{
    const struct unet_config *config = &m->config;
    const int64_t batch = batch_of(c, h);
    const int first = *count;
    /* rows that differ from side to side end what the sides share; known steps have one a side,
     * however many pictures a side has */
    if (t.steps ? t.steps->rows > 1 : t.embedding.dim[0] > h.dim[0]) h = widen(p, h, batch);
    skip[(*count)++] = h;
    for (int i = 0; i < config->levels; i++) {
        struct unet_level *level = &m->level[i];
        for (int j = 0; j < config->blocks[i]; j++)
            skip[(*count)++] = h = step(p, &level->down[j], h, t, c);
        if (i + 1 == config->levels) break;
        struct conv_shape half = same(&m->circular, 3);
        half.stride = 2;
        skip[(*count)++] = h = layer_conv(p, &level->downsample, h, half, NULL);
    }
    for (int i = first; i < *count; i++) skip[i] = widen(p, skip[i], batch);
    return skip[*count - 1];
}

struct tensor unet_walk_middle(struct pass *p, struct unet *m, struct tensor h,
                               struct unet_moment t, const struct unet_context *c)
{
    h = step(p, &m->mid, h, t, c);
    return m->config.mid_second ? residual(p, &m->mid_second, h, t) : h;
}

struct tensor unet_forward_at(struct pass *p, struct unet *m, struct tensor x,
                              struct unet_time time, const struct unet_context *c,
                              const struct unet_residuals *r)
{
    const struct unet_config *config = &m->config;
    struct tensor skip[UNET_SKIPS_MAX];
    int count = 0;
    KILN_ASSERT(c->count == m->cross_count, "context of another model");

    struct unet_moment t = unet_time_embedding(p, m, time, c);
    struct tensor h = layer_conv(p, &m->conv_in, x, same(&m->circular, 3), NULL);
    h = unet_walk_down(p, m, h, t, c, skip, &count);
    h = unet_walk_middle(p, m, h, t, c);
    if (r) {
        KILN_ASSERT(r->count == count, "%d residuals for %d skips", r->count, count);
        for (int i = 0; i < count; i++)
            if (r->skip[i].rank) skip[i] = op_add(p, skip[i], r->skip[i]);
        if (r->middle.rank) h = op_add(p, h, r->middle);
    }
    for (int i = config->levels - 1; i >= 0; i--) {
        struct unet_level *level = &m->level[i];
        for (int j = 0; j <= config->blocks[i]; j++)
            h = step(p, &level->up[j], op_concat(p, h, skip[--count]), t, c);
        if (i > 0) h = upsample(p, m, &level->upsample, h, skip[count - 1]);
    }
    h = norm_group(p, &m->norm_out, h, config->groups, RES_EPS, ACT_SILU);
    return layer_conv(p, &m->conv_out, h, same(&m->circular, 3), NULL);
}

struct tensor unet_forward(struct pass *p, struct unet *m, struct tensor x, const double *time,
                           const struct unet_context *c, const struct unet_residuals *r)
{
    return unet_forward_at(p, m, x, unet_time_input(p, m, time, x.dim[0]), c, r);
}

/* ---- what stays the same over a prompt's steps ---- */

struct rows_of {
    struct unet_steps *s;
    struct pass *p;
    struct tensor embedding;
};

static void steps_of(struct rows_of *r, struct unet_res *m)
{
    if (weight_present(&m->time.w))
        r->s->row[m->index] = layer_linear(r->p, &m->time, r->embedding, NULL);
}

int unet_steps_init(struct unet_steps *s, struct pass *p, struct unet *m, const double *time,
                    int count, struct tensor vector)
{
    const int64_t rows = vector.rank ? vector.dim[0] : 1;
    *s = (struct unet_steps){.time = time, .count = count, .rows = rows};
    s->row = alloc_zero((size_t)m->res_count + 1, sizeof *s->row);
    double *each = alloc_zero((size_t)(count * rows), sizeof *each); /* a step's rows together */
    for (int64_t i = 0; i < count * rows; i++) each[i] = time[i / rows];
    struct unet_context c = {0};
    if (vector.rank) c.vector = op_repeat_batch(p, vector, count);
    struct unet_time t = unet_time_input(p, m, each, count * rows);
    struct rows_of r = {s, p, unet_time_embedding(p, m, t, &c).embedding};
    free(each);
    for (int i = 0; i < m->config.levels; i++) {
        for (int j = 0; j < m->config.blocks[i]; j++) steps_of(&r, &m->level[i].down[j].res);
        for (int j = 0; j <= m->config.blocks[i]; j++) steps_of(&r, &m->level[i].up[j].res);
    }
    steps_of(&r, &m->mid.res);
    steps_of(&r, &m->mid_second);
    return pass_ok(p) ? 0 : p->failed;
}

void unet_steps_release(struct unet_steps *s)
{
    free(s->row);
    *s = (struct unet_steps){0};
}

int unet_steps_find(const struct unet_steps *s, double time)
{
    for (int i = 0; i < s->count; i++)
        if (s->time[i] == time) return i;
    return -1;
}

static void context_of(struct unet_context *c, struct pass *p, struct unet_transformer *t,
                       struct tensor text)
{
    for (int i = 0; i < t->depth; i++) {
        struct unet_transformer_block *b = &t->blocks[i];
        c->k[b->cross_index] = layer_linear(p, &b->cross.k, text, NULL);
        c->v[b->cross_index] = layer_linear(p, &b->cross.v, text, NULL);
    }
}

int unet_context_init(struct unet_context *c, struct pass *p, struct unet *m, struct tensor text,
                      struct tensor vector)
{
    *c = (struct unet_context){.count = m->cross_count};
    c->k = alloc_zero((size_t)m->cross_count + 1, sizeof *c->k);
    c->v = alloc_zero((size_t)m->cross_count + 1, sizeof *c->v);
    for (int i = 0; i < m->config.levels; i++) {
        for (int j = 0; j < m->config.blocks[i]; j++)
            context_of(c, p, &m->level[i].down[j].transformer, text);
        for (int j = 0; j <= m->config.blocks[i]; j++)
            context_of(c, p, &m->level[i].up[j].transformer, text);
    }
    context_of(c, p, &m->mid.transformer, text);
    if (m->config.vector && vector.rank) {
        struct tensor v = layer_linear(p, &m->vector1, vector, &(struct fuse){.act = ACT_SILU});
        c->vector = layer_linear(p, &m->vector2, v, NULL);
    }
    return pass_ok(p) ? 0 : p->failed;
}

void unet_context_release(struct unet_context *c)
{
    free(c->k);
    free(c->v);
    *c = (struct unet_context){0};
}
