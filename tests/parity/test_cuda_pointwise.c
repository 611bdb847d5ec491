/* Everything bound by memory, and the optimiser: the CUDA kernels in the emulator against plain loops. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;
static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};

static void activations(void **state)
{
    for (int i = 0; i < 3; i++) {
        for (enum activation act = 0; act < ACT_COUNT; act++) {
            int64_t count = 1000 + (int64_t)act;
            cuda_parity_case(&p, "activation %d %s", (int)act, dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], count, 2);
            struct operand *dy = cuda_parity_random(&p, dtypes[i], count, 1);
            struct operand *y = cuda_parity_result(&p, dtypes[i], count);
            struct operand *dx = cuda_parity_random(&p, dtypes[i], count, 1);
            CUDA_RUN(&p, activation, activation_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .count = count,
                      .act = act,
                      .dtype = cuda_parity_dtype(y, side)});
            cuda_parity_compare(&p, y, "y");
            CUDA_RUN(&p, activation_grad, activation_args,
                     {.x = AT(x),
                      .dy = AT(dy),
                      .dx = AT(dx),
                      .count = count,
                      .act = act,
                      .dtype = cuda_parity_dtype(y, side),
                      .accumulate = act % 2 == 0});
            cuda_parity_compare(&p, dx, "dx");
        }
    }
}

static void geglu(void **state)
{
    static const int64_t widths[] = {64, 13};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 2; j++) {
            int64_t rows = 11, d = widths[j];
            cuda_parity_case(&p, "geglu %d %s", (int)d, dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], rows * 2 * d, 1);
            struct operand *dy = cuda_parity_random(&p, dtypes[i], rows * d, 1);
            struct operand *y = cuda_parity_result(&p, dtypes[i], rows * d);
            struct operand *dx = cuda_parity_random(&p, dtypes[i], rows * 2 * d, 1);
            CUDA_RUN(&p, geglu, geglu_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .rows = rows,
                      .d = d,
                      .dtype = cuda_parity_dtype(y, side)});
            cuda_parity_compare(&p, y, "y");
            CUDA_RUN(&p, geglu_grad, geglu_args,
                     {.x = AT(x),
                      .dy = AT(dy),
                      .dx = AT(dx),
                      .rows = rows,
                      .d = d,
                      .dtype = cuda_parity_dtype(y, side),
                      .accumulate = j == 1});
            cuda_parity_compare(&p, dx, "dx");
        }
    }
}

static void sums(void **state)
{
    static const int64_t b_counts[] = {960, 96, 15, 0};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 4; j++) {
            cuda_parity_case(&p, "add, b %d, %s", (int)b_counts[j], dtype_name(dtypes[i]));
            struct operand *a = cuda_parity_random(&p, dtypes[i], 960, 1);
            struct operand *b =
                b_counts[j] ? cuda_parity_random(&p, dtypes[i], b_counts[j], 1) : NULL;
            struct operand *y = cuda_parity_result(&p, dtypes[i], 960);
            CUDA_RUN(&p, add, add_args,
                     {.y = j == 0 ? AT(a) : AT(y),
                      .a = AT(a),
                      .b = AT(b),
                      .count = 960,
                      .b_count = b_counts[j],
                      .alpha = 0.7,
                      .beta = -1.3,
                      .dtype = cuda_parity_dtype(a, side)});
            cuda_parity_compare(&p, j == 0 ? a : y, "y");
        }
        cuda_parity_case(&p, "mul %s", dtype_name(dtypes[i]));
        struct operand *a = cuda_parity_random(&p, dtypes[i], 777, 1);
        struct operand *b = cuda_parity_random(&p, dtypes[i], 777, 1);
        struct operand *y = cuda_parity_random(&p, dtypes[i], 777, 1);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            CUDA_RUN(&p, mul, mul_args,
                     {.y = AT(y),
                      .a = AT(a),
                      .b = AT(b),
                      .count = 777,
                      .dtype = cuda_parity_dtype(a, side),
                      .accumulate = !accumulate});
            cuda_parity_compare(&p, y, "y");
        }
        static const int64_t repeats[] = {21, 48};
        for (int j = 0; j < 2; j++) {
            int64_t count = 16 * repeats[j];
            cuda_parity_case(&p, "mul, b %d, %s", (int)repeats[j], dtype_name(dtypes[i]));
            struct operand *rows = cuda_parity_random(&p, dtypes[i], count, 1);
            struct operand *row = cuda_parity_random(&p, dtypes[i], repeats[j], 1);
            struct operand *product = cuda_parity_result(&p, dtypes[i], count);
            CUDA_RUN(&p, mul, mul_args,
                     {.y = AT(product),
                      .a = AT(rows),
                      .b = AT(row),
                      .count = count,
                      .b_count = repeats[j],
                      .dtype = cuda_parity_dtype(rows, side)});
            cuda_parity_compare(&p, product, "y");
        }
    }
}

static void copies(void **state)
{
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            for (int form = 0; form < 3; form++) {
                /* whole chunks; odd columns; accumulating */
                int64_t rows = 6, cols = form == 1 ? 13 : 48, ldx = cols + 16, ldy = cols + 8;
                cuda_parity_case(&p, "copy form %d %s to %s", form, dtype_name(dtypes[i]),
                                 dtype_name(dtypes[j]));
                struct operand *x = cuda_parity_random(&p, dtypes[i], rows * ldx, 1);
                struct operand *y = cuda_parity_random(&p, dtypes[j], rows * ldy, 1);
                CUDA_RUN(&p, copy, copy_args,
                         {.y = AT(y),
                          .x = AT(x),
                          .rows = rows,
                          .cols = cols,
                          .ldy = ldy,
                          .ldx = ldx,
                          .y_dtype = cuda_parity_dtype(y, side),
                          .x_dtype = cuda_parity_dtype(x, side),
                          .accumulate = form == 2});
                cuda_parity_compare(&p, y, "y");
            }
        }
        static const int64_t turned[][3] = {{2, 33, 70}, {1, 4, 1000}, {3, 100, 3}, {1, 1, 1}};
        for (size_t j = 0; j < COUNT_OF(turned); j++) {
            int64_t n = turned[j][0], a = turned[j][1], b = turned[j][2];
            cuda_parity_case(&p, "transpose %dx%dx%d %s", (int)n, (int)a, (int)b,
                             dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], n * a * b, 1);
            struct operand *y = cuda_parity_result(&p, dtypes[i], n * a * b);
            CUDA_RUN(&p, transpose, transpose_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .n = n,
                      .a = a,
                      .b = b,
                      .dtype = cuda_parity_dtype(x, side)});
            cuda_parity_compare(&p, y, "y");
        }
    }
}

static void column_sums(void **state)
{
    for (int i = 0; i < 3; i++) {
        for (int same = 0; same < 2; same++) {
            cuda_parity_case(&p, "column sum %s", dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], 2 * 77 * 45, 1);
            struct operand *sum = cuda_parity_random(&p, same ? dtypes[i] : DTYPE_F32, 2 * 45, 1);
            CUDA_RUN(&p, column_sum, column_sum_args,
                     {.sum = AT(sum),
                      .x = AT(x),
                      .groups = 2,
                      .rows = 77,
                      .cols = 45,
                      .dtype = cuda_parity_dtype(x, side),
                      .sum_dtype = cuda_parity_dtype(sum, side)});
            cuda_parity_compare(&p, sum, "sum");
        }
    }
}

static void upsamples(void **state)
{
    static const int64_t sizes[][5] = {{5, 4, 10, 8, 16}, {7, 3, 10, 8, 5}, {4, 4, 4, 12, 8}};
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < COUNT_OF(sizes); j++) {
            int64_t h = sizes[j][0], w = sizes[j][1], oh = sizes[j][2], ow = sizes[j][3];
            int64_t c = sizes[j][4];
            cuda_parity_case(&p, "upsample case %zu %s", j, dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], 2 * h * w * c, 1);
            struct operand *dy = cuda_parity_random(&p, dtypes[i], 2 * oh * ow * c, 1);
            struct operand *y = cuda_parity_result(&p, dtypes[i], 2 * oh * ow * c);
            struct operand *dx = cuda_parity_random(&p, dtypes[i], 2 * h * w * c, 1);
            CUDA_RUN(&p, upsample, upsample_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .n = 2,
                      .h = h,
                      .w = w,
                      .c = c,
                      .oh = oh,
                      .ow = ow,
                      .dtype = cuda_parity_dtype(x, side)});
            cuda_parity_compare(&p, y, "y");
            CUDA_RUN(&p, upsample_grad, upsample_args,
                     {.dy = AT(dy),
                      .dx = AT(dx),
                      .n = 2,
                      .h = h,
                      .w = w,
                      .c = c,
                      .oh = oh,
                      .ow = ow,
                      .dtype = cuda_parity_dtype(x, side),
                      .accumulate = j == 1});
            cuda_parity_compare(&p, dx, "dx");
        }
    }
}

static void windows(void **state)
{
    /* h w c oh ow kernel stride pad */
    static const int64_t sizes[][8] = {
        {6, 8, 16, 3, 4, 2, 2, 0}, {5, 7, 5, 3, 4, 2, 2, 0}, {9, 10, 24, 5, 5, 3, 2, 1}};
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < COUNT_OF(sizes); j++) {
            const int64_t *s = sizes[j];
            cuda_parity_case(&p, "window case %zu %s", j, dtype_name(dtypes[i]));
            struct operand *x = cuda_parity_random(&p, dtypes[i], 2 * s[0] * s[1] * s[2], 1);
            struct operand *y = cuda_parity_result(&p, dtypes[i], 2 * s[3] * s[4] * s[2]);
            struct operand *z = cuda_parity_result(&p, dtypes[i], 2 * 11 * 20 * s[2]);
            CUDA_RUN(&p, max_pool, max_pool_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .n = 2,
                      .h = s[0],
                      .w = s[1],
                      .c = s[2],
                      .oh = s[3],
                      .ow = s[4],
                      .kernel = (int)s[5],
                      .stride = (int)s[6],
                      .pad = (int)s[7],
                      .dtype = cuda_parity_dtype(x, side)});
            cuda_parity_compare(&p, y, "largest");
            CUDA_RUN(&p, bilinear, bilinear_args,
                     {.y = AT(z),
                      .x = AT(x),
                      .n = 2,
                      .h = s[0],
                      .w = s[1],
                      .c = s[2],
                      .oh = 11,
                      .ow = 20,
                      .dtype = cuda_parity_dtype(x, side)});
            cuda_parity_compare(&p, z, "between");
        }
    }
}

static void embeddings(void **state)
{
    static const int32_t id[] = {3, 0, 9, 3, 3, 7};
    for (int i = 0; i < 3; i++) {
        cuda_parity_case(&p, "embedding %s", dtype_name(dtypes[i]));
        struct operand *table = cuda_parity_random(&p, dtypes[i], 10 * 24, 1);
        struct operand *dy = cuda_parity_random(&p, dtypes[i], 6 * 24, 1);
        struct operand *y = cuda_parity_result(&p, dtypes[i], 6 * 24);
        struct operand *dtable = cuda_parity_random(&p, DTYPE_F32, 10 * 24, 1);
        CUDA_RUN(&p, embedding, embedding_args,
                 {.y = AT(y),
                  .table = cuda_parity_weight(&p, table, side, 2, (int64_t[]){10, 24}),
                  .id = id,
                  .count = 6,
                  .d = 24,
                  .dtype = cuda_parity_dtype(y, side)});
        cuda_parity_compare(&p, y, "y");
        CUDA_RUN(&p, embedding_grad, embedding_args,
                 {.table = cuda_parity_weight(&p, table, side, 2, (int64_t[]){10, 24}),
                  .id = id,
                  .dy = AT(dy),
                  .dtable = AT(dtable),
                  .count = 6,
                  .d = 24,
                  .dtype = cuda_parity_dtype(y, side)});
        cuda_parity_compare(&p, dtable, "dtable");
    }
    static const int32_t wrong[] = {10};
    struct operand *table = cuda_parity_random(&p, DTYPE_F16, 10 * 24, 1);
    struct embedding_args bad = {
        .table = cuda_parity_weight(&p, table, SIDE_CUDA, 2, (int64_t[]){10, 24}),
        .id = wrong,
        .count = 1,
        .d = 24,
        .dtype = DTYPE_F16};
    struct error err;
    assert_int_equal(p.kernels[SIDE_CUDA]->embedding(p.device[SIDE_CUDA], &bad, &err), ERR_INVALID);
}

static void losses(void **state)
{
    for (int i = 0; i < 3; i++) {
        for (int weighted = 0; weighted < 2; weighted++) {
            int64_t count = 5000;
            cuda_parity_case(&p, "mse %s", dtype_name(dtypes[i]));
            struct operand *y = cuda_parity_random(&p, dtypes[i], count, 1);
            struct operand *target = cuda_parity_random(&p, dtypes[i], count, 1);
            struct operand *weight = weighted ? cuda_parity_random(&p, DTYPE_F32, count, 1) : NULL;
            struct operand *dy = cuda_parity_result(&p, dtypes[i], count);
            struct operand *loss = cuda_parity_result(&p, DTYPE_F32, 1);
            CUDA_RUN(&p, mse, mse_args,
                     {.loss = AT(loss),
                      .y = AT(y),
                      .target = AT(target),
                      .weight = AT(weight),
                      .count = count,
                      .dtype = cuda_parity_dtype(y, side)});
            cuda_parity_compare_absolute(&p, loss, "loss", 5e-7);
            CUDA_RUN(&p, mse_grad, mse_args,
                     {.y = AT(y),
                      .target = AT(target),
                      .weight = AT(weight),
                      .dy = AT(dy),
                      .count = count,
                      .scale = 1024,
                      .dtype = cuda_parity_dtype(y, side)});
            cuda_parity_compare(&p, dy, "dy");
        }
        cuda_parity_case(&p, "norm %s", dtype_name(dtypes[i]));
        struct operand *x = cuda_parity_random(&p, dtypes[i], 9000, 1);
        double sum[SIDE_COUNT];
        CUDA_RUN(&p, norm, norm_args,
                 {.x = AT(x),
                  .count = 9000,
                  .dtype = cuda_parity_dtype(x, side),
                  .sum_of_squares = &sum[side]});
        assert_true(fabs(sum[SIDE_CUDA] / sum[SIDE_TRUTH] - 1) < 1e-12);
    }
}

static void optimiser_8_bit(void **state)
{
    int64_t count = 1003, blocks = 4;
    cuda_parity_case(&p, "adamw8");
    struct operand *param = cuda_parity_random(&p, DTYPE_F32, count, 1);
    struct operand *m = cuda_parity_constant(&p, DTYPE_U8, count, 0);
    struct operand *v = cuda_parity_constant(&p, DTYPE_U8, count, 0);
    struct operand *m_scale = cuda_parity_constant(&p, DTYPE_F32, blocks, 0);
    struct operand *v_scale = cuda_parity_constant(&p, DTYPE_F32, blocks, 0);
    struct operand *grad = cuda_parity_random(&p, DTYPE_F32, count, 1);
    for (int64_t step = 1; step <= 3; step++) {
        CUDA_RUN(&p, adamw8, adamw8_args,
                 {.base = {.param = AT(param),
                           .m = AT(m),
                           .v = AT(v),
                           .grad = AT(grad),
                           .count = count,
                           .step = step,
                           .lr = 1e-2,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .eps = 1e-8,
                           .weight_decay = 0.01,
                           .grad_scale = 0.5},
                  .m_scale = AT(m_scale),
                  .v_scale = AT(v_scale)});
    }
    /* a moment between two values of the table may be rounded to either: a 128th of a step of lr */
    cuda_parity_compare_absolute(&p, param, "param", 1e-3);
    cuda_parity_compare_absolute(&p, m_scale, "m_scale", 3e-7);
    cuda_parity_compare_absolute(&p, v_scale, "v_scale", 3e-8);
}

static void optimiser(void **state)
{
    int64_t count = 1003;
    cuda_parity_case(&p, "adamw");
    struct operand *param = cuda_parity_random(&p, DTYPE_F32, count, 1);
    struct operand *m = cuda_parity_constant(&p, DTYPE_F32, count, 0);
    struct operand *v = cuda_parity_constant(&p, DTYPE_F32, count, 0);
    struct operand *grad = cuda_parity_random(&p, DTYPE_F32, count, 1);
    for (int64_t step = 1; step <= 3; step++) {
        CUDA_RUN(&p, adamw, adamw_args,
                 {.param = AT(param),
                  .m = AT(m),
                  .v = AT(v),
                  .grad = AT(grad),
                  .count = count,
                  .step = step,
                  .lr = 1e-2,
                  .beta1 = 0.9,
                  .beta2 = 0.999,
                  .eps = 1e-8,
                  .weight_decay = 0.01,
                  .grad_scale = 0.5});
    }
    /* param moves by lr a step: three roundings of numbers below 8 */
    cuda_parity_compare_absolute(&p, param, "param", 1.5e-6);
    cuda_parity_compare_absolute(&p, m, "m", 3e-7);
    cuda_parity_compare_absolute(&p, v, "v", 3e-8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),
        cmocka_unit_test(geglu),
        cmocka_unit_test(sums),
        cmocka_unit_test(copies),
        cmocka_unit_test(column_sums),
        cmocka_unit_test(upsamples),
        cmocka_unit_test(windows),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(losses),
        cmocka_unit_test(optimiser),
        cmocka_unit_test(optimiser_8_bit),
    };
    return cuda_parity_main("cuda_pointwise", tests, COUNT_OF(tests), &p);
}
