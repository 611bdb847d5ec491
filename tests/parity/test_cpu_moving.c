/* Kernels that move elements: copies, transposes, sums of columns, enlarging, windows, embeddings. Part of test_cpu. */
#include <stdio.h>

#include "base/alloc.h"
#include "tests/parity/test_cpu.h"

struct copy_case {
    struct copy_args a;
    bool y_real, x_real;
};

static int run_copy(struct parity_run *run, const void *args, struct error *err)
{
    const struct copy_case *c = args;
    struct copy_args a = c->a;
    a.x = run->data[0];
    a.y = run->data[1];
    a.x_dtype = c->x_real ? run->real : run->dtype;
    a.y_dtype = c->y_real ? run->real : run->dtype;
    return run->k->copy(run->d, &a, err);
}

void test_copies(void **unused)
{
    static const int64_t sizes[][4] = {
        {3, 5, 5, 9}, {1, 50000, 50000, 50000}, {9, 33, 40, 33}, {700, 64, 64, 64}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (int flags = 0; flags < 8; flags++) {
            const int64_t *s = sizes[i];
            struct copy_case v = {.a = {.rows = s[0],
                                        .cols = s[1],
                                        .ldy = s[2],
                                        .ldx = s[3],
                                        .accumulate = flags & 1},
                                  .y_real = flags & 2,
                                  .x_real = flags & 4};
            struct parity_case c = {.run = run_copy, .args = &v};
            snprintf(c.name, sizeof c.name, "copy %lldx%lld flags %d", (long long)s[0],
                     (long long)s[1], flags);
            parity_operand(&c, v.x_real ? OPERAND_REAL : OPERAND_ACTIVATION, false, s[0] * s[3], 1);
            parity_operand(&c, v.y_real ? OPERAND_REAL : OPERAND_ACTIVATION, true, s[0] * s[2], 1);
            cpu_check(&c);
        }
}

RUN(run_transpose, transpose_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(transpose)

void test_transpose(void **unused)
{
    static const int64_t sizes[][3] = {{1, 3, 5}, {2, 33, 40}, {3, 4, 100}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct transpose_args a = {.n = sizes[i][0], .a = sizes[i][1], .b = sizes[i][2]};
        struct parity_case c = {.run = run_transpose, .args = &a, .name = "transpose"};
        parity_operand(&c, OPERAND_ACTIVATION, false, a.n * a.a * a.b, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, a.n * a.a * a.b, 1);
        cpu_check(&c);
    }
}

static int run_column_sum(struct parity_run *run, const void *args, struct error *err)
{
    struct column_sum_args a = *(const struct column_sum_args *)args;
    a.sum_dtype = a.sum_dtype == DTYPE_F32 ? run->real : run->dtype;
    a.dtype = run->dtype;
    a.x = run->data[0];
    a.sum = run->data[1];
    return run->k->column_sum(run->d, &a, err);
}

void test_column_sum(void **unused)
{
    static const int64_t sizes[][3] = {{1, 1, 1}, {2, 100, 37}, {3, 64, 16}, {1, 500, 5}};
    for (size_t i = 0; i < 2 * COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i / 2];
        struct column_sum_args a = {.groups = s[0],
                                    .rows = s[1],
                                    .cols = s[2],
                                    .sum_dtype = i % 2 ? DTYPE_F32 : DTYPE_BF16};
        struct parity_case c = {.run = run_column_sum, .args = &a, .name = "column_sum"};
        parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2], 1);
        parity_operand(&c, i % 2 ? OPERAND_REAL : OPERAND_ACTIVATION, true, s[0] * s[2], 1);
        cpu_check(&c);
    }
}

RUN(run_upsample, upsample_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(upsample)

RUN(run_upsample_grad, upsample_args)
a.dtype = run->dtype;
a.dy = run->data[1];
a.dx = run->data[0];
RUN_END(upsample_grad)

void test_upsample(void **unused)
{
    static const int64_t sizes[][6] = {
        {2, 3, 4, 20, 6, 8}, {1, 5, 4, 7, 8, 9}, {1, 4, 4, 16, 3, 3}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i];
        struct upsample_args a = {.n = s[0],
                                  .h = s[1],
                                  .w = s[2],
                                  .c = s[3],
                                  .oh = s[4],
                                  .ow = s[5],
                                  .accumulate = i == 1};
        for (int grad = 0; grad < 2; grad++) {
            struct parity_case c = {
                .run = grad ? run_upsample_grad : run_upsample, .args = &a, .name = "upsample"};
            parity_operand(&c, OPERAND_ACTIVATION, grad, s[0] * s[1] * s[2] * s[3], 1);
            parity_operand(&c, OPERAND_ACTIVATION, !grad, s[0] * s[4] * s[5] * s[3], 1);
            cpu_check(&c);
        }
    }
}

RUN(run_max_pool, max_pool_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(max_pool)

RUN(run_bilinear, bilinear_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(bilinear)

void test_windows(void **unused)
{
    /* n h w c oh ow kernel stride pad */
    static const int64_t sizes[][9] = {{2, 6, 8, 20, 3, 4, 2, 2, 0},
                                       {1, 5, 7, 7, 3, 4, 2, 2, 0}, /* windows over the edge */
                                       {1, 9, 10, 16, 5, 5, 3, 2, 1},
                                       {1, 1, 3, 3, 1, 2, 2, 2, 0}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        const int64_t *s = sizes[i];
        struct max_pool_args pool = {.n = s[0],
                                     .h = s[1],
                                     .w = s[2],
                                     .c = s[3],
                                     .oh = s[4],
                                     .ow = s[5],
                                     .kernel = (int)s[6],
                                     .stride = (int)s[7],
                                     .pad = (int)s[8]};
        struct parity_case c = {.run = run_max_pool, .args = &pool, .name = "max_pool"};
        parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2] * s[3], 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, s[0] * s[4] * s[5] * s[3], 1);
        cpu_check(&c);
        for (int larger = 0; larger < 2; larger++) {
            struct bilinear_args b = {.n = s[0],
                                      .h = s[1],
                                      .w = s[2],
                                      .c = s[3],
                                      .oh = larger ? 2 * s[1] + 1 : s[4],
                                      .ow = larger ? 2 * s[2] : s[5]};
            c = (struct parity_case){.run = run_bilinear, .args = &b, .name = "bilinear"};
            parity_operand(&c, OPERAND_ACTIVATION, false, s[0] * s[1] * s[2] * s[3], 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, s[0] * b.oh * b.ow * s[3], 1);
            cpu_check(&c);
        }
    }
}

static const int32_t tokens[] = {3, 0, 9, 3, 3, 1};

static int run_embedding(struct parity_run *run, const void *args, struct error *err)
{
    struct embedding_args a = *(const struct embedding_args *)args;
    a.dtype = run->dtype;
    a.id = tokens;
    a.table = &run->weight;
    a.y = run->data[1];
    return run->k->embedding(run->d, &a, err);
}

static int run_embedding_grad(struct parity_run *run, const void *args, struct error *err)
{
    struct embedding_args a = *(const struct embedding_args *)args;
    a.dtype = run->dtype;
    a.id = tokens;
    a.dy = run->data[0];
    a.dtable = run->data[1];
    return run->k->embedding_grad(run->d, &a, err);
}

void test_embedding(void **unused)
{
    struct embedding_args a = {.count = COUNT_OF(tokens), .d = 37};
    struct parity_case c = {
        .run = run_embedding, .args = &a, .name = "embedding", .rank = 2, .dim = {10, 37}};
    parity_operand(&c, OPERAND_WEIGHT, false, 370, 1);
    parity_operand(&c, OPERAND_ACTIVATION, true, a.count * a.d, 1);
    cpu_check(&c);
    c = (struct parity_case){.run = run_embedding_grad, .args = &a, .name = "embedding_grad"};
    parity_operand(&c, OPERAND_ACTIVATION, false, a.count * a.d, 1);
    parity_operand(&c, OPERAND_REAL, true, 370, 1);
    cpu_check(&c);
}
