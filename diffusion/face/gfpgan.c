#include "diffusion/face/gfpgan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static struct tensor leaky(struct pass *p, struct layer *m, struct tensor x, int kernel)
{
    return layer_conv(p, m, x, conv_same(kernel), &(struct fuse){.act = ACT_LEAKY_RELU});
}

static struct tensor resized(struct pass *p, struct tensor x, bool up)
{
    return up ? op_bilinear(p, x, 2 * x.dim[1], 2 * x.dim[2])
              : op_bilinear(p, x, x.dim[1] / 2, x.dim[2] / 2);
}

static struct tensor res(struct pass *p, struct gfpgan_res *m, struct tensor x, bool up)
{
    int64_t h = up ? 2 * x.dim[1] : x.dim[1] / 2, w = up ? 2 * x.dim[2] : x.dim[2] / 2;
    struct tensor y = pass_tensor(p, x.dtype, 4, TENSOR_DIM(x.dim[0], h, w, m->out));
    size_t mark = pass_open_scope(p);
    struct tensor in = leaky(p, &m->conv1, x, 3);
    in = leaky(p, &m->conv2, resized(p, in, up), 3);
    layer_conv_into(p, &m->skip, &y, resized(p, x, up), conv_same(1), &(struct fuse){.add = in});
    pass_close_scope(p, mark);
    return y;
}

/* ---- the decoder ---- */

static double at(const struct weight *w, int64_t i)
{
    return dtype_get(w->k.data, w->k.dtype, i);
}

/* What the style says of a convolution's inputs, and by what its outputs are divided. */
static void factors(const struct gfpgan_style *m, const float *style, int64_t style_width,
                    float *inputs, float *outputs)
{
    for (int64_t i = 0; i < m->in; i++) {
        double sum = at(&m->steer.b, i);
        for (int64_t k = 0; k < style_width; k++)
            sum += at(&m->steer.w, i * style_width + k) * style[k];
        inputs[i] = (float)sum;
    }
    for (int64_t o = 0; !m->rgb && o < m->out; o++) {
        double sum = 1e-8;
        for (int64_t i = 0; i < m->in; i++)
            sum += (double)m->squares[o * m->in + i] * inputs[i] * inputs[i];
        outputs[o] = (float)(sqrt(2) / sqrt(sum));
    }
}

static struct tensor steered(struct pass *p, struct gfpgan_style *m, struct tensor x,
                             const float *style, int64_t style_width)
{
    struct tensor y = {.dtype = x.dtype, .rank = 4, .dim = {1, x.dim[1], x.dim[2], m->out}};
    float *values = alloc_try((size_t)(m->in + m->out), sizeof *values);
    if (!values) {
        pass_fail(p, ERR_NO_MEMORY, "gfpgan", "no memory for a style");
        return y;
    }
    factors(m, style, style_width, values, values + m->in);
    struct tensor inputs = pass_input(p, values, 1, TENSOR_DIM(m->in));
    struct tensor h = op_mul_row(p, x, inputs);
    if (m->rgb) {
        y = op_conv2d(p, h, &m->conv.w, &m->bias, conv_same(1), NULL);
    } else {
        h = op_conv2d(p, h, &m->conv.w, NULL, conv_same(3), NULL);
        y = op_mul_row(p, h, pass_input(p, values + m->in, 1, TENSOR_DIM(m->out)));
    }
    free(values);
    return y;
}

/* act(steered + strength noise + bias) */
static struct tensor styled(struct pass *p, struct gfpgan_style *m, struct tensor x,
                            const float *style, int64_t style_width)
{
    struct tensor h = pass_tensor(p, x.dtype, 4, TENSOR_DIM(1, x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct tensor made = steered(p, m, x, style, style_width);
    struct tensor noise = tensor_view_4d(op_weight(p, &m->noise), 1, x.dim[1], x.dim[2], 1);
    op_linear_into(p, &h, noise, &m->noise_column, &m->bias, &(struct fuse){.add = made});
    pass_close_scope(p, mark);
    op_activate(p, &h, ACT_LEAKY_RELU);
    return h;
}

/* The last channels, or all of them, scaled and shifted. */
static struct tensor transformed(struct pass *p, struct tensor x, struct tensor scale,
                                 struct tensor shift)
{
    int64_t kept = x.dim[3] - scale.dim[3];
    struct tensor part = kept ? op_slice(p, x, kept, scale.dim[3]) : x;
    part = op_add(p, op_mul(p, part, scale), shift);
    return kept ? op_concat(p, op_slice(p, x, 0, kept), part) : part;
}

static struct tensor decode(struct pass *p, struct gfpgan *m, const float *styles,
                            const struct tensor *scale, const struct tensor *shift)
{
    int64_t s = m->style_width, c = m->constant_width;
    struct tensor h = tensor_view_4d(op_weight(p, &m->constant), 1, c, 4, 4);
    h = styled(p, &m->start, op_to_channels_last(p, h), styles, s);
    struct tensor rgb = steered(p, &m->start_rgb, h, styles + s, s);
    for (int i = 0; i < m->levels; i++) {
        h = styled(p, &m->convs[2 * i], resized(p, h, true), styles + (2 * i + 1) * s, s);
        h = transformed(p, h, scale[i], shift[i]);
        h = styled(p, &m->convs[2 * i + 1], h, styles + (2 * i + 2) * s, s);
        struct tensor more = steered(p, &m->rgbs[i], h, styles + (2 * i + 3) * s, s);
        rgb = op_add(p, more, resized(p, rgb, true));
    }
    return rgb;
}

struct tensor gfpgan_forward(struct pass *p, struct gfpgan *m, struct tensor x)
{
    struct tensor skips[GFPGAN_LEVELS_MAX], scale[GFPGAN_LEVELS_MAX], shift[GFPGAN_LEVELS_MAX];
    struct tensor h = leaky(p, &m->first, x, 1);
    for (int i = 0; i < m->levels; i++)
        h = skips[m->levels - 1 - i] = res(p, &m->down[i], h, false);
    h = leaky(p, &m->last, h, 3);
    struct tensor flat = op_to_channels_first(p, h);
    flat = tensor_view_3d(flat, 1, 1, tensor_count(flat));
    size_t count = (size_t)(m->style_width * (2 * m->levels + 2));
    float *styles = alloc_try(count, sizeof *styles);
    if (!styles) {
        pass_fail(p, ERR_NO_MEMORY, "gfpgan", "no memory for its styles");
        return x;
    }
    memset(styles, 0, count * sizeof *styles);
    pass_output(p, styles, layer_linear(p, &m->to_style, flat, NULL));
    for (int i = 0; i < m->levels; i++) {
        h = res(p, &m->up[i], op_add(p, h, skips[i]), true);
        scale[i] =
            layer_conv(p, &m->scale[i][1], leaky(p, &m->scale[i][0], h, 3), conv_same(3), NULL);
        shift[i] =
            layer_conv(p, &m->shift[i][1], leaky(p, &m->shift[i][0], h, 3), conv_same(3), NULL);
    }
    struct tensor y = decode(p, m, styles, scale, shift);
    free(styles);
    return y;
}
