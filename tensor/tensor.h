/*
 * tensor.h - a shape, a dtype and borrowed memory.
 *
 * Place    between models and kernels. Tensors are values: passed and returned by copy, never freed
 *          one by one. Weights belong to a model, everything else to a pass's arena.
 * Failure  cannot fail. A tensor with data == NULL comes from a failed pass.
 *
 * Contiguous, row-major, channels last: an image is [N,H,W,C], a sequence [N,L,D]; the two are the
 * same memory, so tensor_view turns one into the other for nothing.
 */
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/dtype.h"

#define TENSOR_RANK_MAX 4

struct tensor {
    void *data;
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_RANK_MAX];
    int32_t node; /* the tape's number for it; 0: nothing before it needs a gradient */
};

int64_t tensor_count(struct tensor t);       /* elements; 1 for rank 0 */
int64_t tensor_rows(struct tensor t);        /* elements / last dimension */
int64_t tensor_last(struct tensor t);        /* last dimension */
size_t tensor_bytes(struct tensor t);
bool tensor_same_shape(struct tensor a, struct tensor b);
/* The same memory and tape node under another shape; the element counts must agree. */
struct tensor tensor_view(struct tensor t, int rank, const int64_t *dim);
#define TENSOR_DIM(...) ((const int64_t[]){__VA_ARGS__})
struct tensor tensor_view_3d(struct tensor t, int64_t a, int64_t b, int64_t c);
struct tensor tensor_view_4d(struct tensor t, int64_t a, int64_t b, int64_t c, int64_t d);
/* "[2,64,64,320] F32" into text, for messages. Returns text. */
char *tensor_describe(struct tensor t, char text[64]);

#endif
