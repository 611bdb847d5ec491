/* Sums and products. */
#include "tensor/op.h"

struct mix_saved {
    struct tensor a, b;
    double alpha, beta;
};

/* b repeats: its gradient is the sum over the repetitions. */
static void mix_undo_repeated(struct pass *p, const struct mix_saved *s, struct tensor dy)
{
    int64_t count = tensor_count(s->b);
    struct tensor sum = pass_tensor_like(p, s->b);
    if (!s->b.node || !sum.data || !op_zero(p, sum.data, tensor_bytes(sum))) return;
    op_column_sum(p, sum.data, sum.dtype, dy, 1, count);
    tape_add(p, s->b, sum, s->beta);
}

static void mix_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct mix_saved *s = saved;
    if (s->b.node && tensor_count(s->b) != tensor_count(dy))
        mix_undo_repeated(p, s, dy);
    else if (s->b.node && !s->a.node)
        tape_add(p, s->b, dy, s->beta);
    else if (s->b.node) {
        /* Not given away: a still reads it. */
        struct tensor copy = dy;
        bool accumulate;
        struct tensor db = tape_grad(p, s->b, &accumulate);
        struct add_args args = {.y = db.data,
                                .a = accumulate ? db.data : copy.data,
                                .b = accumulate ? copy.data : NULL,
                                .count = tensor_count(dy),
                                .b_count = tensor_count(dy),
                                .alpha = accumulate ? 1 : s->beta,
                                .beta = s->beta,
                                .dtype = dy.dtype};
        op_call(p, NULL, add, &args);
    }
    tape_add(p, s->a, dy, s->alpha);
}

/* b rank 0 without data: y = alpha a */
static void mix_finish(struct pass *p, struct tensor *y, double alpha, struct tensor a, double beta,
                       struct tensor b)
{
    struct add_args args = {.y = y->data,
                            .a = a.data,
                            .b = b.data,
                            .count = tensor_count(a),
                            .b_count = tensor_count(b),
                            .alpha = alpha,
                            .beta = beta,
                            .dtype = a.dtype};
    if (!op_call(p, y, add, &args) || (!a.node && !b.node)) return;
    struct mix_saved *s = tape_note(p, y, mix_undo, sizeof(*s));
    if (s) *s = (struct mix_saved){a, b, alpha, beta};
}

static bool add_check(struct pass *p, const char *op, struct tensor a, struct tensor b)
{
    if (!op_check_dtype(p, op, a, b)) return false;
    if (tensor_same_shape(a, b)) return true;
    return op_fail_shapes(p, op, "%s and %s differ in shape", a, b);
}

struct tensor op_add(struct pass *p, struct tensor a, struct tensor b)
{
    struct tensor y = op_shape(a.dtype, a.rank, a.dim);
    if (add_check(p, "add", a, b) && op_fresh(p, "add", &y)) mix_finish(p, &y, 1, a, 1, b);
    return y;
}

void op_add_into(struct pass *p, struct tensor *y, struct tensor a, struct tensor b)
{
    bool ready = add_check(p, "add", a, b);
    struct tensor shape = op_shape(a.dtype, a.rank, a.dim);
    struct tensor alias = y->data == b.data ? b : a;
    if (op_into(p, "add", y, shape, alias) && ready) mix_finish(p, y, 1, a, 1, b);
}

struct tensor op_mix(struct pass *p, double alpha, struct tensor a, double beta, struct tensor b)
{
    struct tensor y = op_shape(a.dtype, a.rank, a.dim);
    if (!op_check_dtype(p, "mix", a, b)) return y;
    if (tensor_count(a) % tensor_count(b) != 0) {
        op_fail_shapes(p, "mix", "%s is no multiple of %s", a, b);
        return y;
    }
    if (op_fresh(p, "mix", &y)) mix_finish(p, &y, alpha, a, beta, b);
    return y;
}

struct tensor op_scale(struct pass *p, struct tensor x, double factor)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (op_check_dtype(p, "scale", x, x) && op_fresh(p, "scale", &y)) {
        mix_finish(p, &y, factor, x, 0, (struct tensor){0});
    }
    return y;
}

struct mul_saved {
    struct tensor a, b;
};

static void mul_undo_one(struct pass *p, struct tensor to, struct tensor other, struct tensor dy)
{
    struct mul_args args = {
        .a = dy.data, .b = other.data, .count = tensor_count(dy), .dtype = dy.dtype};
    args.y = tape_grad(p, to, &args.accumulate).data;
    if (args.y) op_call(p, NULL, mul, &args);
}

static void mul_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct mul_saved *s = saved;
    mul_undo_one(p, s->a, s->b, dy);
    mul_undo_one(p, s->b, s->a, dy);
}

struct tensor op_mul_row(struct pass *p, struct tensor x, struct tensor row)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (!op_check_dtype(p, "mul", x, row)) return y;
    if (tensor_count(row) != tensor_last(x)) {
        op_fail_shapes(p, "mul", "%s is not scaled by %s", x, row);
        return y;
    }
    if (x.node || row.node) {
        pass_fail(p, ERR_UNSUPPORTED, "mul", "scaling by a row has no derivative");
        return y;
    }
    if (!op_fresh(p, "mul", &y)) return y;
    struct mul_args args = {.y = y.data,
                            .a = x.data,
                            .b = row.data,
                            .count = tensor_count(x),
                            .b_count = tensor_count(row),
                            .dtype = x.dtype};
    op_call(p, &y, mul, &args);
    return y;
}

struct tensor op_mul(struct pass *p, struct tensor a, struct tensor b)
{
    struct tensor y = op_shape(a.dtype, a.rank, a.dim);
    if (!add_check(p, "mul", a, b) || !op_fresh(p, "mul", &y)) return y;
    struct mul_args args = {
        .y = y.data, .a = a.data, .b = b.data, .count = tensor_count(a), .dtype = a.dtype};
    if (!op_call(p, &y, mul, &args) || (!a.node && !b.node)) return y;
    struct mul_saved *s = tape_note(p, &y, mul_undo, sizeof(*s));
    if (s) *s = (struct mul_saved){a, b};
    return y;
}
