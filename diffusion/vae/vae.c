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

static struct norm_conv normed(const struct vae_res *m, const struct norm *norm, bool over)
{
    return (struct norm_conv){(struct norm *)norm, m->groups, eps(m->vae), ACT_SILU, over};
}

/* Without a tape x is not needed afterwards, and pictures are large: the sum goes over x where it fits, else
 * the norm does. */
static struct tensor res_over(struct pass *p, struct vae_res *m, struct tensor x)
{
    struct conv_shape three = same(m->vae, 3);
    bool changes = m->in != m->out;
    const int64_t dim[4] = {x.dim[0], x.dim[1], x.dim[2], m->out};
    struct tensor y = changes ? pass_tensor(p, p->dtype, 4, dim) : x;
    size_t mark = pass_open_scope(p);
    struct tensor h = pass_tensor(p, p->dtype, 4, dim);
    if (changes) layer_conv_into(p, &m->skip, &y, x, conv_same(1), NULL);
    norm_conv_into(p, normed(m, &m->norm1, changes), &m->conv1, &h, x, three, NULL);
    norm_conv_into(p, normed(m, &m->norm2, true), &m->conv2, &y, h, three,
                   &(struct fuse){.add = y});
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

static struct tensor begun(struct pass *p, struct vae *m, struct tensor z)
{
    struct tensor h = m->config.quant ? layer_conv(p, &m->post_quant, z, conv_same(1), NULL) : z;
    h = layer_conv(p, &m->decoder.conv_in, h, same(m, 3), NULL);
    return middle(p, m, &m->decoder, h);
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
        h = begun(p, m, z);
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

/*
 * The same in two rooms, where norms make no maps of their own: a level's pictures lie in `wide`, the one
 * between two convolutions in `narrow`, and a level's result behind that one, so that the enlargement
 * has `wide` for itself. At full size that is one map of the level below and one of this level's.
 */
struct rooms {
    void *wide, *narrow;
};

static struct tensor in_room(const struct pass *p, void *room, struct tensor like, int64_t c)
{
    struct tensor t = like;
    t.data = p->failed ? NULL : room;
    t.dim[3] = c;
    return t;
}

/* The 1x1 over its own input, for fewer channels: a pixel's result lies before what is still to be read, once the
 * first pixels are out of the way. */
static struct tensor narrowed(struct pass *p, struct layer *m, struct tensor x, int64_t out)
{
    const int64_t in = x.dim[3], pixels = tensor_rows(x), bytes = (int64_t)dtype_bytes(x.dtype);
    struct tensor y = in_room(p, x.data, x, out);
    for (int64_t done = 0; done < pixels && !p->failed;) {
        int64_t end = done ? done * in / out : 64;
        if (end > pixels) end = pixels;
        size_t mark = pass_open_scope(p);
        struct tensor from = x, to = x;
        from.dim[0] = from.dim[1] = to.dim[0] = to.dim[1] = 1;
        from.dim[2] = to.dim[2] = end - done;
        to.dim[3] = out;
        from.data = (char *)x.data + done * in * bytes;
        to.data = (char *)x.data + done * out * bytes;
        if (!done)
            from = tensor_view_4d(op_slice_rows(p, tensor_view_3d(from, 1, end, in), 0, end), 1, 1,
                                  end, in);
        layer_conv_into(p, m, &to, from, conv_same(1), NULL);
        pass_close_scope(p, mark);
        done = end;
    }
    return y;
}

static struct tensor res_in(struct pass *p, const struct rooms *r, struct vae_res *m,
                            struct tensor x, bool away)
{
    struct conv_shape three = same(m->vae, 3);
    struct tensor h = in_room(p, r->narrow, x, m->out);
    norm_conv_into(p, normed(m, &m->norm1, false), &m->conv1, &h, x, three, NULL);
    if (m->in != m->out) x = narrowed(p, &m->skip, x, m->out);
    struct tensor y = away ? in_room(p, (char *)r->narrow + tensor_bytes(x), x, m->out) : x;
    norm_conv_into(p, normed(m, &m->norm2, true), &m->conv2, &y, h, three,
                   &(struct fuse){.add = x});
    return y;
}

/* Adapters make maps of their own, and a level may not widen. */
static bool rooms_suit(const struct pass *p, const struct vae *m)
{
    for (int i = 0; i + 1 < m->config.levels; i++)
        if (m->config.channels[i] > m->config.channels[i + 1]) return false;
    return p->kernels->norm_conv2d && !p->tape;
}

static void rooms_make(struct pass *p, const struct vae *m, struct rooms *r, struct tensor z)
{
    size_t wide = 0, narrow = 0, element = dtype_bytes(p->dtype);
    const int64_t *c = m->config.channels;
    for (int i = 0; i < m->config.levels; i++) {
        size_t pixels = (size_t)tensor_rows(z) << 2 * (m->config.levels - 1 - i);
        size_t own = pixels * (size_t)c[i] * element;
        if (i) own *= 2;
        if (narrow < own) narrow = own;
        size_t below = i + 1 < m->config.levels ? pixels * (size_t)c[i + 1] * element : 0;
        if (wide < below) wide = below;
    }
    r->wide = pass_bytes(p, wide);
    r->narrow = pass_bytes(p, narrow);
}

static struct tensor decode_in_rooms(struct pass *p, struct vae *m, struct tensor z)
{
    struct vae_half *half = &m->decoder;
    int64_t f = (int64_t)1 << (m->config.levels - 1);
    struct tensor y =
        pass_tensor(p, p->dtype, 4, TENSOR_DIM(z.dim[0], z.dim[1] * f, z.dim[2] * f, 3));
    size_t mark = pass_open_scope(p);
    struct tensor x = begun(p, m, z);
    struct rooms r;
    rooms_make(p, m, &r, z);
    for (int i = m->config.levels - 1; i >= 0; i--) {
        for (int j = 0; j <= m->config.blocks; j++)
            x = res_in(p, &r, &half->block[i][j], x, i > 0 && j == m->config.blocks);
        if (!i) break;
        struct conv_shape twice = same(m, 3);
        twice.upsample = 2;
        struct tensor large = in_room(p, r.wide, x, x.dim[3]);
        large.dim[1] *= 2;
        large.dim[2] *= 2;
        layer_conv_into(p, &half->resample[i], &large, x, twice, NULL);
        x = large;
    }
    struct norm_conv last = {&half->norm_out, m->config.groups, eps(m), ACT_SILU, true};
    norm_conv_into(p, last, &half->conv_out, &y, x, same(m, 3), NULL);
    pass_close_scope(p, mark);
    return y;
}

struct tensor vae_decode(struct pass *p, struct vae *m, struct tensor z)
{
    return rooms_suit(p, m) ? decode_in_rooms(p, m, z) : decode_level(p, m, 0, z);
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
    h = layer_conv(p, &m->encoder.conv_out, h, same(m, 3), NULL); /* small here */
    return m->config.quant ? layer_conv(p, &m->quant, h, conv_same(1), NULL) : h;
}
