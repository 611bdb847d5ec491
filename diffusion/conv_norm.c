#include "diffusion/conv_norm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define EPS 1e-5 /* torch's BatchNorm2d */

static void visit_vector(struct weight_visitor *v, struct weight *w, const char *name, int64_t n)
{
    struct weight_site site = {.name = {name, name}, .rank = 1, .dim = {n}};
    site.optional = v->path[DIALECT_HF][0] && strstr(v->path[DIALECT_HF], "norm.");
    visit_site(v, w, &site);
}

void visit_conv_norm(struct weight_visitor *v, struct conv_norm *m, const char *conv,
                     const char *norm, int index, int64_t out, int64_t in, int kernel, bool bias)
{
    char by_order[32];
    snprintf(by_order, sizeof by_order, "conv.%d", index);
    visit_conv(v, &m->conv, conv, by_order, out, in, kernel, bias);
    if (!norm) return;
    snprintf(by_order, sizeof by_order, "norm.%d", index);
    struct visit_mark mark = visit_open(v, norm, by_order);
    visit_vector(v, &m->norm.w, "weight", out);
    visit_vector(v, &m->norm.b, "bias", out);
    visit_vector(v, &m->mean, "running_mean", out);
    visit_vector(v, &m->variance, "running_var", out);
    visit_close(v, mark);
}

static double at(const struct weight *w, int64_t i)
{
    return weight_present(w) ? dtype_get(w->k.data, w->k.dtype, i) : 0;
}

int conv_norm_fold(struct conv_norm *m, struct error *err)
{
    struct weight *w = &m->conv.w, *b = &m->conv.b;
    if (!weight_present(&m->norm.w) || !weight_present(&m->variance)) return 0;
    int64_t out = w->k.dim[0], row = weight_count(w) / out;
    m->folded = alloc_try((size_t)(out * (row + 1)), sizeof *m->folded);
    if (!m->folded) return error_set(err, ERR_NO_MEMORY, "no memory to fold %s", w->name);
    dtype_convert(m->folded, DTYPE_F32, w->k.data, w->k.dtype, out * row);
    float *offset = m->folded + out * row;
    for (int64_t i = 0; i < out; i++) {
        double factor = at(&m->norm.w, i) / sqrt(at(&m->variance, i) + EPS);
        for (int64_t k = 0; k < row; k++)
            m->folded[i * row + k] = (float)(m->folded[i * row + k] * factor);
        offset[i] = (float)((at(b, i) - at(&m->mean, i)) * factor + at(&m->norm.b, i));
    }
    w->k.data = m->folded;
    w->k.dtype = DTYPE_F32;
    b->name = m->norm.b.name;
    b->k = (struct kernel_weight){.data = offset, .dtype = DTYPE_F32, .rank = 1, .dim = {out}};
    return 0;
}

void conv_norm_release(struct conv_norm *m, struct device *d)
{
    layer_release(&m->conv, d);
    free(m->folded);
    memset(m, 0, sizeof *m);
}

struct tensor conv_norm_run(struct pass *p, struct conv_norm *m, struct tensor x, int stride,
                            int dilation, enum activation act)
{
    int kernel = weight_present(&m->conv.w) ? (int)m->conv.w.k.dim[3] : 1;
    struct conv_shape shape = conv_same(kernel);
    struct fuse fuse = {.act = act};
    shape.stride = stride;
    if (dilation == 1) return layer_conv(p, &m->conv, x, shape, &fuse);
    struct tensor apart = op_apart(p, x, dilation);
    apart = layer_conv(p, &m->conv, apart, shape, &fuse);
    return op_together(p, apart, dilation, x.dim[1], x.dim[2]);
}
