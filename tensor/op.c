#include "tensor/op.h"

#include <stdio.h>
#include <string.h>

struct tensor op_shape(enum dtype dtype, int rank, const int64_t *dim)
{
    struct tensor t = {.dtype = dtype, .rank = rank};
    memcpy(t.dim, dim, (size_t)rank * sizeof(dim[0]));
    return t;
}

struct tensor op_shape_last(struct tensor like, int64_t last)
{
    struct tensor t = op_shape(like.dtype, like.rank, like.dim);
    if (t.rank) t.dim[t.rank - 1] = last;
    return t;
}

bool op_fresh(struct pass *p, const char *op, struct tensor *y)
{
    y->data = NULL;
    y->node = 0;
    if (!pass_ok(p)) return false;
    *y = pass_tensor(p, y->dtype, y->rank, y->dim);
    return y->data != NULL;
}

bool op_into(struct pass *p, const char *op, struct tensor *y, struct tensor shape,
             struct tensor alias)
{
    if (!pass_ok(p)) {
        y->data = NULL;
        return false;
    }
    if (!tensor_same_shape(*y, shape) || y->dtype != shape.dtype) {
        op_fail_shapes(p, op, "the result %s does not fit the memory given for it, %s", shape, *y);
        y->data = NULL;
        return false;
    }
    if (p->tape && alias.data && alias.data == y->data) return op_fresh(p, op, y);
    y->node = 0;
    return true;
}

bool op_fail_shapes(struct pass *p, const char *op, const char *what, struct tensor a,
                    struct tensor b)
{
    char first[OP_TEXT_BYTES], second[OP_TEXT_BYTES];
    tensor_describe(a, first);
    tensor_describe(b, second);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    pass_fail(p, ERR_INVALID, op, what, first, second);
#pragma GCC diagnostic pop
    return false;
}

bool op_check_dtype(struct pass *p, const char *op, struct tensor a, struct tensor b)
{
    if (!pass_ok(p)) return false;
    if (!a.data || !b.data) {
        pass_fail(p, ERR_INTERNAL, op, "an input has no data, though nothing failed before");
        return false;
    }
    if (a.dtype == b.dtype) return true;
    return op_fail_shapes(p, op, "%s and %s have different element types", a, b);
}

const char *op_weight_name(const struct weight *w)
{
    return w && w->name ? w->name : "a weight without name";
}

struct tensor op_weight_shape(const struct weight *w)
{
    struct tensor t = {.dtype = w->k.dtype, .rank = w->k.rank};
    memcpy(t.dim, w->k.dim, sizeof(t.dim));
    return t;
}

bool op_require(struct pass *p, const char *op, const struct weight *w, const char *role)
{
    if (!pass_ok(p)) return false;
    if (weight_present(w)) return true;
    pass_fail(p, ERR_INVALID, op, "the %s is absent from the model", role);
    return false;
}

bool op_vector(struct pass *p, const char *op, struct weight *w, int64_t count, struct op_vector *v)
{
    *v = (struct op_vector){NULL, p->dtype};
    if (!pass_ok(p)) return false;
    if (!weight_present(w)) return true;
    if (weight_count(w) != count) {
        char text[OP_TEXT_BYTES];
        pass_fail(p, ERR_INVALID, op, "%s %s should have %lld elements", op_weight_name(w),
                  tensor_describe(op_weight_shape(w), text), (long long)count);
        return false;
    }
    if (!p->device->host_memory && !w->k.changes) {
        struct error err;
        int rc = p->kernels->pack(p->device, &w->k, p->dtype, &err);
        if (!op_done(p, op, rc, &err, NULL)) return false;
    }
    *v = (struct op_vector){kernel_weight_vector(&w->k), w->k.dtype};
    return true;
}

bool op_done(struct pass *p, const char *op, int rc, const struct error *err, struct tensor *y)
{
    if (!rc) return true;
    pass_fail(p, rc, op, "%s", err->text);
    if (y) y->data = NULL;
    return false;
}

bool op_lacks(struct pass *p, const char *op, struct tensor *y)
{
    pass_fail(p, ERR_UNSUPPORTED, op, "the %s back end has no such kernel", p->kernels->name);
    if (y) y->data = NULL;
    return false;
}

bool op_zero(struct pass *p, void *memory, size_t bytes)
{
    struct error err;
    if (p->failed) return false;
    return op_done(p, "zero", p->kernels->zero(p->device, memory, bytes, &err), &err, NULL);
}

void op_column_sum(struct pass *p, void *sum, enum dtype sum_dtype, struct tensor x, int64_t groups,
                   int64_t cols)
{
    struct column_sum_args args = {.sum = sum, .x = x.data, .groups = groups, .cols = cols};
    args.rows = tensor_count(x) / (groups * cols);
    args.dtype = x.dtype;
    args.sum_dtype = sum_dtype;
    op_call(p, NULL, column_sum, &args);
}
