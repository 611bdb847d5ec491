#include <math.h>

#include "kernels/real.h"
#include "tensor/op.h"

struct attention_saved {
    struct tensor q, k, v, y;
    void *lse;
    int64_t heads;
    bool causal;
};

static struct attention_args attention_args_of(const struct attention_saved *s)
{
    int64_t width = tensor_last(s->q), d = width / s->heads;
    return (struct attention_args){.y = s->y.data,
                                   .q = s->q.data,
                                   .k = s->k.data,
                                   .v = s->v.data,
                                   .lse = s->lse,
                                   .n = s->q.dim[0],
                                   .heads = s->heads,
                                   .lq = s->q.dim[1],
                                   .lk = s->k.dim[1],
                                   .d = d,
                                   .ldq = width,
                                   .ldk = width,
                                   .ldv = width,
                                   .ldy = width,
                                   .scale = 1 / sqrt((double)d),
                                   .causal = s->causal,
                                   .dtype = s->q.dtype};
}

/* The kernel has one accumulate flag for three results that may not overlap: what is first touched is
 * zeroed where another holds values; what nobody wants, and the second and third gradient of one tensor
 * that serves twice, go to scratch. */
static void attention_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct attention_saved *s = saved;
    const struct tensor input[3] = {s->q, s->k, s->v};
    struct tensor grad[3];
    bool old[3] = {false}, again[3] = {false}, any_old = false;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < i; j++)
            again[i] = again[i] || (input[i].node && input[i].node == input[j].node);
        if (input[i].node && !again[i])
            grad[i] = tape_grad(p, input[i], &old[i]);
        else
            grad[i] = pass_tensor_like(p, input[i]);
        any_old = any_old || old[i];
    }
    for (int i = 0; any_old && i < 3; i++) {
        if (!old[i] && !p->failed) op_zero(p, grad[i].data, tensor_bytes(grad[i]));
    }
    struct attention_grad_args args = {.forward = attention_args_of(s),
                                       .dy = dy.data,
                                       .dq = grad[0].data,
                                       .dk = grad[1].data,
                                       .dv = grad[2].data,
                                       .accumulate = any_old};
    if (!op_call(p, NULL, attention_grad, &args)) return;
    for (int i = 0; i < 3; i++) {
        if (again[i]) tape_add(p, input[i], grad[i], 1);
    }
}

static bool attention_check(struct pass *p, const struct attention_saved *s)
{
    if (!op_check_dtype(p, "attention", s->q, s->k) ||
        !op_check_dtype(p, "attention", s->k, s->v)) {
        return false;
    }
    if (s->q.rank != 3 || s->k.rank != 3 || s->q.dim[0] != s->k.dim[0] ||
        s->q.dim[2] != s->k.dim[2]) {
        return op_fail_shapes(p, "attention", "queries %s do not fit keys %s", s->q, s->k);
    }
    if (!tensor_same_shape(s->k, s->v)) {
        return op_fail_shapes(p, "attention", "keys %s do not fit values %s", s->k, s->v);
    }
    if (s->heads >= 1 && s->q.dim[2] % s->heads == 0) return true;
    char text[OP_TEXT_BYTES];
    pass_fail(p, ERR_INVALID, "attention", "the width of %s does not divide into %lld heads",
              tensor_describe(s->q, text), (long long)s->heads);
    return false;
}

struct tensor op_attention(struct pass *p, struct tensor q, struct tensor k, struct tensor v,
                           int64_t heads, bool causal)
{
    struct attention_saved s = {.q = q, .k = k, .v = v, .heads = heads, .causal = causal};
    struct tensor y = op_shape(q.dtype, q.rank, q.dim);
    bool needs_tape = q.node || k.node || v.node;
    if (!attention_check(p, &s) || !op_fresh(p, "attention", &y)) return y;
    if (needs_tape && p->tape) { /* in a checkpoint's first run too: both runs take one path */
        s.lse = pass_bytes(p, (size_t)(q.dim[0] * heads * q.dim[1]) * sizeof(real));
        if (!s.lse) y.data = NULL;
    }
    s.y = y;
    struct attention_args args = attention_args_of(&s);
    if (!op_call(p, &y, attention, &args) || !needs_tape) return y;
    struct attention_saved *room = tape_note(p, &y, attention_undo, sizeof(*room));
    if (room) *room = s;
    return y;
}

struct tensor op_attention_joined(struct pass *p, struct tensor qkv, int64_t heads, bool causal)
{
    int64_t width = tensor_last(qkv) / 3, d = heads > 0 ? width / heads : 0;
    struct tensor y = op_shape_last(qkv, width);
    if (!op_check_dtype(p, "attention", qkv, qkv)) return y;
    if (qkv.rank != 3 || d < 1 || d * heads * 3 != tensor_last(qkv) || p->tape) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, "attention", "%s is no q, k and v of %lld heads",
                  tensor_describe(qkv, text), (long long)heads);
        return y;
    }
    if (!op_fresh(p, "attention", &y)) return y;
    size_t bytes = (size_t)width * dtype_bytes(qkv.dtype);
    struct attention_args args = {.y = y.data,
                                  .q = qkv.data,
                                  .k = (char *)qkv.data + bytes,
                                  .v = (char *)qkv.data + 2 * bytes,
                                  .n = qkv.dim[0],
                                  .heads = heads,
                                  .lq = qkv.dim[1],
                                  .lk = qkv.dim[1],
                                  .d = d,
                                  .ldq = 3 * width,
                                  .ldk = 3 * width,
                                  .ldv = 3 * width,
                                  .ldy = width,
                                  .scale = 1 / sqrt((double)d),
                                  .causal = causal,
                                  .dtype = qkv.dtype};
    op_call(p, &y, attention, &args);
    return y;
}
