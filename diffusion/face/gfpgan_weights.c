/* GFPGAN's shapes and names. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/face/gfpgan.h"

#define WIDTH_MAX 8192

static const struct safetensors_entry *find(const struct weight_store *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static const struct safetensors_entry *find(const struct weight_store *s, const char *format, ...)
{
    char name[WEIGHT_NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const struct safetensors_entry *e = weight_store_find(s, name);
    for (int i = 0; e && i < e->rank; i++)
        if (e->dim[i] < 1 || e->dim[i] > (1 << 24)) return NULL;
    return e;
}

bool gfpgan_is(const struct weight_store *s)
{
    return weight_store_find(s, "conv_body_first.weight") &&
           weight_store_find(s, "stylegan_decoder.constant_input.weight");
}

static int unknown(const struct weight_store *s, const char *what, struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: a GFPGAN of another form (%s); versions 1.3 and 1.4 are known",
                     weight_store_path(s), what);
}

static bool detect_res(struct gfpgan_res *m, const struct weight_store *s, const char *list, int i)
{
    const struct safetensors_entry *e = find(s, "%s.%d.conv2.weight", list, i);
    if (!e || e->rank != 4 || e->dim[0] > WIDTH_MAX || e->dim[1] > WIDTH_MAX) return false;
    m->in = e->dim[1];
    m->out = e->dim[0];
    return true;
}

/* weight [1,out,in,k,k] */
static bool detect_style(struct gfpgan_style *m, const struct weight_store *s, const char *name,
                         bool rgb)
{
    const struct safetensors_entry *e = find(s, "stylegan_decoder.%s.modulated_conv.weight", name);
    if (!e || e->rank != 5 || e->dim[1] > WIDTH_MAX || e->dim[2] > WIDTH_MAX) return false;
    *m = (struct gfpgan_style){.in = e->dim[2], .out = e->dim[1], .rgb = rgb};
    return true;
}

static bool detect_level(struct gfpgan *m, const struct weight_store *s, int i)
{
    char name[32];
    bool ok = detect_res(&m->down[i], s, "conv_body_down", i) &&
              detect_res(&m->up[i], s, "conv_body_up", i);
    for (int k = 0; k < 2 && ok; k++) {
        snprintf(name, sizeof name, "style_convs.%d", 2 * i + k);
        ok = detect_style(&m->convs[2 * i + k], s, name, false);
    }
    snprintf(name, sizeof name, "to_rgbs.%d", i);
    ok = ok && detect_style(&m->rgbs[i], s, name, true);
    const struct safetensors_entry *e = find(s, "condition_scale.%d.2.weight", i);
    ok = ok && e && e->rank == 4;
    if (ok) m->steered[i] = e->dim[0];
    return ok && m->steered[i] <= m->convs[2 * i].out;
}

int gfpgan_detect(struct gfpgan *model, const struct weight_store *s, struct error *err)
{
    struct gfpgan *m = model;
    *m = (struct gfpgan){0};
    const struct safetensors_entry *first = find(s, "conv_body_first.weight");
    const struct safetensors_entry *last = find(s, "final_conv.weight");
    const struct safetensors_entry *style =
        find(s, "stylegan_decoder.style_conv1.modulated_conv.modulation.weight");
    const struct safetensors_entry *all = find(s, "final_linear.weight");
    const struct safetensors_entry *constant = find(s, "stylegan_decoder.constant_input.weight");
    if (!first || first->rank != 4 || !last || last->rank != 4 || !style || style->rank != 2 ||
        !all || all->rank != 2 || !constant || constant->rank != 4 || first->dim[2] != 1 ||
        !detect_style(&m->start, s, "style_conv1", false) ||
        !detect_style(&m->start_rgb, s, "to_rgb1", true))
        return unknown(s, "not the clean one", err);
    m->first_width = first->dim[0];
    m->deep_width = last->dim[0];
    m->style_width = style->dim[1];
    m->constant_width = constant->dim[1];
    while (m->levels < GFPGAN_LEVELS_MAX && find(s, "conv_body_down.%d.conv2.weight", m->levels)) {
        if (!detect_level(m, s, m->levels)) return unknown(s, "a level is incomplete", err);
        m->levels++;
    }
    m->size = 4 << m->levels;
    if (m->levels < 1 || all->dim[0] != (2 * m->levels + 2) * m->style_width)
        return unknown(s, "one style for all layers", err);
    return 0;
}

/* ---- names ---- */

static void visit_res(struct weight_visitor *v, struct gfpgan_res *m, const char *list, int i)
{
    char name[40];
    snprintf(name, sizeof name, "%s.%d", list, i);
    struct visit_mark mark = visit_open(v, name, name);
    visit_conv(v, &m->conv1, "conv1", "conv1", m->in, m->in, 3, true);
    visit_conv(v, &m->conv2, "conv2", "conv2", m->out, m->in, 3, true);
    visit_conv(v, &m->skip, "skip", "skip", m->out, m->in, 1, false);
    visit_close(v, mark);
}

/* noise: its number and side, or -1 */
static void visit_style(struct weight_visitor *v, struct gfpgan_style *m, const char *name,
                        int64_t style_width, int noise, int64_t side)
{
    struct visit_mark outer = visit_open(v, "stylegan_decoder", "stylegan_decoder");
    struct visit_mark mark = visit_open(v, name, name);
    visit_conv(v, &m->conv, "modulated_conv", "modulated_conv", m->out, m->in, m->rgb ? 1 : 3,
               false);
    visit_linear(v, &m->steer, "modulated_conv.modulation", "modulated_conv.modulation", m->in,
                 style_width, true);
    visit_weight(v, &m->bias, "bias", "bias", 1, &m->out);
    if (!m->rgb) visit_weight(v, &m->strength, "weight", "weight", 1, TENSOR_DIM(1));
    visit_close(v, mark);
    if (noise >= 0) {
        char which[32];
        snprintf(which, sizeof which, "noises.noise%d", noise);
        visit_weight(v, &m->noise, which, which, 2, TENSOR_DIM(side, side));
    }
    visit_close(v, outer);
}

static void visit_pair(struct weight_visitor *v, struct layer pair[2], const char *list, int i,
                       int64_t in, int64_t out)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%d.0", list, i);
    visit_conv(v, &pair[0], name, name, in, in, 3, true);
    snprintf(name, sizeof name, "%s.%d.2", list, i);
    visit_conv(v, &pair[1], name, name, out, in, 3, true);
}

void gfpgan_visit(struct weight_visitor *v, struct gfpgan *m)
{
    int64_t s = m->style_width, deep = m->down[m->levels - 1].out;
    char name[32];
    visit_conv(v, &m->first, "conv_body_first", "conv_body_first", m->first_width, 3, 1, true);
    visit_conv(v, &m->last, "final_conv", "final_conv", m->deep_width, deep, 3, true);
    visit_linear(v, &m->to_style, "final_linear", "final_linear", s * (2 * m->levels + 2),
                 m->deep_width * 16, true);
    for (int i = 0; i < m->levels; i++) {
        visit_res(v, &m->down[i], "conv_body_down", i);
        visit_res(v, &m->up[i], "conv_body_up", i);
        visit_pair(v, m->scale[i], "condition_scale", i, m->up[i].out, m->steered[i]);
        visit_pair(v, m->shift[i], "condition_shift", i, m->up[i].out, m->steered[i]);
    }
    visit_weight(v, &m->constant, "stylegan_decoder.constant_input.weight",
                 "stylegan_decoder.constant_input.weight", 3, TENSOR_DIM(m->constant_width, 4, 4));
    visit_style(v, &m->start, "style_conv1", s, 0, 4);
    visit_style(v, &m->start_rgb, "to_rgb1", s, -1, 0);
    for (int i = 0; i < m->levels; i++) {
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "style_convs.%d", 2 * i + k);
            visit_style(v, &m->convs[2 * i + k], name, s, 2 * i + k + 1, 8 << i);
        }
        snprintf(name, sizeof name, "to_rgbs.%d", i);
        visit_style(v, &m->rgbs[i], name, s, -1, 0);
    }
}

/* ---- after loading ---- */

static int prepare(struct gfpgan_style *m, struct error *err)
{
    if (m->rgb) return 0;
    int64_t taps = weight_count(&m->conv.w) / (m->in * m->out);
    m->squares = alloc_try((size_t)(m->in * m->out), sizeof *m->squares);
    m->column = alloc_try((size_t)m->out, sizeof *m->column);
    if (!m->squares || !m->column)
        return error_set(err, ERR_NO_MEMORY, "no memory for the styles of a GFPGAN");
    for (int64_t i = 0; i < m->in * m->out; i++) {
        double sum = 0;
        for (int64_t k = 0; k < taps; k++) {
            double w = dtype_get(m->conv.w.k.data, m->conv.w.k.dtype, i * taps + k);
            sum += w * w;
        }
        m->squares[i] = (float)sum;
    }
    double strength = dtype_get(m->strength.k.data, m->strength.k.dtype, 0);
    for (int64_t i = 0; i < m->out; i++) m->column[i] = (float)strength;
    m->noise_column.name = m->strength.name;
    m->noise_column.k = (struct kernel_weight){
        .data = m->column, .dtype = DTYPE_F32, .rank = 2, .dim = {m->out, 1}};
    return 0;
}

int gfpgan_prepare(struct gfpgan *m, struct error *err)
{
    int rc = prepare(&m->start, err);
    for (int i = 0; i < 2 * m->levels && !rc; i++) rc = prepare(&m->convs[i], err);
    return rc;
}

static void release_style(struct gfpgan_style *m, struct device *d)
{
    weight_release(&m->noise_column, d);
    free(m->squares);
    free(m->column);
}

void gfpgan_release(struct gfpgan *m, struct device *d)
{
    struct weight_visitor v = {.visit = weight_drop, .context = d};
    if (m->levels) gfpgan_visit(&v, m);
    release_style(&m->start, d);
    for (int i = 0; i < 2 * m->levels; i++) release_style(&m->convs[i], d);
    memset(m, 0, sizeof *m);
}
