/* Kernels of training: the loss, AdamW, the norm of a gradient. Part of test_cpu. */
#include <stdio.h>

#include "tests/parity/test_cpu.h"

struct mse_case {
    struct mse_args a;
    bool weight;
};

static int run_mse(struct parity_run *run, const void *args, struct error *err)
{
    const struct mse_case *c = args;
    struct mse_args a = c->a;
    a.dtype = run->dtype;
    a.y = run->data[0];
    a.target = run->data[1];
    a.weight = c->weight ? run->data[2] : NULL;
    a.loss = run->data[3];
    a.dy = run->data[4];
    int rc = run->k->mse(run->d, &a, err);
    return rc ? rc : run->k->mse_grad(run->d, &a, err);
}

void test_mse(void **unused)
{
    for (int i = 0; i < 4; i++) {
        struct mse_case v = {.a = {.count = i < 2 ? 19 : 50000, .scale = 1.5}, .weight = i % 2};
        struct parity_case c = {.run = run_mse, .args = &v, .name = "mse"};
        parity_operand(&c, OPERAND_ACTIVATION, false, v.a.count, 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, v.a.count, 1);
        parity_operand(&c, OPERAND_REAL, false, v.a.count, 1);
        parity_operand(&c, OPERAND_REAL, true, 1, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, v.a.count, 1);
        cpu_check(&c);
    }
}

RUN(run_adamw, adamw_args)
a.param = run->data[0];
a.m = run->data[1];
a.v = run->data[2];
a.grad = run->data[3];
RUN_END(adamw)

void test_adamw(void **unused)
{
    for (int i = 0; i < 2; i++) {
        struct adamw_args a = {.count = i ? 40000 : 21,
                               .step = 1 + 5 * i,
                               .lr = 1e-2,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.01,
                               .grad_scale = 0.5};
        struct parity_case c = {.run = run_adamw, .args = &a, .name = "adamw"};
        for (int o = 0; o < 4; o++) parity_operand(&c, OPERAND_REAL, o < 3, a.count, 1);
        for (int64_t j = 0; j < a.count; j++) {
            double *v = &c.operand[2].value[j];
            *v = *v * *v;
        }
        cpu_check(&c);
    }
}

static int run_norm(struct parity_run *run, const void *args, struct error *err)
{
    struct norm_args a = *(const struct norm_args *)args;
    double sum = 0;
    a.dtype = run->dtype;
    a.x = run->data[0];
    a.sum_of_squares = &sum;
    int rc = run->k->norm(run->d, &a, err);
    dtype_set(run->data[1], run->real, 0, sum);
    return rc;
}

void test_norm(void **unused)
{
    for (int i = 0; i < 2; i++) {
        struct norm_args a = {.count = i ? 70001 : 3};
        struct parity_case c = {.run = run_norm, .args = &a, .name = "norm"};
        parity_operand(&c, OPERAND_ACTIVATION, false, a.count, 1);
        parity_operand(&c, OPERAND_REAL, true, 1, 1);
        cpu_check(&c);
    }
}
