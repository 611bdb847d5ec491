#include "kernels/real.h"
#include "tensor/op.h"

struct mse_saved {
    struct tensor y, target, weight;
};

static struct mse_args mse_args_of(const struct mse_saved *s)
{
    return (struct mse_args){.y = s->y.data,
                             .target = s->target.data,
                             .weight = s->weight.rank ? s->weight.data : NULL,
                             .count = tensor_count(s->y),
                             .scale = 1,
                             .dtype = s->y.dtype};
}

/* The kernel writes; a gradient that is there already is added to. */
static void mse_undo(struct pass *p, const void *saved, struct tensor dloss)
{
    const struct mse_saved *s = saved;
    struct mse_args args = mse_args_of(s);
    bool accumulate;
    struct tensor dy = tape_grad(p, s->y, &accumulate);
    struct tensor fresh = accumulate ? pass_tensor_like(p, s->y) : dy;
    args.scale = tape_scalar(p, dloss);
    args.dy = fresh.data;
    if (fresh.data && op_call(p, NULL, mse_grad, &args) && accumulate) tape_add(p, s->y, fresh, 1);
}

static bool mse_check(struct pass *p, const struct mse_saved *s)
{
    if (!op_check_dtype(p, "mse", s->y, s->target)) return false;
    if (!tensor_same_shape(s->y, s->target)) {
        return op_fail_shapes(p, "mse", "the prediction %s and the target %s differ in shape", s->y,
                              s->target);
    }
    if (!s->weight.rank) return true;
    if (tensor_count(s->weight) == tensor_count(s->y) && s->weight.dtype == DTYPE_REAL) return true;
    return op_fail_shapes(p, "mse", "the weights %s do not fit the prediction %s", s->weight, s->y);
}

struct tensor op_mse(struct pass *p, struct tensor y, struct tensor target, struct tensor weight)
{
    struct tensor loss = {.dtype = DTYPE_REAL};
    struct mse_saved s = {y, target, weight};
    if (!mse_check(p, &s)) return loss;
    if (p->tape)
        tape_keep(p, &loss); /* read after the walk back */
    else
        op_fresh(p, "mse", &loss);
    struct mse_args args = mse_args_of(&s);
    args.loss = loss.data;
    if (!op_call(p, &loss, mse, &args) || !y.node) return loss;
    struct mse_saved *room = tape_note(p, &loss, mse_undo, sizeof(*room));
    if (room) *room = s;
    return loss;
}
