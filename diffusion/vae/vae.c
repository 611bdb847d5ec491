#include "diffusion/vae/vae.h"

#include <math.h>

#include "base/alloc.h"
#include "tensor/tape.h"

/* of norms, which all read the residual stream or a convolution scaled like it */
static double eps(const struct vae *m)
{
    return ldexp(1e-6, -2 * m->exponent);
}

static struct conv_shape same(const struct vae *m, int kernel)
{
    struct conv_shape s = conv_same(kernel);
    s.circular = m->circular;
    return s;
}

static struct tensor res_block(struct pass *p, const void *context, const struct tensor *in,
                               int count)
{
    struct vae_res *m = (struct vae_res *)context;
    struct tensor x = in[0];
    struct conv_shape three = conv_same(3);
    three.circular = m->vae->circular;
    struct tensor y = pass_tensor(p, p->dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct fuse rest = {.add = x};
    if (m->in != m->out) rest.add = layer_conv(p, &m->skip, x, conv_same(1), NULL);
    struct tensor h = norm_group(p, &m->norm1, x, m->groups, eps(m->vae), ACT_SILU);
    h = layer_conv(p, &m->conv1, h, three, NULL);
    h = norm_group(p, &m->norm2, h, m->groups, eps(m->vae), ACT_SILU);
    layer_conv_into(p, &m->conv2, &y, h, three, &rest);
    pass_close_scope(p, mark);
    return y;
}

/* Without a tape x is not needed afterwards, and pictures are large: the sum goes over x where it fits, else
 * the norm does. */
static struct tensor res_over(struct pass *p, struct vae_res *m, struct tensor x)
{
    struct conv_shape three = same(m->vae, 3);
    struct tensor y = x;
    if (m->in != m->out)
        y = pass_tensor(p, p->dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], m->out));
    size_t mark = pass_open_scope(p);
    struct tensor h;
    if (m->in != m->out) {
        layer_conv_into(p, &m->skip, &y, x, conv_same(1), NULL);
        h = norm_group_over(p, &m->norm1, x, m->groups, eps(m->vae), ACT_SILU);
    } else {
        h = norm_group(p, &m->norm1, x, m->groups, eps(m->vae), ACT_SILU);
    }
    h = layer_conv(p, &m->conv1, h, three, NULL);
    h = norm_group_over(p, &m->norm2, h, m->groups, eps(m->vae), ACT_SILU);
    layer_conv_into(p, &m->conv2, &y, h, three, &(struct fuse){.add = y});
    pass_close_scope(p, mark);
    return y;
}

/* x must be the caller's own: it is written over. */
static struct tensor res(struct pass *p, struct vae_res *m, struct tensor x)
{
    return p->tape ? tape_checkpoint(p, res_block, m, &x, 1) : res_over(p, m, x);
}

static struct tensor attention(struct pass *p, struct vae *m, struct vae_attention *a,
                               struct tensor x)
{
    int64_t n = x.dim[0], rows = x.dim[1] * x.dim[2], c = x.dim[3];
    struct tensor y = p->tape ? pass_tensor_like(p, x) : x;
    size_t mark = pass_open_scope(p);
    struct conv_shape point = conv_same(1);
    struct tensor h = norm_group(p, &a->norm, x, m->config.groups, eps(m), ACT_NONE);
    struct tensor q = tensor_view_3d(layer_conv(p, &a->q, h, point, NULL), n, rows, c);
    struct tensor k = tensor_view_3d(layer_conv(p, &a->k, h, point, NULL), n, rows, c);
    struct tensor v = tensor_view_3d(layer_conv(p, &a->v, h, point, NULL), n, rows, c);
    h = op_attention(p, q, k, v, 1, false);
    h = tensor_view_4d(h, n, x.dim[1], x.dim[2], c);
    layer_conv_into(p, &a->out, &y, h, point, &(struct fuse){.add = x});
    pass_close_scope(p, mark);
    return y;
}

static struct tensor middle(struct pass *p, struct vae *m, struct vae_half *half, struct tensor h)
{
    h = res(p, &half->mid1, h);
    h = attention(p, m, &half->attention, h);
    return res(p, &half->mid2, h);
}

/* The decoder down to level i. A level's result has its memory before those above it begin, so that
 * theirs is free when it is read: pictures are large here. The last level goes on to the picture itself. */
static struct tensor decode_level(struct pass *p, struct vae *m, int i, struct tensor z)
{
    struct vae_half *half = &m->decoder;
    int64_t times = (int64_t)1 << (m->config.levels - (i > 0 ? i : 1));
    int64_t out = i > 0 ? m->config.channels[i] : 3;
    struct tensor y =
        pass_tensor(p, p->dtype, 4, TENSOR_DIM(z.dim[0], z.dim[1] * times, z.dim[2] * times, out));
    size_t mark = pass_open_scope(p);
    struct tensor h;
    if (i + 1 < m->config.levels) {
        h = decode_level(p, m, i + 1, z);
    } else {
        h = m->config.quant ? layer_conv(p, &m->post_quant, z, conv_same(1), NULL) : z;
        h = layer_conv(p, &half->conv_in, h, same(m, 3), NULL);
        h = middle(p, m, half, h);
    }
    for (int j = 0; j <= m->config.blocks; j++) h = res(p, &half->block[i][j], h);
    struct conv_shape three = same(m, 3);
    if (i > 0) {
        three.upsample = 2;
        layer_conv_into(p, &half->resample[i], &y, h, three, NULL);
    } else {
        h = norm_group_over(p, &half->norm_out, h, m->config.groups, eps(m), ACT_SILU);
        layer_conv_into(p, &half->conv_out, &y, h, three, NULL);
    }
    pass_close_scope(p, mark);
    return y;
}

struct tensor vae_decode(struct pass *p, struct vae *m, struct tensor z)
{
    return decode_level(p, m, 0, z);
}

static struct tensor level_down(struct pass *p, struct vae *m, int i, struct tensor x)
{
    struct vae_half *half = &m->encoder;
    bool last = i + 1 == m->config.levels;
    int64_t oh = last ? x.dim[1] : x.dim[1] / 2, ow = last ? x.dim[2] : x.dim[2] / 2;
    struct tensor h = x;
    if (last) {
        for (int j = 0; j < m->config.blocks; j++) h = res(p, &half->block[i][j], h);
        return h;
    }
    struct tensor y =
        pass_tensor(p, p->dtype, 4, TENSOR_DIM(x.dim[0], oh, ow, m->config.channels[i]));
    size_t mark = pass_open_scope(p);
    for (int j = 0; j < m->config.blocks; j++) h = res(p, &half->block[i][j], h);
    /* zeros to the right and below only */
    struct conv_shape half_size = {.stride = 2, .pad_bottom = 1, .pad_right = 1};
    layer_conv_into(p, &half->resample[i], &y, h, half_size, NULL);
    pass_close_scope(p, mark);
    return y;
}

struct tensor vae_encode(struct pass *p, struct vae *m, struct tensor x)
{
    struct tensor h = layer_conv(p, &m->encoder.conv_in, x, same(m, 3), NULL);
    for (int i = 0; i < m->config.levels; i++) h = level_down(p, m, i, h);
    h = middle(p, m, &m->encoder, h);
    h = norm_group(p, &m->encoder.norm_out, h, m->config.groups, eps(m), ACT_SILU);
    h = layer_conv(p, &m->encoder.conv_out, h, same(m, 3), NULL);
    return m->config.quant ? layer_conv(p, &m->quant, h, conv_same(1), NULL) : h;
}
