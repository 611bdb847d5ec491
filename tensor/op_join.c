/* Concat, slice and repeat, along the last axis, rows and images. All of them move blocks: the axes
 * before the joined one are `outer`, the joined one and those after it a block of `inner`. */
#include "tensor/op.h"

struct join_saved {
    struct tensor part[2];
    int64_t outer, from, times;
};

static int64_t outer_of(struct tensor t, int axis)
{
    int64_t outer = 1;
    for (int i = 0; i < axis && i < t.rank; i++) outer *= t.dim[i];
    return outer;
}

static char *element(struct tensor t, int64_t index)
{
    return (char *)t.data + (size_t)index * dtype_bytes(t.dtype);
}

/* The block of `small` at `from` in each block of `large`: into large, or out of it. */
static bool move_blocks(struct pass *p, struct tensor large, struct tensor small, int64_t outer,
                        int64_t from, bool into_large, bool accumulate)
{
    int64_t ld_large = tensor_count(large) / outer, ld_small = tensor_count(small) / outer;
    char *inside = element(large, from);
    struct copy_args args = {.y = into_large ? inside : small.data,
                             .x = into_large ? small.data : inside,
                             .rows = outer,
                             .cols = ld_small,
                             .ldy = into_large ? ld_large : ld_small,
                             .ldx = into_large ? ld_small : ld_large,
                             .y_dtype = large.dtype,
                             .x_dtype = large.dtype,
                             .accumulate = accumulate};
    return op_call(p, NULL, copy, &args);
}

static void concat_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct join_saved *s = saved;
    int64_t from = 0;
    for (int i = 0; i < 2; i++) {
        bool accumulate;
        struct tensor grad = tape_grad(p, s->part[i], &accumulate);
        if (grad.data) move_blocks(p, dy, grad, s->outer, from, false, accumulate);
        from += tensor_count(s->part[i]) / s->outer;
    }
}

static struct tensor concat(struct pass *p, const char *op, struct tensor a, struct tensor b,
                            int axis)
{
    struct tensor y = op_shape(a.dtype, a.rank, a.dim), match = b;
    bool fits = a.rank == b.rank && axis >= 0 && axis < a.rank;
    if (fits) {
        y.dim[axis] += b.dim[axis];
        match.dim[axis] = a.dim[axis];
    }
    if (!op_check_dtype(p, op, a, b)) return y;
    if (!fits || !tensor_same_shape(a, match)) {
        op_fail_shapes(p, op, "%s and %s cannot be joined", a, b);
        return y;
    }
    if (!op_fresh(p, op, &y)) return y;
    int64_t outer = outer_of(a, axis);
    if (!move_blocks(p, y, a, outer, 0, true, false) ||
        !move_blocks(p, y, b, outer, tensor_count(a) / outer, true, false)) {
        y.data = NULL;
        return y;
    }
    if (!a.node && !b.node) return y;
    struct join_saved *s = tape_note(p, &y, concat_undo, sizeof(*s));
    if (s) *s = (struct join_saved){.part = {a, b}, .outer = outer};
    return y;
}

struct tensor op_concat(struct pass *p, struct tensor a, struct tensor b)
{
    return concat(p, "concat", a, b, a.rank - 1);
}
struct tensor op_concat_rows(struct pass *p, struct tensor a, struct tensor b)
{
    return concat(p, "concat_rows", a, b, 1);
}
struct tensor op_concat_batch(struct pass *p, struct tensor a, struct tensor b)
{
    return concat(p, "concat_batch", a, b, 0);
}

static void slice_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct join_saved *s = saved;
    bool accumulate;
    struct tensor grad = tape_grad(p, s->part[0], &accumulate);
    if (!grad.data) return;
    if (!accumulate) op_zero(p, grad.data, tensor_bytes(grad));
    move_blocks(p, grad, dy, s->outer, s->from, true, true);
}

static struct tensor slice(struct pass *p, const char *op, struct tensor x, int axis, int64_t from,
                           int64_t count)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    bool fits = axis >= 0 && axis < x.rank && from >= 0 && count > 0 && count <= x.dim[axis] &&
                from <= x.dim[axis] - count;
    if (axis >= 0 && axis < x.rank) y.dim[axis] = count;
    if (!op_check_dtype(p, op, x, x)) return y;
    if (!fits) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, op, "%s has no %lld elements from %lld on along axis %d",
                  tensor_describe(x, text), (long long)count, (long long)from, axis);
        return y;
    }
    if (!op_fresh(p, op, &y)) return y;
    int64_t outer = outer_of(x, axis), start = from * (tensor_count(x) / outer / x.dim[axis]);
    if (!move_blocks(p, x, y, outer, start, false, false)) {
        y.data = NULL;
        return y;
    }
    if (!x.node) return y;
    struct join_saved *s = tape_note(p, &y, slice_undo, sizeof(*s));
    if (s) *s = (struct join_saved){.part = {x}, .outer = outer, .from = start};
    return y;
}

struct tensor op_slice(struct pass *p, struct tensor x, int64_t from, int64_t count)
{
    return slice(p, "slice", x, x.rank - 1, from, count);
}
struct tensor op_slice_rows(struct pass *p, struct tensor x, int64_t from, int64_t count)
{
    return slice(p, "slice_rows", x, 1, from, count);
}
struct tensor op_slice_batch(struct pass *p, struct tensor x, int64_t from, int64_t count)
{
    return slice(p, "slice_batch", x, 0, from, count);
}

static void repeat_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct join_saved *s = saved;
    bool accumulate;
    struct tensor grad = tape_grad(p, s->part[0], &accumulate);
    for (int64_t i = 0; grad.data && i < s->times; i++) {
        move_blocks(p, dy, grad, 1, i * tensor_count(grad), false, accumulate || i > 0);
    }
}

struct tensor op_repeat_batch(struct pass *p, struct tensor x, int64_t times)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (y.rank) y.dim[0] *= times;
    if (!op_check_dtype(p, "repeat_batch", x, x)) return y;
    if (!x.rank || times < 1) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, "repeat_batch", "%s cannot be repeated %lld times",
                  tensor_describe(x, text), (long long)times);
        return y;
    }
    if (!op_fresh(p, "repeat_batch", &y)) return y;
    for (int64_t i = 0; i < times; i++) {
        if (move_blocks(p, y, x, 1, i * tensor_count(x), true, false)) continue;
        y.data = NULL;
        return y;
    }
    if (!x.node) return y;
    struct join_saved *s = tape_note(p, &y, repeat_undo, sizeof(*s));
    if (s) *s = (struct join_saved){.part = {x}, .times = times};
    return y;
}
