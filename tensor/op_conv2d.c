/* y = act(conv(x, w) + b + row) + add, channels last */
#include "kernels/real.h"
#include "tensor/op.h"

struct conv2d_saved {
    struct tensor x;
    struct weight *w;
    struct conv_shape shape;
    struct op_fuse fuse;
};

struct conv_shape conv_same(int kernel)
{
    int pad = kernel / 2;
    return (struct conv_shape){1, pad, pad, pad, pad, 1, false};
}

static int64_t conv_extent(int64_t size, int upsample, int before, int after, int64_t kernel,
                           int stride)
{
    int64_t room = size * (upsample == 2 ? 2 : 1) + before + after - kernel;
    return room < 0 ? 0 : room / (stride > 1 ? stride : 1) + 1;
}

static struct tensor conv2d_shape(struct tensor x, const struct weight *w, struct conv_shape c)
{
    if (x.rank != 4 || !weight_present(w) || w->k.rank != 4)
        return op_shape(x.dtype, x.rank, x.dim);
    int64_t h = conv_extent(x.dim[1], c.upsample, c.pad_top, c.pad_bottom, w->k.dim[2], c.stride);
    int64_t width =
        conv_extent(x.dim[2], c.upsample, c.pad_left, c.pad_right, w->k.dim[3], c.stride);
    return op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], h, width, w->k.dim[0]));
}

static bool conv2d_check(struct pass *p, const char *op, struct tensor x, struct weight *w,
                         struct tensor y)
{
    if (!op_require(p, op, w, "weight of a convolution")) return false;
    if (!op_check_dtype(p, op, x, x)) return false;
    char first[OP_TEXT_BYTES], second[OP_TEXT_BYTES];
    if (x.rank != 4 || w->k.rank != 4 || w->k.dim[1] != x.dim[3]) {
        pass_fail(p, ERR_INVALID, op, "x %s does not fit %s %s", tensor_describe(x, first),
                  op_weight_name(w), tensor_describe(op_weight_shape(w), second));
        return false;
    }
    if (y.dim[1] > 0 && y.dim[2] > 0) return true;
    pass_fail(p, ERR_INVALID, op, "x %s is smaller than the kernel of %s %s",
              tensor_describe(x, first), op_weight_name(w),
              tensor_describe(op_weight_shape(w), second));
    return false;
}

static struct conv2d_args conv2d_args_of(struct tensor y, struct tensor x, struct weight *w,
                                         struct conv_shape c)
{
    struct conv2d_args a = {.y = y.data,
                            .x = x.data,
                            .w = &w->k,
                            .n = x.dim[0],
                            .h = x.dim[1],
                            .w_px = x.dim[2],
                            .c = x.dim[3],
                            .oh = y.dim[1],
                            .ow = y.dim[2],
                            .out = y.dim[3],
                            .kh = (int)w->k.dim[2],
                            .kw = (int)w->k.dim[3]};
    a.stride = c.stride ? c.stride : 1;
    a.pad_top = c.pad_top;
    a.pad_left = c.pad_left;
    a.upsample = c.upsample == 2 ? 2 : 1;
    a.circular = c.circular;
    a.dtype = x.dtype;
    return a;
}

bool op_conv2d_args(struct pass *p, const char *op, struct conv2d_args *a, struct tensor y,
                    struct tensor x, struct weight *w, struct conv_shape c, const struct op_fuse *f)
{
    if (!conv2d_check(p, op, x, w, y)) return false;
    *a = conv2d_args_of(y, x, w, c);
    return op_fuse_args(p, op, &a->epilogue, f, y);
}

static bool conv2d_run(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                       struct conv_shape c, const struct op_fuse *f)
{
    struct conv2d_args args = conv2d_args_of(*y, x, w, c);
    if (!op_fuse_args(p, "conv2d", &args.epilogue, f, *y)) {
        y->data = NULL;
        return false;
    }
    return op_call(p, y, conv2d, &args);
}

static void conv2d_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct conv2d_saved *s = saved;
    struct tensor x = s->x, pre = {0};
    if (s->fuse.fuse.act != ACT_NONE) {
        struct op_fuse before = {.fuse = {.row = s->fuse.fuse.row}, .bias = s->fuse.bias};
        pre = pass_tensor_like(p, dy);
        if (!pre.data || !conv2d_run(p, &pre, x, s->w, s->shape, &before)) return;
    }
    struct tensor dz = op_fuse_undo_act(p, &s->fuse, pre, dy);
    struct conv2d_grad_args args = {.conv = conv2d_args_of(dz, x, s->w, s->shape), .dy = dz.data};
    struct tensor dx = tape_grad(p, x, &args.accumulate);
    if (dx.data) {
        args.dx = dx.data;
        op_call(p, NULL, conv2d_dx, &args);
    }
    args.dw = tape_weight_grad(p, s->w);
    if (args.dw) op_call(p, NULL, conv2d_dw, &args);
    op_fuse_undo(p, &s->fuse, dz, dy);
}

static void conv2d_finish(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                          struct conv_shape c, const struct op_fuse *f)
{
    if (!conv2d_run(p, y, x, w, c, f)) return;
    if (!x.node && !weight_trains(w) && !op_fuse_needs_tape(f)) return;
    struct conv2d_saved *s = tape_note(p, y, conv2d_undo, sizeof(*s));
    if (s) *s = (struct conv2d_saved){x, w, c, *f};
}

struct tensor op_conv2d(struct pass *p, struct tensor x, struct weight *w, struct weight *b,
                        struct conv_shape shape, const struct fuse *f)
{
    struct op_fuse fuse = {.fuse = f ? *f : (struct fuse){0}, .bias = b};
    struct tensor y = conv2d_shape(x, w, shape);
    if (conv2d_check(p, "conv2d", x, w, y) && op_fresh(p, "conv2d", &y)) {
        conv2d_finish(p, &y, x, w, shape, &fuse);
    }
    return y;
}

void op_conv2d_into(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                    struct weight *b, struct conv_shape shape, const struct fuse *f)
{
    struct op_fuse fuse = {.fuse = f ? *f : (struct fuse){0}, .bias = b};
    struct tensor result = conv2d_shape(x, w, shape);
    bool ready = conv2d_check(p, "conv2d", x, w, result);
    if (op_into(p, "conv2d", y, result, fuse.fuse.add) && ready) {
        conv2d_finish(p, y, x, w, shape, &fuse);
    }
}
