#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

int64_t tensor_count(struct tensor t)
{
    int64_t count = 1;
    for (int i = 0; i < t.rank; i++) count *= t.dim[i];
    return count;
}

int64_t tensor_last(struct tensor t)
{
    return t.rank ? t.dim[t.rank - 1] : 1;
}

int64_t tensor_rows(struct tensor t)
{
    int64_t rows = 1;
    for (int i = 0; i < t.rank - 1; i++) rows *= t.dim[i];
    return rows;
}

size_t tensor_bytes(struct tensor t)
{
    return (size_t)tensor_count(t) * dtype_bytes(t.dtype);
}

bool tensor_same_shape(struct tensor a, struct tensor b)
{
    return a.rank == b.rank && memcmp(a.dim, b.dim, (size_t)a.rank * sizeof(a.dim[0])) == 0;
}

struct tensor tensor_view(struct tensor t, int rank, const int64_t *dim)
{
    struct tensor view = {.data = t.data, .dtype = t.dtype, .rank = rank, .node = t.node};
    KILN_ASSERT(rank >= 0 && rank <= TENSOR_RANK_MAX, "rank %d", rank);
    memcpy(view.dim, dim, (size_t)rank * sizeof(dim[0]));
    KILN_ASSERT(tensor_count(view) == tensor_count(t), "%lld elements viewed as %lld",
                (long long)tensor_count(t), (long long)tensor_count(view));
    return view;
}

struct tensor tensor_view_3d(struct tensor t, int64_t a, int64_t b, int64_t c)
{
    return tensor_view(t, 3, TENSOR_DIM(a, b, c));
}

struct tensor tensor_view_4d(struct tensor t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return tensor_view(t, 4, TENSOR_DIM(a, b, c, d));
}

char *tensor_describe(struct tensor t, char text[64])
{
    size_t length = (size_t)snprintf(text, 64, "[");
    for (int i = 0; i < t.rank && length < 64; i++) {
        length +=
            (size_t)snprintf(text + length, 64 - length, i ? ",%lld" : "%lld", (long long)t.dim[i]);
    }
    if (length < 64) snprintf(text + length, 64 - length, "] %s", dtype_name(t.dtype));
    return text;
}
