/* Group and layer norm, forward and backward: the CUDA kernels in the emulator against plain loops. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;
static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};

struct group_case {
    int64_t n, rows, c, groups;
    enum activation act;
    double offset; /* mean of x, in its own standard deviations */
    bool in_place, accumulate;
};

static struct operand *shifted(enum dtype dtype, int64_t count, double offset)
{
    struct operand *x = cuda_parity_random(&p, dtype, count, 1);
    double *value = alloc_zero((size_t)count, sizeof *value);
    for (int64_t i = 0; i < count; i++) value[i] = ((double *)x->data[SIDE_TRUTH])[i] + offset;
    struct operand *o = cuda_parity_values(&p, dtype, count, value);
    free(value);
    return o;
}

static void group(enum dtype dtype, struct group_case c)
{
    cuda_parity_case(&p, "group norm n %d rows %d c %d groups %d %s", (int)c.n, (int)c.rows,
                     (int)c.c, (int)c.groups, dtype_name(dtype));
    int64_t count = c.n * c.rows * c.c;
    struct operand *x = shifted(dtype, count, c.offset);
    struct operand *y =
        c.in_place ? shifted(dtype, count, 0) : cuda_parity_result(&p, dtype, count);
    struct operand *gamma = cuda_parity_random(&p, dtype, c.c, 1);
    struct operand *beta = cuda_parity_random(&p, dtype, c.c, 1);
    struct operand *mean = cuda_parity_result(&p, DTYPE_F32, c.n * c.groups);
    struct operand *rstd = cuda_parity_result(&p, DTYPE_F32, c.n * c.groups);
    struct operand *dy = cuda_parity_random(&p, dtype, count, 1);
    struct operand *dx = cuda_parity_random(&p, dtype, count, 1);
    struct operand *dgamma = cuda_parity_random(&p, DTYPE_F32, c.c, 1);
    struct operand *dbeta = cuda_parity_random(&p, DTYPE_F32, c.c, 1);
    struct group_norm_args of[SIDE_COUNT];
    CUDA_RUN(&p, group_norm, group_norm_args,
             {.y = AT(y),
              .x = c.in_place ? AT(y) : AT(x),
              .gamma = AT(gamma),
              .beta = AT(beta),
              .mean = AT(mean),
              .rstd = AT(rstd),
              .n = c.n,
              .rows = c.rows,
              .c = c.c,
              .groups = c.groups,
              .eps = 1e-5,
              .act = c.act,
              .dtype = cuda_parity_dtype(y, side),
              .weight_dtype = cuda_parity_dtype(gamma, side)};
             of[side] = args);
    cuda_parity_compare(&p, y, "y");
    cuda_parity_compare_absolute(&p, mean, "mean", 2e-6 * (1 + c.offset));
    cuda_parity_compare_absolute(&p, rstd, "rstd", 1e-5);
    if (c.in_place) return;
    CUDA_RUN(&p, group_norm_grad, group_norm_grad_args,
             {.forward = of[side],
              .dy = AT(dy),
              .dx = AT(dx),
              .dgamma = AT(dgamma),
              .dbeta = AT(dbeta),
              .accumulate = c.accumulate});
    cuda_parity_compare(&p, dx, "dx");
    cuda_parity_compare_absolute(&p, dgamma, "dgamma", 3e-5 * (1 + c.offset));
    cuda_parity_compare_absolute(&p, dbeta, "dbeta", 3e-5);
}

static void groups(void **state)
{
    for (int i = 0; i < 3; i++) {
        group(dtypes[i],
              (struct group_case){.n = 2, .rows = 70, .c = 64, .groups = 32, .act = ACT_SILU});
        /* groups of 10 channels, and a slab of 128 bytes that ends in the middle */
        group(dtypes[i],
              (struct group_case){
                  .n = 1, .rows = 33, .c = 320, .groups = 32, .act = ACT_SILU, .accumulate = true});
        group(dtypes[i],
              (struct group_case){.n = 2, .rows = 9, .c = 12, .groups = 3, .accumulate = true});
        group(dtypes[i], (struct group_case){.n = 1, .rows = 1, .c = 72, .groups = 8});
        /* far from zero, where sums of squares would cancel */
        group(dtypes[i],
              (struct group_case){.n = 2, .rows = 300, .c = 16, .groups = 4, .offset = 30});
        group(dtypes[i],
              (struct group_case){.n = 1, .rows = 20, .c = 24, .groups = 4, .in_place = true});
    }
}

static void layer(enum dtype dtype, int64_t rows, int64_t d, bool weights, bool accumulate)
{
    cuda_parity_case(&p, "layer norm rows %d d %d %s", (int)rows, (int)d, dtype_name(dtype));
    struct operand *x = shifted(dtype, rows * d, 0.5);
    struct operand *y = cuda_parity_result(&p, dtype, rows * d);
    struct operand *gamma = weights ? cuda_parity_random(&p, DTYPE_F32, d, 1) : NULL;
    struct operand *beta = weights ? cuda_parity_random(&p, DTYPE_F32, d, 1) : NULL;
    struct operand *mean = cuda_parity_result(&p, DTYPE_F32, rows);
    struct operand *rstd = cuda_parity_result(&p, DTYPE_F32, rows);
    struct operand *dy = cuda_parity_random(&p, dtype, rows * d, 1);
    struct operand *dx = cuda_parity_random(&p, dtype, rows * d, 1);
    struct operand *dgamma = weights ? cuda_parity_random(&p, DTYPE_F32, d, 1) : NULL;
    struct operand *dbeta = weights ? cuda_parity_random(&p, DTYPE_F32, d, 1) : NULL;
    struct layer_norm_args of[SIDE_COUNT];
    CUDA_RUN(&p, layer_norm, layer_norm_args,
             {.y = AT(y),
              .x = AT(x),
              .gamma = AT(gamma),
              .beta = AT(beta),
              .mean = AT(mean),
              .rstd = AT(rstd),
              .rows = rows,
              .d = d,
              .eps = 1e-5,
              .dtype = cuda_parity_dtype(y, side),
              .weight_dtype = cuda_parity_dtype(gamma, side)};
             of[side] = args);
    cuda_parity_compare(&p, y, "y");
    cuda_parity_compare_absolute(&p, mean, "mean", 2e-6);
    CUDA_RUN(&p, layer_norm_grad, layer_norm_grad_args,
             {.forward = of[side],
              .dy = AT(dy),
              .dx = AT(dx),
              .dgamma = AT(dgamma),
              .dbeta = AT(dbeta),
              .accumulate = accumulate});
    cuda_parity_compare(&p, dx, "dx");
    if (weights) cuda_parity_compare_absolute(&p, dgamma, "dgamma", 3e-5);
    if (weights) cuda_parity_compare_absolute(&p, dbeta, "dbeta", 3e-5);
}

static void layers(void **state)
{
    for (int i = 0; i < 3; i++) {
        layer(dtypes[i], 9, 320, true, false);
        layer(dtypes[i], 3, 1280, true, true); /* held in 5 chunks a lane; F32: read again */
        layer(dtypes[i], 2, 2560, true, false);
        layer(dtypes[i], 17, 13, false, true);
        layer(dtypes[i], 1, 8, true, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups), cmocka_unit_test(layers)};
    return cuda_parity_main("cuda_norm", tests, COUNT_OF(tests), &p);
}
