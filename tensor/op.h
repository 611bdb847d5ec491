/*
 * op.h - what all op files share: results, kernel calls, vectors, the fused epilogue.
 *
 * Place    op_*.c only.
 * Failure  through the pass. Shape rules run on failed passes too, so they bear absent weights and
 *          any shape; checks come after op_ready.
 */
#ifndef TENSOR_OP_H
#define TENSOR_OP_H

#include "tensor/op_times.h"
#include "tensor/ops.h"
#include "tensor/tape_note.h"

#define OP_TEXT_BYTES 64

struct tensor op_shape(enum dtype dtype, int rank, const int64_t *dim); /* no data */
struct tensor op_shape_last(struct tensor like, int64_t last);

/* Memory for the result. False: the pass has failed, y has its shape and no data. */
bool op_fresh(struct pass *p, const char *op, struct tensor *y);
/* For _into forms: y must have the result's shape. Where `alias` is y's own memory and a tape may need its
 * old values, y moves to fresh memory. */
bool op_into(struct pass *p, const char *op, struct tensor *y, struct tensor shape,
             struct tensor alias);

/* Fails the pass when x has no data or dtypes differ. */
bool op_check_dtype(struct pass *p, const char *op, struct tensor a, struct tensor b);
bool op_fail_shapes(struct pass *p, const char *op, const char *what, struct tensor a,
                    struct tensor b);
bool op_require(struct pass *p, const char *op, const struct weight *w, const char *role);

/* The weight's shape as a tensor without data, for messages. */
struct tensor op_weight_shape(const struct weight *w);
const char *op_weight_name(const struct weight *w);

/* A vector weight as kernels want it: NULL data when w is absent. False: the pass has failed. */
struct op_vector {
    const void *data;
    enum dtype dtype;
};
bool op_vector(struct pass *p, const char *op, struct weight *w, int64_t count,
               struct op_vector *v);

/* true when the kernel ran; sets y->data to NULL and fails the pass otherwise */
bool op_done(struct pass *p, const char *op, int rc, const struct error *err, struct tensor *y);
bool op_lacks(struct pass *p, const char *op, struct tensor *y);
/* op_call(p, y, linear, &args): y may be NULL */
#define op_call(p, y, kernel, args)                                                                \
    ({                                                                                             \
        struct error call_error;                                                                   \
        (p)->failed ? false                                                                        \
        : !(p)->kernels->kernel                                                                    \
            ? op_lacks(p, #kernel, y)                                                              \
            : ({                                                                                   \
                  if ((p)->times) op_times_start((p)->times, (p)->device);                         \
                  int call_rc = (p)->kernels->kernel((p)->device, args, &call_error);              \
                  if ((p)->times) op_times_stop((p)->times, (p)->device, #kernel);                 \
                  op_done(p, #kernel, call_rc, &call_error, y);                                    \
              });                                                                                  \
    })
bool op_zero(struct pass *p, void *memory, size_t bytes);

/* sum[groups,cols] += column sums, F32 (real) */
void op_column_sum(struct pass *p, void *sum, enum dtype sum_dtype, struct tensor x, int64_t groups,
                   int64_t cols);

/* The epilogue of linear and conv2d (op_fuse.c). */
struct op_fuse {
    struct fuse fuse;
    struct weight *bias;
};
bool op_fuse_args(struct pass *p, const char *op, struct epilogue_args *e, const struct op_fuse *f,
                  struct tensor y);
/* What op_norm_conv shares with op_norm and op_conv2d. False: the pass has failed. */
bool op_norm_check(struct pass *p, const char *op, struct tensor x, struct weight *gamma,
                   int64_t groups, enum activation act);
bool op_norm_vectors(struct pass *p, const char *op, struct weight *gamma, struct weight *beta,
                     int64_t count, const void **gamma_data, const void **beta_data,
                     enum dtype *dtype);
bool op_conv2d_args(struct pass *p, const char *op, struct conv2d_args *a, struct tensor y,
                    struct tensor x, struct weight *w, struct conv_shape c,
                    const struct op_fuse *f);
bool op_fuse_needs_tape(const struct op_fuse *f);
/* dz from dy: undoes the activation at `pre` (data NULL when there was none). */
struct tensor op_fuse_undo_act(struct pass *p, const struct op_fuse *f, struct tensor pre,
                               struct tensor dy);
/* Gradients of row and bias; then, as the last thing that reads dy, of add. */
void op_fuse_undo(struct pass *p, const struct op_fuse *f, struct tensor dz, struct tensor dy);

#endif
