/* y = act(x w^T + b + row) + add */
#include "kernels/real.h"
#include "tensor/op.h"

struct linear_saved {
    struct tensor x;
    struct weight *w;
    struct op_fuse fuse;
};

static struct tensor linear_shape(struct tensor x, const struct weight *w)
{
    return op_shape_last(x, weight_present(w) && w->k.rank >= 2 ? w->k.dim[0] : tensor_last(x));
}

static bool linear_check(struct pass *p, struct tensor x, struct weight *w)
{
    if (!op_require(p, "linear", w, "weight of a linear layer")) return false;
    if (!op_check_dtype(p, "linear", x, x)) return false;
    bool matrix = w->k.rank == 2 || (w->k.rank == 4 && w->k.dim[2] == 1 && w->k.dim[3] == 1);
    if (matrix && x.rank && w->k.dim[1] == tensor_last(x)) return true;
    char first[OP_TEXT_BYTES], second[OP_TEXT_BYTES];
    pass_fail(p, ERR_INVALID, "linear", "x %s does not fit %s %s", tensor_describe(x, first),
              op_weight_name(w), tensor_describe(op_weight_shape(w), second));
    return false;
}

static bool linear_run(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                       const struct op_fuse *f)
{
    struct linear_args args = {.y = y->data, .x = x.data, .w = &w->k, .dtype = x.dtype};
    args.m = tensor_rows(x);
    args.k = args.ldx = tensor_last(x);
    args.out = args.ldy = tensor_last(*y);
    if (!op_fuse_args(p, "linear", &args.epilogue, f, *y)) {
        y->data = NULL;
        return false;
    }
    return op_call(p, y, linear, &args);
}

static void linear_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct linear_saved *s = saved;
    struct tensor x = s->x, pre = {0};
    if (s->fuse.fuse.act != ACT_NONE) {
        /* Computed again rather than kept: the fused kernel never stored it. */
        struct op_fuse before = {.fuse = {.row = s->fuse.fuse.row}, .bias = s->fuse.bias};
        pre = pass_tensor_like(p, dy);
        if (!pre.data || !linear_run(p, &pre, x, s->w, &before)) return;
    }
    struct tensor dz = op_fuse_undo_act(p, &s->fuse, pre, dy);
    int64_t m = tensor_rows(x), k = tensor_last(x), out = tensor_last(dy);
    bool accumulate;
    struct tensor dx = tape_grad(p, x, &accumulate);
    if (dx.data) {
        struct linear_dx_args args = {dx.data, dz.data, &s->w->k, m,       k,
                                      out,     k,       out,      x.dtype, accumulate};
        op_call(p, NULL, linear_dx, &args);
    }
    void *dw = tape_weight_grad(p, s->w);
    if (dw) {
        struct linear_dw_args args = {dw, dz.data, x.data, m, k, out, k, out, x.dtype};
        op_call(p, NULL, linear_dw, &args);
    }
    op_fuse_undo(p, &s->fuse, dz, dy);
}

static void linear_finish(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                          const struct op_fuse *f)
{
    if (!linear_run(p, y, x, w, f)) return;
    if (!x.node && !weight_trains(w) && !op_fuse_needs_tape(f)) return;
    struct linear_saved *s = tape_note(p, y, linear_undo, sizeof(*s));
    if (s) *s = (struct linear_saved){x, w, *f};
}

struct tensor op_linear(struct pass *p, struct tensor x, struct weight *w, struct weight *b,
                        const struct fuse *f)
{
    struct op_fuse fuse = {.fuse = f ? *f : (struct fuse){0}, .bias = b};
    struct tensor y = linear_shape(x, w);
    if (linear_check(p, x, w) && op_fresh(p, "linear", &y)) linear_finish(p, &y, x, w, &fuse);
    return y;
}

void op_linear_into(struct pass *p, struct tensor *y, struct tensor x, struct weight *w,
                    struct weight *b, const struct fuse *f)
{
    struct op_fuse fuse = {.fuse = f ? *f : (struct fuse){0}, .bias = b};
    bool ready = linear_check(p, x, w);
    if (op_into(p, "linear", y, linear_shape(x, w), fuse.fuse.add) && ready) {
        linear_finish(p, y, x, w, &fuse);
    }
}

/* ---- fused forms ---- */

struct tensor op_linear_geglu(struct pass *p, struct tensor x, struct weight *w, struct weight *b)
{
    if (!p->kernels->linear_geglu || p->tape || (weight_present(w) && w->k.dim[0] % 2 != 0))
        return op_geglu(p, op_linear(p, x, w, b, NULL));
    struct tensor wide = linear_shape(x, w), y = op_shape_last(x, tensor_last(wide) / 2);
    struct op_fuse fuse = {.bias = b};
    if (!linear_check(p, x, w) || !op_fresh(p, "linear_geglu", &y)) return y;
    struct linear_args args = {.y = y.data, .x = x.data, .w = &w->k, .dtype = x.dtype};
    args.m = tensor_rows(x);
    args.k = args.ldx = tensor_last(x);
    args.out = tensor_last(wide);
    args.ldy = tensor_last(y);
    if (op_fuse_args(p, "linear_geglu", &args.epilogue, &fuse, wide))
        op_call(p, &y, linear_geglu, &args);
    else
        y.data = NULL;
    return y;
}

bool op_can_join(const struct pass *p, struct weight *const *w, int count)
{
    if (!p->kernels->linear_join || p->tape || count < 1 || count > 3) return false;
    for (int i = 0; i < count; i++) {
        const struct kernel_weight *k = &w[i]->k, *first = &w[0]->k;
        if (!weight_present(w[i]) || k->changes || k->rank != 2 || k->dim[0] != first->dim[0] ||
            k->dim[1] != first->dim[1])
            return false;
    }
    return true;
}

struct tensor op_linear_join(struct pass *p, struct tensor x, struct weight *const *w, int count)
{
    struct tensor one = linear_shape(x, w[0]), y = op_shape_last(x, count * tensor_last(one));
    for (int i = 0; i < count; i++)
        if (!linear_check(p, x, w[i])) return y;
    if (!op_fresh(p, "linear_join", &y)) return y;
    struct linear_join_args args = {.y = y.data, .x = x.data, .count = count, .dtype = x.dtype};
    for (int i = 0; i < count; i++) args.w[i] = &w[i]->k;
    args.m = tensor_rows(x);
    args.k = args.ldx = tensor_last(x);
    args.out = tensor_last(one);
    args.ldy = tensor_last(y);
    op_call(p, &y, linear_join, &args);
    return y;
}
