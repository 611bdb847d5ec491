/* What looks at pixels together: the largest of a window, values between pixels, mirrored edges,
 * every s-th pixel. For networks that are not trained here: none has a derivative. */
#include "tensor/op.h"

static bool window_check(struct pass *p, const char *op, struct tensor x, struct tensor y)
{
    if (!op_check_dtype(p, op, x, x)) return false;
    if (x.rank != 4 || y.dim[1] < 1 || y.dim[2] < 1) {
        op_fail_shapes(p, op, "%s cannot become %s", x, y);
        return false;
    }
    if (x.node) pass_fail(p, ERR_UNSUPPORTED, op, "it has no derivative");
    return !p->failed;
}

static int64_t windows(int64_t size, int kernel, int stride, int pad, bool ceil)
{
    int64_t room = size + 2 * pad - kernel;
    if (room < 0 && !ceil) return 0;
    int64_t n = room < 0 ? 1 : (room + (ceil ? stride - 1 : 0)) / stride + 1;
    return (n - 1) * stride >= size + pad ? n - 1 : n; /* each begins before the picture ends */
}

struct tensor op_max_pool(struct pass *p, struct tensor x, int kernel, int stride, int pad,
                          bool ceil)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4) {
        y.dim[1] = windows(x.dim[1], kernel, stride, pad, ceil);
        y.dim[2] = windows(x.dim[2], kernel, stride, pad, ceil);
    }
    if (!window_check(p, "max_pool", x, y) || !op_fresh(p, "max_pool", &y)) return y;
    struct max_pool_args args = {.y = y.data,
                                 .x = x.data,
                                 .n = x.dim[0],
                                 .h = x.dim[1],
                                 .w = x.dim[2],
                                 .c = x.dim[3],
                                 .oh = y.dim[1],
                                 .ow = y.dim[2],
                                 .kernel = kernel,
                                 .stride = stride,
                                 .pad = pad,
                                 .dtype = x.dtype};
    op_call(p, &y, max_pool, &args);
    return y;
}

struct tensor op_bilinear(struct pass *p, struct tensor x, int64_t oh, int64_t ow)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], oh, ow, x.dim[3]));
    if (!window_check(p, "bilinear", x, y) || !op_fresh(p, "bilinear", &y)) return y;
    struct bilinear_args args = {.y = y.data,
                                 .x = x.data,
                                 .n = x.dim[0],
                                 .h = x.dim[1],
                                 .w = x.dim[2],
                                 .c = x.dim[3],
                                 .oh = oh,
                                 .ow = ow,
                                 .dtype = x.dtype};
    op_call(p, &y, bilinear, &args);
    return y;
}

static void copy_rows(struct pass *p, struct tensor *y, int64_t to, int64_t ldy, struct tensor x,
                      int64_t from, int64_t ldx, int64_t rows, int64_t cols)
{
    size_t size = dtype_bytes(x.dtype);
    struct copy_args args = {.y = (char *)y->data + (size_t)to * size,
                             .x = (const char *)x.data + (size_t)from * size,
                             .rows = rows,
                             .cols = cols,
                             .ldy = ldy,
                             .ldx = ldx,
                             .y_dtype = x.dtype,
                             .x_dtype = x.dtype};
    if (rows > 0 && y->data) op_call(p, y, copy, &args);
}

/* Lines first, then the two outer columns from the lines' own pixels. */
struct tensor op_mirror(struct pass *p, struct tensor x)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3], wide = (w + 2) * c;
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0], h + 2, w + 2, c));
    if (x.rank == 4 && (h < 2 || w < 2)) y.dim[1] = 0;
    if (!window_check(p, "mirror", x, y) || !op_fresh(p, "mirror", &y)) return y;
    for (int64_t n = 0; n < x.dim[0]; n++) {
        int64_t from = n * h * w * c, to = n * (h + 2) * wide;
        copy_rows(p, &y, to + c, wide, x, from + w * c, w * c, 1, w * c);
        copy_rows(p, &y, to + wide + c, wide, x, from, w * c, h, w * c);
        copy_rows(p, &y, to + (h + 1) * wide + c, wide, x, from + (h - 2) * w * c, w * c, 1, w * c);
    }
    int64_t lines = x.dim[0] * (h + 2);
    copy_rows(p, &y, 0, wide, y, 2 * c, wide, lines, c);
    copy_rows(p, &y, (w + 1) * c, wide, y, (w - 1) * c, wide, lines, c);
    return y;
}

static int64_t share(int64_t size, int64_t first, int64_t s)
{
    return first < size ? (size - first + s - 1) / s : 0;
}

struct tensor op_apart(struct pass *p, struct tensor x, int64_t s)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    int64_t h = x.dim[1], w = x.dim[2], c = x.dim[3];
    int64_t ph = share(h, 0, s), pw = share(w, 0, s);
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0] * s * s, ph, pw, c));
    if (!window_check(p, "apart", x, y) || !op_fresh(p, "apart", &y)) return y;
    if (!op_zero(p, y.data, tensor_bytes(y))) return y;
    for (int64_t i = 0; i < y.dim[0]; i++) {
        int64_t n = i / (s * s), top = i / s % s, left = i % s;
        for (int64_t row = 0; row < share(h, top, s); row++)
            copy_rows(p, &y, (i * ph + row) * pw * c, c, x,
                      ((n * h + top + row * s) * w + left) * c, s * c, share(w, left, s), c);
    }
    return y;
}

struct tensor op_together(struct pass *p, struct tensor x, int64_t s, int64_t h, int64_t w)
{
    struct tensor y = op_shape(x.dtype, x.rank, x.dim);
    int64_t ph = x.dim[1], pw = x.dim[2], c = x.dim[3];
    if (x.rank == 4) y = op_shape(x.dtype, 4, TENSOR_DIM(x.dim[0] / (s * s), h, w, c));
    if (ph != share(h, 0, s) || pw != share(w, 0, s) || x.dim[0] % (s * s)) y.dim[1] = 0;
    if (!window_check(p, "together", x, y) || !op_fresh(p, "together", &y)) return y;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        int64_t n = i / (s * s), top = i / s % s, left = i % s;
        for (int64_t row = 0; row < share(h, top, s); row++)
            copy_rows(p, &y, ((n * h + top + row * s) * w + left) * c, s * c, x,
                      (i * ph + row) * pw * c, c, share(w, left, s), c);
    }
    return y;
}
