/* y = act(conv(silu(group_norm(x))) + b + row) + add, without a map of what is normalised where the back end
 * can; composed otherwise, and under a tape. */
#include "tensor/op.h"

/* Where bands take room of the pass, a norm over its own input takes none. */
static bool fuses(const struct pass *p, struct tensor x, const struct norm_of *n,
                  const struct weight *w, struct conv_shape c)
{
    if (n->over && p->device->band_bytes) return false;
    return p->kernels->norm_conv2d && !p->tape && x.rank == 4 && weight_present(w) &&
           w->k.rank == 4 && w->k.dim[2] == 3 && w->k.dim[3] == 3 && c.stride <= 1 &&
           c.upsample != 2 && c.pad_top == 1 && c.pad_left == 1 && c.pad_bottom == 1 &&
           c.pad_right == 1;
}

static void composed(struct pass *p, struct tensor *y, struct tensor x, const struct norm_of *n,
                     struct weight *w, struct weight *b, struct conv_shape shape,
                     const struct fuse *f)
{
    size_t mark = pass_open_scope(p);
    struct tensor h = n->over
                          ? op_group_norm_over(p, x, n->gamma, n->beta, n->groups, n->eps, n->act)
                          : op_group_norm(p, x, n->gamma, n->beta, n->groups, n->eps, n->act);
    op_conv2d_into(p, y, h, w, b, shape, f);
    pass_close_scope(p, mark);
}

void op_norm_conv_into(struct pass *p, struct tensor *y, struct tensor x, const struct norm_of *n,
                       struct weight *w, struct weight *b, struct conv_shape shape,
                       const struct fuse *f)
{
    if (!fuses(p, x, n, w, shape)) {
        composed(p, y, x, n, w, b, shape, f);
        return;
    }
    struct op_fuse fuse = {.fuse = f ? *f : (struct fuse){0}, .bias = b};
    struct tensor result =
        op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], x.dim[1], x.dim[2], w->k.dim[0]));
    struct norm_conv2d_args a = {.groups = n->groups, .eps = n->eps, .act = n->act};
    bool ready = op_check_dtype(p, "norm_conv2d", x, x);
    if (!op_into(p, "norm_conv2d", y, result, fuse.fuse.add) || !ready) return;
    if (!op_norm_check(p, "norm_conv2d", x, n->gamma, n->groups, n->act) ||
        !op_conv2d_args(p, "norm_conv2d", &a.conv, *y, x, w, shape, &fuse) ||
        !op_norm_vectors(p, "norm_conv2d", n->gamma, n->beta, x.dim[3], &a.gamma, &a.beta,
                         &a.weight_dtype)) {
        y->data = NULL;
        return;
    }
    size_t mark = pass_open_scope(p);
    if (p->device->band_bytes) {
        a.room_bytes = norm_conv2d_room(&a, p->device->band_bytes);
        a.room = pass_bytes(p, a.room_bytes);
        if (!a.room) y->data = NULL;
    }
    op_call(p, y, norm_conv2d, &a);
    pass_close_scope(p, mark);
}
