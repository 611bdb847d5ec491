#include "diffusion/layered/alpha_decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define LEVELS_MAX 8
#define BLOCKS_MAX 3 /* on the way down; one more on the way up */
#define GROUPS 4
#define EPS 1e-5
#define HEAD_WIDTH 8
#define LATENT_LEVEL 3 /* in front of which the latents come in: an eighth of the picture */
#define ORIENTATIONS 8

struct res {
    struct norm norm1, norm2;
    struct layer conv1, conv2, skip;
    int64_t in, out;
};

struct attention {
    struct norm norm;
    struct layer q, k, v, out;
    int64_t width;
};

struct step { /* a residual block and, at deep levels, attention */
    struct res res;
    struct attention attention;
};

struct level {
    int64_t width;
    bool attends;
    struct step down[BLOCKS_MAX], up[BLOCKS_MAX + 1];
    struct layer downsample, upsample;
};

struct alpha_decoder {
    struct device *device;
    struct weight_store *store;
    int levels, blocks;
    int64_t latent; /* channels of the latents */
    struct level level[LEVELS_MAX];
    struct res mid1, mid2;
    struct attention mid_attention;
    struct layer conv_in, latent_in, conv_out;
    struct norm norm_out;
};

/* ---- names ---- */

static void visit_res(struct weight_visitor *v, struct res *r, const char *name, int64_t in,
                      int64_t out)
{
    struct visit_mark mark = visit_open(v, name, name);
    r->in = in;
    r->out = out;
    visit_norm(v, &r->norm1, "norm1", "norm1", in);
    visit_conv(v, &r->conv1, "conv1", "conv1", out, in, 3, true);
    visit_norm(v, &r->norm2, "norm2", "norm2", out);
    visit_conv(v, &r->conv2, "conv2", "conv2", out, out, 3, true);
    if (in != out) visit_conv(v, &r->skip, "conv_shortcut", "conv_shortcut", out, in, 1, true);
    visit_close(v, mark);
}

static void visit_attention(struct weight_visitor *v, struct attention *a, const char *name,
                            int64_t c)
{
    struct visit_mark mark = visit_open(v, name, name);
    a->width = c;
    visit_norm(v, &a->norm, "group_norm", "group_norm", c);
    visit_linear(v, &a->q, "to_q", "to_q", c, c, true);
    visit_linear(v, &a->k, "to_k", "to_k", c, c, true);
    visit_linear(v, &a->v, "to_v", "to_v", c, c, true);
    visit_linear(v, &a->out, "to_out.0", "to_out.0", c, c, true);
    visit_close(v, mark);
}

static void visit_step(struct weight_visitor *v, struct step *s, int index, int64_t in, int64_t out,
                       bool attends)
{
    char name[32];
    snprintf(name, sizeof name, "resnets.%d", index);
    visit_res(v, &s->res, name, in, out);
    snprintf(name, sizeof name, "attentions.%d", index);
    if (attends) visit_attention(v, &s->attention, name, out);
}

static struct visit_mark open_level(struct weight_visitor *v, const char *way, int index)
{
    char name[32];
    snprintf(name, sizeof name, "%s_blocks.%d", way, index);
    return visit_open(v, name, name);
}

static void visit_conv_at(struct weight_visitor *v, struct layer *m, const char *name, int64_t out,
                          int64_t in, int kernel)
{
    visit_conv(v, m, name, name, out, in, kernel, true);
}

static void visit(struct weight_visitor *v, struct alpha_decoder *d)
{
    int64_t first = d->level[0].width, deep = d->level[d->levels - 1].width, in = first;
    visit_conv_at(v, &d->conv_in, "conv_in", first, 3, 3);
    visit_conv_at(v, &d->latent_in, "latent_conv_in", d->level[LATENT_LEVEL - 1].width, d->latent,
                  1);
    for (int i = 0; i < d->levels; i++) {
        struct level *l = &d->level[i];
        struct visit_mark mark = open_level(v, "down", i);
        for (int j = 0; j < d->blocks; j++)
            visit_step(v, &l->down[j], j, j ? l->width : in, l->width, l->attends);
        if (i + 1 < d->levels)
            visit_conv_at(v, &l->downsample, "downsamplers.0.conv", l->width, l->width, 3);
        visit_close(v, mark);
        in = l->width;
    }
    struct visit_mark mark = visit_open(v, "mid_block", "mid_block");
    visit_res(v, &d->mid1, "resnets.0", deep, deep);
    visit_attention(v, &d->mid_attention, "attentions.0", deep);
    visit_res(v, &d->mid2, "resnets.1", deep, deep);
    visit_close(v, mark);
    for (int i = d->levels - 1; i >= 0; i--) {
        struct level *l = &d->level[i];
        int64_t below = d->level[i > 0 ? i - 1 : 0].width; /* of the last skip */
        mark = open_level(v, "up", d->levels - 1 - i);
        for (int j = 0; j <= d->blocks; j++) {
            visit_step(v, &l->up[j], j, in + (j < d->blocks ? l->width : below), l->width,
                       l->attends);
            in = l->width;
        }
        if (i > 0) visit_conv_at(v, &l->upsample, "upsamplers.0.conv", l->width, l->width, 3);
        visit_close(v, mark);
    }
    visit_norm(v, &d->norm_out, "conv_norm_out", "conv_norm_out", first);
    visit_conv_at(v, &d->conv_out, "conv_out", 4, first, 3);
}

static const struct safetensors_entry *find(const struct weight_store *s, const char *format,
                                            int level, int block)
{
    char name[WEIGHT_NAME_BYTES];
    snprintf(name, sizeof name, format, level, block);
    return weight_store_find(s, name);
}

static int detect(struct alpha_decoder *d, struct error *err)
{
    const struct weight_store *s = d->store;
    const struct safetensors_entry *latent = weight_store_find(s, "latent_conv_in.weight"), *e;
    static const char first[] = "down_blocks.%d.resnets.%d.conv1.weight";
    while (d->levels < LEVELS_MAX && (e = find(s, first, d->levels, 0)) && e->rank == 4) {
        d->level[d->levels].width = e->dim[0];
        d->level[d->levels].attends =
            find(s, "down_blocks.%d.attentions.%d.to_q.weight", d->levels, 0) != NULL;
        d->levels++;
    }
    while (d->blocks < BLOCKS_MAX + 1 && find(s, first, 0, d->blocks)) d->blocks++;
    if (!latent || latent->rank != 4 || d->levels <= LATENT_LEVEL || d->blocks > BLOCKS_MAX)
        return error_set(err, ERR_FORMAT,
                         "%s holds no decoder of transparency (%d levels of %d blocks%s)",
                         weight_store_path(s), d->levels, d->blocks,
                         latent ? "" : ", latent_conv_in.weight is missing");
    d->latent = latent->dim[1];
    for (int i = 0; i < d->levels; i++)
        if (d->level[i].width < 1 || d->level[i].width > 8192 || d->level[i].width % GROUPS ||
            (d->level[i].attends && d->level[i].width % HEAD_WIDTH))
            return error_set(err, ERR_FORMAT,
                             "%s: level %d is %lld wide, which does not divide into %d groups",
                             weight_store_path(s), i, (long long)d->level[i].width, GROUPS);
    return 0;
}

void alpha_decoder_close(struct alpha_decoder *d)
{
    if (!d) return;
    struct weight_visitor v = {.visit = weight_drop, .context = d->device};
    if (d->levels > LATENT_LEVEL) visit(&v, d);
    weight_store_close(d->store);
    free(d);
}

int alpha_decoder_open(struct alpha_decoder **decoder, struct device *device, const char *path,
                       struct error *err)
{
    struct alpha_decoder *d = alloc_zero(1, sizeof *d);
    d->device = device;
    int rc = weight_store_open(&d->store, path, err);
    if (!rc) rc = detect(d, err);
    if (!rc) {
        struct weight_loading l = {.store = d->store,
                                   .prefix = "",
                                   .dialect = DIALECT_HF,
                                   .component = "the decoder of transparency"};
        struct weight_visitor v = {.visit = weight_load, .context = &l, .err = err};
        visit(&v, d);
        rc = v.failed ? v.failed : weight_loading_check(&l, err);
    }
    if (rc) {
        alpha_decoder_close(d);
        return rc;
    }
    *decoder = d;
    return 0;
}

/* ---- the network ---- */

static struct tensor res_run(struct pass *p, struct res *m, struct tensor x)
{
    struct tensor y = pass_tensor(p, p->dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct tensor h = norm_group(p, &m->norm1, x, GROUPS, EPS, ACT_SILU);
    h = layer_conv(p, &m->conv1, h, conv_same(3), NULL);
    h = norm_group(p, &m->norm2, h, GROUPS, EPS, ACT_SILU);
    struct fuse rest = {.add = x};
    if (m->in != m->out) rest.add = layer_conv(p, &m->skip, x, conv_same(1), NULL);
    layer_conv_into(p, &m->conv2, &y, h, conv_same(3), &rest);
    pass_close_scope(p, mark);
    return y;
}

static struct tensor attention_run(struct pass *p, struct attention *a, struct tensor x)
{
    int64_t n = x.dim[0], rows = x.dim[1] * x.dim[2], c = a->width;
    struct tensor y = pass_tensor(p, p->dtype, 4, TENSOR_DIM(n, x.dim[1], x.dim[2], c));
    size_t mark = pass_open_scope(p);
    struct tensor h = tensor_view_3d(norm_group(p, &a->norm, x, GROUPS, EPS, ACT_NONE), n, rows, c);
    struct tensor q = layer_linear(p, &a->q, h, NULL), k = layer_linear(p, &a->k, h, NULL),
                  v = layer_linear(p, &a->v, h, NULL);
    h = op_attention(p, q, k, v, c / HEAD_WIDTH, false);
    h = tensor_view_4d(h, n, x.dim[1], x.dim[2], c);
    layer_linear_into(p, &a->out, &y, h, &(struct fuse){.add = x});
    pass_close_scope(p, mark);
    return y;
}

static struct tensor step_run(struct pass *p, struct step *s, struct tensor x)
{
    struct tensor h = res_run(p, &s->res, x);
    return s->attention.width ? attention_run(p, &s->attention, h) : h;
}

struct tensor alpha_decoder_run(struct pass *p, struct alpha_decoder *d, struct tensor x,
                                struct tensor z)
{
    struct tensor skip[LEVELS_MAX * (BLOCKS_MAX + 1) + 1];
    struct conv_shape half = conv_same(3), twice = conv_same(3);
    int count = 0;
    half.stride = 2;
    twice.upsample = 2;
    struct tensor h = layer_conv(p, &d->conv_in, x, conv_same(3), NULL);
    skip[count++] = h;
    for (int i = 0; i < d->levels; i++) {
        struct level *l = &d->level[i];
        if (i == LATENT_LEVEL)
            h = layer_conv(p, &d->latent_in, z, conv_same(1), &(struct fuse){.add = h});
        for (int j = 0; j < d->blocks; j++) skip[count++] = h = step_run(p, &l->down[j], h);
        if (i + 1 < d->levels) skip[count++] = h = layer_conv(p, &l->downsample, h, half, NULL);
    }
    h = res_run(p, &d->mid1, h);
    h = attention_run(p, &d->mid_attention, h);
    h = res_run(p, &d->mid2, h);
    for (int i = d->levels - 1; i >= 0; i--) {
        struct level *l = &d->level[i];
        for (int j = 0; j <= d->blocks; j++)
            h = step_run(p, &l->up[j], op_concat(p, h, skip[--count]));
        if (i > 0) h = layer_conv(p, &l->upsample, h, twice, NULL);
    }
    h = norm_group(p, &d->norm_out, h, GROUPS, EPS, ACT_SILU);
    return layer_conv(p, &d->conv_out, h, conv_same(3), NULL);
}

int alpha_decoder_multiple(const struct alpha_decoder *d)
{
    return 1 << (d->levels - 1);
}

/* ---- eight views of one picture ---- */

/* The view: mirrored from left to right if `flip`, then turned `turns` quarters against the clock.
 * Where pixel (y,x) of the view lies in the h x w picture. */
static int64_t place(int64_t y, int64_t x, int64_t h, int64_t w, bool flip, int turns)
{
    int64_t row = y, column = x;
    switch (turns) {
    case 1: row = x, column = w - 1 - y; break;
    case 2: row = h - 1 - y, column = w - 1 - x; break;
    case 3: row = h - 1 - x, column = y; break;
    }
    return row * w + (flip ? w - 1 - column : column);
}

/* to[view] = from[picture], or with `back` to[picture] = from[view] */
static void turn(float *to, const float *from, int64_t h, int64_t w, int channels, bool flip,
                 int turns, bool back)
{
    int64_t vh = turns % 2 ? w : h, vw = turns % 2 ? h : w;
    for (int64_t y = 0; y < vh; y++)
        for (int64_t x = 0; x < vw; x++) {
            int64_t view = y * vw + x, picture = place(y, x, h, w, flip, turns);
            memcpy(to + (back ? picture : view) * channels,
                   from + (back ? view : picture) * channels, (size_t)channels * sizeof *to);
        }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void medians(float *rgba, const float *views, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 4; c++) {
            float v[ORIENTATIONS];
            for (int k = 0; k < ORIENTATIONS; k++)
                v[k] = fminf(fmaxf(views[(k * n + i) * 4 + c], 0), 1);
            qsort(v, ORIENTATIONS, sizeof *v, by_value);
            rgba[i * 4 + (c + 3) % 4] = v[ORIENTATIONS / 2 - 1];
        }
}

int alpha_decode_picture(struct alpha_decoder *d, struct pass_memory *memory, enum dtype dtype,
                         const float *picture, const float *latent, int64_t h, int64_t w,
                         float *rgba, bool (*canceled)(void *context), void *context,
                         struct error *err)
{
    int64_t zh = h >> LATENT_LEVEL, zw = w >> LATENT_LEVEL, n = h * w;
    int multiple = alpha_decoder_multiple(d), rc = 0;
    if (h % multiple || w % multiple)
        return error_set(err, ERR_INVALID,
                         "a transparent picture's sides are multiples of %d, not %lld x %lld",
                         multiple, (long long)w, (long long)h);
    float *views = alloc_try((size_t)n * 4 * ORIENTATIONS, sizeof *views);
    float *x = alloc_try((size_t)n * 4, sizeof *x);
    float *z = alloc_try((size_t)(zh * zw * d->latent) * 2, sizeof *z);
    float *channels_last = z + zh * zw * d->latent;
    if (!views || !x || !z)
        rc = error_set(err, ERR_NO_MEMORY, "no memory for a transparent picture");
    for (int64_t i = 0; !rc && i < zh * zw; i++)
        for (int64_t c = 0; c < d->latent; c++)
            channels_last[i * d->latent + c] = latent[c * zh * zw + i];
    for (int k = 0; k < ORIENTATIONS && !rc; k++) {
        bool flip = k >= ORIENTATIONS / 2;
        int turns = k % 4;
        bool lies = turns % 2;
        struct pass p;
        turn(x, picture, h, w, 3, flip, turns, false);
        turn(z, channels_last, zh, zw, (int)d->latent, flip, turns, false);
        pass_start(&p, memory, dtype, NULL);
        struct tensor in = pass_input(&p, x, 4, TENSOR_DIM(1, lies ? w : h, lies ? h : w, 3));
        struct tensor at =
            pass_input(&p, z, 4, TENSOR_DIM(1, lies ? zw : zh, lies ? zh : zw, d->latent));
        pass_output(&p, x, alpha_decoder_run(&p, d, in, at));
        rc = pass_finish(&p, err);
        if (!rc) turn(views + k * n * 4, x, h, w, 4, flip, turns, true);
        if (!rc && canceled && canceled(context))
            rc = error_set(err, ERR_CANCELED, "stopped on request");
    }
    if (!rc) medians(rgba, views, n);
    free(views);
    free(x);
    free(z);
    return rc;
}
