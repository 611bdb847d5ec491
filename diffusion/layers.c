#include "diffusion/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* One low-rank branch: s * up(mid(down(x))) (+ add). Down sees the geometry of the layer, unless a
 * Tucker core stands between. */
static struct tensor branch(struct pass *p, struct adapter *a, struct tensor x,
                            const struct conv_shape *shape, struct tensor add)
{
    struct fuse fuse = {.add = add};
    struct tensor low;
    if (!shape) {
        low = op_linear(p, x, &a->down, NULL, NULL);
        low = op_scale(p, low, a->scale);
        return op_linear(p, low, &a->up, NULL, &fuse);
    }
    struct conv_shape point = {.stride = 1};
    if (weight_present(&a->mid)) {
        low = op_conv2d(p, x, &a->down, NULL, point, NULL);
        low = op_conv2d(p, low, &a->mid, NULL, *shape, NULL);
    } else {
        low = op_conv2d(p, x, &a->down, NULL, *shape, NULL);
    }
    low = op_scale(p, low, a->scale);
    return op_conv2d(p, low, &a->up, NULL, point, &fuse);
}

static struct tensor plain(struct pass *p, struct layer *m, struct tensor *into, struct tensor x,
                           const struct conv_shape *shape, const struct fuse *f)
{
    struct weight *b = weight_present(&m->b) ? &m->b : NULL;
    if (!into) return shape ? op_conv2d(p, x, &m->w, b, *shape, f) : op_linear(p, x, &m->w, b, f);
    if (shape)
        op_conv2d_into(p, into, x, &m->w, b, *shape, f);
    else
        op_linear_into(p, into, x, &m->w, b, f);
    return *into;
}

static struct tensor apply(struct pass *p, struct layer *m, struct tensor *into, struct tensor x,
                           const struct conv_shape *shape, const struct fuse *f)
{
    if (!m->adapters) return plain(p, m, into, x, shape, f);

    /* branches add up before the activation: they ride in `add`, and what the caller wanted
     * after the activation comes last */
    struct fuse inner = f ? *f : (struct fuse){0};
    bool late = inner.act != ACT_NONE;
    KILN_ASSERT(!late || !into, "an activation cannot follow an adapter in place");
    struct tensor sum = late ? (struct tensor){0} : inner.add;
    for (struct adapter *a = m->adapters; a; a = a->next) sum = branch(p, a, x, shape, sum);
    inner.add = sum;
    inner.act = ACT_NONE;
    struct tensor y = plain(p, m, into, x, shape, &inner);
    if (!late) return y;
    y = op_activation(p, y, f->act);
    return f->add.rank ? op_add(p, y, f->add) : y;
}

struct tensor layer_linear(struct pass *p, struct layer *m, struct tensor x, const struct fuse *f)
{
    return apply(p, m, NULL, x, NULL, f);
}

struct tensor layer_conv(struct pass *p, struct layer *m, struct tensor x, struct conv_shape shape,
                         const struct fuse *f)
{
    return apply(p, m, NULL, x, &shape, f);
}

void layer_linear_into(struct pass *p, struct layer *m, struct tensor *y, struct tensor x,
                       const struct fuse *f)
{
    apply(p, m, y, x, NULL, f);
}

void layer_conv_into(struct pass *p, struct layer *m, struct tensor *y, struct tensor x,
                     struct conv_shape shape, const struct fuse *f)
{
    apply(p, m, y, x, &shape, f);
}

struct tensor layer_geglu(struct pass *p, struct layer *m, struct tensor x)
{
    if (m->adapters) return op_geglu(p, layer_linear(p, m, x, NULL));
    return op_linear_geglu(p, x, &m->w, weight_present(&m->b) ? &m->b : NULL);
}

struct tensor layer_attention(struct pass *p, struct layer *q, struct layer *k, struct layer *v,
                              struct tensor x, int64_t heads)
{
    struct weight *w[3] = {&q->w, &k->w, &v->w};
    bool bare = !q->adapters && !k->adapters && !v->adapters && !weight_present(&q->b) &&
                !weight_present(&k->b) && !weight_present(&v->b);
    if (bare && op_can_join(p, w, 3))
        return op_attention_joined(p, op_linear_join(p, x, w, 3), heads, false);
    return op_attention(p, layer_linear(p, q, x, NULL), layer_linear(p, k, x, NULL),
                        layer_linear(p, v, x, NULL), heads, false);
}

struct tensor norm_group(struct pass *p, struct norm *m, struct tensor x, int64_t groups,
                         double eps, enum activation act)
{
    return op_group_norm(p, x, &m->w, &m->b, groups, eps, act);
}

struct tensor norm_group_over(struct pass *p, struct norm *m, struct tensor x, int64_t groups,
                              double eps, enum activation act)
{
    return op_group_norm_over(p, x, &m->w, &m->b, groups, eps, act);
}

void norm_conv_into(struct pass *p, struct norm_conv n, struct layer *m, struct tensor *y,
                    struct tensor x, struct conv_shape shape, const struct fuse *f)
{
    if (m->adapters) {
        size_t mark = pass_open_scope(p);
        struct tensor h = n.over ? norm_group_over(p, n.norm, x, n.groups, n.eps, n.act)
                                 : norm_group(p, n.norm, x, n.groups, n.eps, n.act);
        layer_conv_into(p, m, y, h, shape, f);
        pass_close_scope(p, mark);
        return;
    }
    struct norm_of of = {&n.norm->w, &n.norm->b, n.groups, n.eps, n.act, n.over};
    op_norm_conv_into(p, y, x, &of, &m->w, weight_present(&m->b) ? &m->b : NULL, shape, f);
}

struct tensor norm_layer(struct pass *p, struct norm *m, struct tensor x, double eps)
{
    return op_layer_norm(p, x, &m->w, &m->b, eps);
}

struct adapter *layer_attach(struct layer *m, double scale)
{
    struct adapter *a = alloc_zero(1, sizeof *a);
    a->scale = scale;
    a->next = m->adapters;
    m->adapters = a;
    return a;
}

static void free_adapter(struct adapter *a, struct device *d)
{
    weight_release(&a->down, d);
    weight_release(&a->mid, d);
    weight_release(&a->up, d);
    for (size_t i = 0; i < COUNT_OF(a->owned); i++) free(a->owned[i]);
    free(a);
}

void layer_detach_all(struct layer *m, struct device *d)
{
    while (m->adapters) {
        struct adapter *a = m->adapters;
        m->adapters = a->next;
        free_adapter(a, d);
    }
}

void layer_detach(struct layer *m, struct device *d, const void *owner)
{
    struct adapter **at = &m->adapters;
    while (*at) {
        struct adapter *a = *at;
        if (a->owner != owner) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        free_adapter(a, d);
    }
}

void layer_release(struct layer *m, struct device *d)
{
    layer_detach_all(m, d);
    weight_release(&m->w, d);
    weight_release(&m->b, d);
    memset(m, 0, sizeof *m);
}

void norm_release(struct norm *m, struct device *d)
{
    weight_release(&m->w, d);
    weight_release(&m->b, d);
    memset(m, 0, sizeof *m);
}

/* ---- the visitor's paths ---- */

static void append(struct weight_visitor *v, enum dialect dialect, const char *text)
{
    size_t room = WEIGHT_NAME_BYTES - v->length[dialect];
    int n = snprintf(v->path[dialect] + v->length[dialect], room, "%s", text);
    KILN_ASSERT(n >= 0 && (size_t)n < room, "weight path too long: %s", v->path[dialect]);
    v->length[dialect] += (size_t)n;
}

static void cut(struct weight_visitor *v, struct visit_mark mark)
{
    for (int i = 0; i < DIALECT_COUNT; i++) {
        v->length[i] = mark.length[i];
        v->path[i][mark.length[i]] = 0;
    }
}

static struct visit_mark here(const struct weight_visitor *v)
{
    struct visit_mark mark;
    memcpy(mark.length, v->length, sizeof mark.length);
    return mark;
}

struct visit_mark visit_open(struct weight_visitor *v, const char *ldm, const char *hf)
{
    struct visit_mark mark = here(v);
    const char *step[DIALECT_COUNT] = {[DIALECT_LDM] = ldm, [DIALECT_HF] = hf};
    for (int i = 0; i < DIALECT_COUNT; i++) {
        if (!*step[i]) continue;
        append(v, i, step[i]);
        append(v, i, ".");
    }
    return mark;
}

void visit_close(struct weight_visitor *v, struct visit_mark mark)
{
    cut(v, mark);
}

void visit_site(struct weight_visitor *v, struct weight *w, const struct weight_site *site)
{
    if (v->failed) return;
    struct visit_mark mark = here(v);
    struct weight_site full = *site;
    for (int i = 0; i < DIALECT_COUNT; i++) {
        append(v, i, site->name[i]);
        full.name[i] = v->path[i];
    }
    v->failed = v->visit(v, w, &full, v->err);
    cut(v, mark);
}

void visit_weight(struct weight_visitor *v, struct weight *w, const char *ldm, const char *hf,
                  int rank, const int64_t *dim)
{
    struct weight_site site = {.name = {ldm, hf}, .rank = rank};
    for (int i = 0; i < rank; i++) site.dim[i] = dim[i];
    visit_site(v, w, &site);
}

void visit_norm(struct weight_visitor *v, struct norm *m, const char *ldm, const char *hf,
                int64_t channels)
{
    struct visit_mark mark = visit_open(v, ldm, hf);
    visit_weight(v, &m->w, "weight", "weight", 1, &channels);
    visit_weight(v, &m->b, "bias", "bias", 1, &channels);
    visit_close(v, mark);
}

static void visit_layer(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                        struct weight_site site, bool bias)
{
    struct visit_mark mark = visit_open(v, ldm, hf);
    site.layer = m;
    site.name[DIALECT_LDM] = site.name[DIALECT_HF] = "weight";
    visit_site(v, &m->w, &site);
    if (bias) {
        site.rank = 1;
        site.name[DIALECT_LDM] = site.name[DIALECT_HF] = "bias";
        visit_site(v, &m->b, &site);
    }
    visit_close(v, mark);
}

void visit_linear(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                  int64_t out, int64_t in, bool bias)
{
    visit_layer(v, m, ldm, hf, (struct weight_site){.rank = 2, .dim = {out, in}}, bias);
}

void visit_gated(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                 int64_t out, int64_t in)
{
    visit_layer(v, m, ldm, hf, (struct weight_site){.rank = 2, .dim = {out, in}, .gated = true},
                true);
}

void visit_conv(struct weight_visitor *v, struct layer *m, const char *ldm, const char *hf,
                int64_t out, int64_t in, int kernel, bool bias)
{
    visit_layer(v, m, ldm, hf, (struct weight_site){.rank = 4, .dim = {out, in, kernel, kernel}},
                bias);
}
