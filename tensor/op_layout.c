/* Nearest enlargement, and channels first <-> channels last. */
#include "tensor/op.h"

static struct upsample_args upsample_args_of(struct tensor x, int64_t oh, int64_t ow)
{
    return (struct upsample_args){.x = x.data,
                                  .n = x.dim[0],
                                  .h = x.dim[1],
                                  .w = x.dim[2],
                                  .c = x.dim[3],
                                  .oh = oh,
                                  .ow = ow,
                                  .dtype = x.dtype};
}

static void upsample_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct tensor *x = saved;
    struct upsample_args args = upsample_args_of(*x, dy.dim[1], dy.dim[2]);
    args.dy = dy.data;
    args.dx = tape_grad(p, *x, &args.accumulate).data;
    op_call(p, NULL, upsample_grad, &args);
}

struct tensor op_upsample(struct pass *p, struct tensor x, int64_t oh, int64_t ow)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], oh, ow, x.dim[3]));
    if (!op_check_dtype(p, "upsample", x, x)) return y;
    if (x.rank != 4 || oh < 1 || ow < 1) {
        op_fail_shapes(p, "upsample", "%s cannot become %s", x, y);
        return y;
    }
    if (!op_fresh(p, "upsample", &y)) return y;
    struct upsample_args args = upsample_args_of(x, oh, ow);
    args.y = y.data;
    if (!op_call(p, &y, upsample, &args) || !x.node) return y;
    struct tensor *s = tape_note(p, &y, upsample_undo, sizeof(*s));
    if (s) *s = x;
    return y;
}

struct transpose_saved {
    struct tensor x;
    int64_t n, a, b; /* of the forward */
};

static void transpose_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct transpose_saved *s = saved;
    struct tensor back = pass_tensor_like(p, s->x);
    struct transpose_args args = {back.data, dy.data, s->n, s->b, s->a, dy.dtype};
    if (!back.data || !op_call(p, NULL, transpose, &args)) return;
    tape_add(p, s->x, back, 1);
}

/* Into y where it has data. */
static struct tensor transposed(struct pass *p, const char *op, struct tensor x, struct tensor y,
                                int64_t a, int64_t b)
{
    if (!op_check_dtype(p, op, x, x)) return y;
    if (x.rank != 4) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, op, "%s is no batch of images", tensor_describe(x, text));
        return y;
    }
    if (!y.data && !op_fresh(p, op, &y)) return y;
    struct transpose_args args = {y.data, x.data, x.dim[0], a, b, x.dtype};
    if (!op_call(p, &y, transpose, &args) || !x.node) return y;
    struct transpose_saved *s = tape_note(p, &y, transpose_undo, sizeof(*s));
    if (s) *s = (struct transpose_saved){x, x.dim[0], a, b};
    return y;
}

struct tensor op_to_channels_last(struct pass *p, struct tensor x)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[2], x.dim[3], x.dim[1]));
    return transposed(p, "to_channels_last", x, y, x.dim[1], x.dim[2] * x.dim[3]);
}

struct tensor op_to_channels_first(struct pass *p, struct tensor x)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[3], x.dim[1], x.dim[2]));
    return transposed(p, "to_channels_first", x, y, x.dim[1] * x.dim[2], x.dim[3]);
}

void op_to_channels_first_into(struct pass *p, struct tensor *y, struct tensor x)
{
    struct tensor shape = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4)
        shape = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[3], x.dim[1], x.dim[2]));
    if (op_into(p, "to_channels_first", y, shape, (struct tensor){0}))
        *y = transposed(p, "to_channels_first", x, *y, x.dim[1] * x.dim[2], x.dim[3]);
}
