#include "kernels/real.h"
#include "tensor/op.h"

bool op_fuse_args(struct pass *p, const char *op, struct epilogue_args *e, const struct op_fuse *f,
                  struct tensor y)
{
    int64_t out = tensor_last(y), rows = tensor_rows(y);
    struct op_vector bias;
    if (!op_vector(p, op, f->bias, out, &bias)) return false;
    *e = (struct epilogue_args){.bias = bias.data, .bias_dtype = bias.dtype, .act = f->fuse.act};
    if (f->fuse.row.rank) {
        struct tensor row = f->fuse.row;
        int64_t images = tensor_last(row) == out ? tensor_rows(row) : 0;
        if (images <= 0 || rows % images != 0) {
            return op_fail_shapes(p, op, "the row %s does not fit the result %s", row, y);
        }
        if (!op_check_dtype(p, op, row, y)) return false;
        e->row = row.data;
        e->rows_per_image = rows / images;
    }
    if (f->fuse.add.rank) {
        if (tensor_count(f->fuse.add) != tensor_count(y) || tensor_last(f->fuse.add) != out) {
            return op_fail_shapes(p, op, "what is added, %s, does not fit the result %s",
                                  f->fuse.add, y);
        }
        if (!op_check_dtype(p, op, f->fuse.add, y)) return false;
        e->add = f->fuse.add.data;
    }
    return true;
}

bool op_fuse_needs_tape(const struct op_fuse *f)
{
    return (f->fuse.row.rank && f->fuse.row.node) || (f->fuse.add.rank && f->fuse.add.node) ||
           weight_trains(f->bias);
}

struct tensor op_fuse_undo_act(struct pass *p, const struct op_fuse *f, struct tensor pre,
                               struct tensor dy)
{
    if (f->fuse.act == ACT_NONE) return dy;
    struct tensor dz = pass_tensor_like(p, dy);
    struct activation_args args = {.x = pre.data,
                                   .dy = dy.data,
                                   .dx = dz.data,
                                   .count = tensor_count(dy),
                                   .act = f->fuse.act,
                                   .dtype = dy.dtype};
    op_call(p, &dz, activation_grad, &args);
    return dz;
}

void op_fuse_undo(struct pass *p, const struct op_fuse *f, struct tensor dz, struct tensor dy)
{
    int64_t out = tensor_last(dy);
    void *dbias = tape_weight_grad(p, f->bias);
    if (dbias) op_column_sum(p, dbias, DTYPE_REAL, dz, 1, out);
    if (f->fuse.row.rank) {
        bool accumulate;
        struct tensor drow = tape_grad(p, f->fuse.row, &accumulate);
        if (drow.data && !accumulate) op_zero(p, drow.data, tensor_bytes(drow));
        if (drow.data) op_column_sum(p, drow.data, drow.dtype, dz, tensor_rows(drow), out);
    }
    if (f->fuse.add.rank) tape_add(p, f->fuse.add, dy, 1);
}
