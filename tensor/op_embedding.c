/* Rows of a table, and weights as tensors. */
#include <string.h>

#include "kernels/real.h"
#include "tensor/op.h"

struct embedding_saved {
    struct weight *table;
    const int32_t *id;
    int64_t count;
};

static void embedding_undo(struct pass *p, const void *saved, struct tensor dy)
{
    const struct embedding_saved *s = saved;
    struct embedding_args args = {.table = &s->table->k,
                                  .id = s->id,
                                  .dy = dy.data,
                                  .count = s->count,
                                  .d = tensor_last(dy),
                                  .dtype = dy.dtype};
    args.dtable = tape_weight_grad(p, s->table);
    if (args.dtable) op_call(p, NULL, embedding_grad, &args);
}

static bool embedding_check(struct pass *p, const struct weight *table, const int32_t *id,
                            int64_t count)
{
    char text[OP_TEXT_BYTES];
    if (!op_require(p, "embedding", table, "table of an embedding")) return false;
    if (table->k.rank != 2) {
        pass_fail(p, ERR_INVALID, "embedding", "%s %s is no table", op_weight_name(table),
                  tensor_describe(op_weight_shape(table), text));
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        if (id[i] >= 0 && id[i] < table->k.dim[0]) continue;
        pass_fail(p, ERR_INVALID, "embedding", "%s %s has no row %d", op_weight_name(table),
                  tensor_describe(op_weight_shape(table), text), (int)id[i]);
        return false;
    }
    return true;
}

struct tensor op_embedding(struct pass *p, struct weight *table, const int32_t *id, int64_t n,
                           int64_t l)
{
    int64_t d = weight_present(table) && table->k.rank == 2 ? table->k.dim[1] : 1;
    struct tensor y = op_shape(p->dtype, 3, TENSOR_DIM(n, l, d));
    if (!embedding_check(p, table, id, n * l) || !op_fresh(p, "embedding", &y)) return y;
    struct embedding_args args = {
        .y = y.data, .table = &table->k, .id = id, .count = n * l, .d = d, .dtype = y.dtype};
    if (!op_call(p, &y, embedding, &args) || !weight_trains(table)) return y;
    struct embedding_saved *s = tape_note(p, &y, embedding_undo, sizeof(*s));
    if (!s) return y;
    int32_t *copy = tape_host_bytes(p, (size_t)(n * l) * sizeof(id[0]));
    if (!copy) return y;
    memcpy(copy, id, (size_t)(n * l) * sizeof(id[0]));
    *s = (struct embedding_saved){table, copy, n * l};
    return y;
}

static void weight_undo(struct pass *p, const void *saved, struct tensor dy)
{
    struct weight *const *w = saved;
    int64_t count = tensor_count(dy);
    struct copy_args args = {.x = dy.data,
                             .rows = 1,
                             .cols = count,
                             .ldy = count,
                             .ldx = count,
                             .y_dtype = DTYPE_REAL,
                             .x_dtype = dy.dtype,
                             .accumulate = true};
    args.y = tape_weight_grad(p, *w);
    if (args.y) op_call(p, NULL, copy, &args);
}

/* A vector is there already; what is larger reaches the device by upload, not by `pack`, whose form is
 * the back end's own. */
static bool weight_fetch(struct pass *p, struct tensor y, struct weight *w)
{
    int64_t count = weight_count(w);
    struct copy_args args = {.y = y.data,
                             .rows = 1,
                             .cols = count,
                             .ldy = count,
                             .ldx = count,
                             .y_dtype = y.dtype,
                             .x_dtype = w->k.dtype,
                             .x = w->k.data};
    if (!p->device->host_memory && !w->k.changes) {
        struct error err;
        size_t bytes = (size_t)count * dtype_bytes(w->k.dtype);
        void *there = pass_bytes(p, bytes);
        if (!there) return false;
        int rc = p->kernels->upload(p->device, there, w->k.data, bytes, &err);
        if (!op_done(p, "weight", rc, &err, NULL)) return false;
        args.x = there;
    }
    return op_call(p, NULL, copy, &args);
}

struct tensor op_weight(struct pass *p, struct weight *w)
{
    struct tensor y = {.dtype = p->dtype};
    if (weight_present(w)) y = op_shape(p->dtype, w->k.rank, w->k.dim);
    if (!op_require(p, "weight", w, "weight") || !op_fresh(p, "weight", &y)) return y;
    if (!weight_fetch(p, y, w)) {
        y.data = NULL;
        return y;
    }
    if (!weight_trains(w)) return y;
    struct weight **s = tape_note(p, &y, weight_undo, sizeof(*s));
    if (s) *s = w;
    return y;
}
