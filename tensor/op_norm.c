/* Group norm (with SiLU) and layer norm. */
#include "kernels/real.h"
#include "tensor/op.h"

struct norm_saved {
    struct tensor x;
    struct weight *gamma, *beta;
    void *mean, *rstd;
    int64_t groups; /* 0: layer norm */
    double eps;
    enum activation act;
};

/* Both vectors in one dtype: a checkpoint that mixes them has the second converted. */
static bool norm_vectors(struct pass *p, const char *op, struct weight *gamma, struct weight *beta,
                         int64_t count, struct op_vector v[2])
{
    if (!op_vector(p, op, gamma, count, &v[0]) || !op_vector(p, op, beta, count, &v[1]))
        return false;
    if (!v[0].data || !v[1].data || v[0].dtype == v[1].dtype) {
        if (!v[0].data) v[0].dtype = v[1].dtype;
        return true;
    }
    struct copy_args args = {.x = v[1].data,
                             .rows = 1,
                             .cols = count,
                             .ldx = count,
                             .ldy = count,
                             .x_dtype = v[1].dtype,
                             .y_dtype = v[0].dtype};
    args.y = pass_bytes(p, (size_t)count * dtype_bytes(v[0].dtype));
    v[1] = (struct op_vector){args.y, v[0].dtype};
    return args.y && op_call(p, NULL, copy, &args);
}

bool op_norm_vectors(struct pass *p, const char *op, struct weight *gamma, struct weight *beta,
                     int64_t count, const void **gamma_data, const void **beta_data,
                     enum dtype *dtype)
{
    struct op_vector v[2];
    if (!norm_vectors(p, op, gamma, beta, count, v)) return false;
    *gamma_data = v[0].data;
    *beta_data = v[1].data;
    *dtype = v[0].dtype;
    return true;
}

bool op_norm_check(struct pass *p, const char *op, struct tensor x, struct weight *gamma,
                   int64_t groups, enum activation act)
{
    if (x.rank < 2 || groups < 1 || tensor_last(x) % groups != 0) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, op, "%s: the channels of %s do not divide into %lld groups",
                  op_weight_name(gamma), tensor_describe(x, text), (long long)groups);
        return false;
    }
    if (act == ACT_NONE || act == ACT_SILU) return true;
    pass_fail(p, ERR_UNSUPPORTED, op, "only SiLU can follow it");
    return false;
}

static bool group_norm_args_of(struct pass *p, struct group_norm_args *a,
                               const struct norm_saved *s)
{
    struct op_vector v[2];
    struct tensor x = s->x;
    int64_t c = tensor_last(x);
    if (!norm_vectors(p, "group_norm", s->gamma, s->beta, c, v)) return false;
    *a = (struct group_norm_args){.x = x.data,
                                  .gamma = v[0].data,
                                  .beta = v[1].data,
                                  .mean = s->mean,
                                  .rstd = s->rstd,
                                  .n = x.dim[0],
                                  .rows = tensor_rows(x) / x.dim[0],
                                  .c = c,
                                  .groups = s->groups,
                                  .eps = s->eps,
                                  .act = s->act,
                                  .dtype = x.dtype,
                                  .weight_dtype = v[0].dtype};
    return true;
}

static bool layer_norm_args_of(struct pass *p, struct layer_norm_args *a,
                               const struct norm_saved *s)
{
    struct op_vector v[2];
    struct tensor x = s->x;
    if (!norm_vectors(p, "layer_norm", s->gamma, s->beta, tensor_last(x), v)) return false;
    *a = (struct layer_norm_args){.x = x.data,
                                  .gamma = v[0].data,
                                  .beta = v[1].data,
                                  .mean = s->mean,
                                  .rstd = s->rstd,
                                  .rows = tensor_rows(x),
                                  .d = tensor_last(x),
                                  .eps = s->eps,
                                  .dtype = x.dtype,
                                  .weight_dtype = v[0].dtype};
    return true;
}

static void group_norm_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct norm_saved *s = saved;
    struct group_norm_grad_args g = {.dy = dy.data};
    if (!group_norm_args_of(p, &g.forward, s)) return;
    g.dx = tape_grad(p, s->x, &g.accumulate).data;
    g.dgamma = tape_weight_grad(p, s->gamma);
    g.dbeta = tape_weight_grad(p, s->beta);
    op_call(p, NULL, group_norm_grad, &g);
}

static void layer_norm_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct norm_saved *s = saved;
    struct layer_norm_grad_args g = {.dy = dy.data};
    if (!layer_norm_args_of(p, &g.forward, s)) return;
    g.dx = tape_grad(p, s->x, &g.accumulate).data;
    g.dgamma = tape_weight_grad(p, s->gamma);
    g.dbeta = tape_weight_grad(p, s->beta);
    op_call(p, NULL, layer_norm_grad, &g);
}

static bool norm_needs_tape(const struct norm_saved *s)
{
    return s->x.node || weight_trains(s->gamma) || weight_trains(s->beta);
}

/* Statistics are kept only where a tape will read them. */
static bool norm_statistics(struct pass *p, struct norm_saved *s, int64_t count)
{
    if (!tape_records(p) || !norm_needs_tape(s)) return true;
    s->mean = pass_bytes(p, (size_t)count * sizeof(real));
    s->rstd = pass_bytes(p, (size_t)count * sizeof(real));
    return s->mean && s->rstd;
}

static void norm_note(struct pass *p, struct tensor *y, tape_undo undo, const struct norm_saved *s)
{
    if (!norm_needs_tape(s)) return;
    struct norm_saved *room = tape_note(p, y, undo, sizeof(*room));
    if (room) *room = *s;
}

static struct tensor group_norm(struct pass *p, struct tensor x, struct weight *gamma,
                                struct weight *beta, int64_t groups, double eps,
                                enum activation act, bool over)
{
    struct tensor y = over ? x : op_shape(x.dtype, x.rank, x.dim);
    struct norm_saved s = {
        .x = x, .gamma = gamma, .beta = beta, .groups = groups, .eps = eps, .act = act};
    if (!op_check_dtype(p, "group_norm", x, x)) return y;
    if (!op_norm_check(p, "group_norm", x, gamma, groups, act)) return y;
    struct group_norm_args args;
    if (over ? !op_into(p, "group_norm", &y, x, x) : !op_fresh(p, "group_norm", &y)) return y;
    if (!norm_statistics(p, &s, x.dim[0] * groups) || !group_norm_args_of(p, &args, &s)) {
        y.data = NULL;
        return y;
    }
    args.y = y.data;
    if (op_call(p, &y, group_norm, &args)) norm_note(p, &y, group_norm_undo, &s);
    return y;
}

struct tensor op_group_norm(struct pass *p, struct tensor x, struct weight *gamma,
                            struct weight *beta, int64_t groups, double eps, enum activation act)
{
    return group_norm(p, x, gamma, beta, groups, eps, act, false);
}

struct tensor op_group_norm_over(struct pass *p, struct tensor x, struct weight *gamma,
                                 struct weight *beta, int64_t groups, double eps,
                                 enum activation act)
{
    return group_norm(p, x, gamma, beta, groups, eps, act, true);
}

struct tensor op_layer_norm(struct pass *p, struct tensor x, struct weight *gamma,
                            struct weight *beta, double eps)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    struct norm_saved s = {.x = x, .gamma = gamma, .beta = beta, .eps = eps};
    struct layer_norm_args args;
    if (!op_check_dtype(p, "layer_norm", x, x) || !op_fresh(p, "layer_norm", &y)) return y;
    if (!norm_statistics(p, &s, tensor_rows(x)) || !layer_norm_args_of(p, &args, &s)) {
        y.data = NULL;
        return y;
    }
    args.y = y.data;
    if (op_call(p, &y, layer_norm, &args)) norm_note(p, &y, layer_norm_undo, &s);
    return y;
}
