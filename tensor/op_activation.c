/* Elementwise functions, and the gated one. */
#include "tensor/op.h"

struct activation_saved {
    struct tensor x;
    enum activation act;
};

static void activation_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct activation_saved *s = saved;
    struct activation_args args = {
        .x = s->x.data, .dy = dy.data, .count = tensor_count(dy), .act = s->act, .dtype = dy.dtype};
    args.dx = tape_grad(p, s->x, &args.accumulate).data;
    op_call(p, NULL, activation_grad, &args);
}

struct tensor op_activation(struct pass *p, struct tensor x, enum activation act)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (!op_check_dtype(p, "activation", x, x) || !op_fresh(p, "activation", &y)) return y;
    struct activation_args args = {
        .y = y.data, .x = x.data, .count = tensor_count(x), .act = act, .dtype = x.dtype};
    if (!op_call(p, &y, activation, &args) || !x.node) return y;
    struct activation_saved *s = tape_note(p, &y, activation_undo, sizeof(*s));
    if (s) *s = (struct activation_saved){x, act};
    return y;
}

void op_activate(struct pass *p, struct tensor *x, enum activation act)
{
    struct tensor y = *x;
    if (p->tape) {
        *x = op_activation(p, *x, act);
        return;
    }
    if (!op_check_dtype(p, "activation", y, y)) return;
    struct activation_args args = {
        .y = y.data, .x = y.data, .count = tensor_count(y), .act = act, .dtype = y.dtype};
    op_call(p, x, activation, &args);
}

static void geglu_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct tensor *x = saved;
    struct geglu_args args = {.x = x->data,
                              .dy = dy.data,
                              .rows = tensor_rows(dy),
                              .d = tensor_last(dy),
                              .dtype = dy.dtype};
    args.dx = tape_grad(p, *x, &args.accumulate).data;
    op_call(p, NULL, geglu_grad, &args);
}

static struct tensor geglu_composed(struct pass *p, struct tensor x)
{
    int64_t d = tensor_last(x) / 2;
    struct tensor gate = op_activation(p, op_slice(p, x, d, d), ACT_GELU);
    return op_mul(p, op_slice(p, x, 0, d), gate);
}

struct tensor op_geglu(struct pass *p, struct tensor x)
{
    struct tensor y = op_shape_last(x, tensor_last(x) / 2);
    if (!op_check_dtype(p, "geglu", x, x)) return y;
    if (x.rank < 1 || tensor_last(x) % 2 != 0) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, "geglu", "the last dimension of %s is not even",
                  tensor_describe(x, text));
        return y;
    }
    if (!p->kernels->geglu) return geglu_composed(p, x);
    if (!op_fresh(p, "geglu", &y)) return y;
    struct geglu_args args = {
        .y = y.data, .x = x.data, .rows = tensor_rows(x), .d = tensor_last(y), .dtype = x.dtype};
    if (!op_call(p, &y, geglu, &args) || !x.node) return y;
    struct tensor *s = tape_note(p, &y, geglu_undo, sizeof(*s));
    if (s) *s = x;
    return y;
}
