/* Kernels that touch each element alone: GEGLU, activations, sums and products. Part of test_cpu. */
#include <stdio.h>

#include "base/alloc.h"
#include "tests/parity/test_cpu.h"

RUN(run_geglu, geglu_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(geglu)

RUN(run_geglu_grad, geglu_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.dy = run->data[1];
a.dx = run->data[2];
RUN_END(geglu_grad)

void test_geglu(void **unused)
{
    static const int64_t sizes[][2] = {{11, 37}, {50, 160}, {1, 17000}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        int64_t rows = sizes[i][0], d = sizes[i][1];
        struct geglu_args a = {.rows = rows, .d = d, .accumulate = i == 1};
        struct parity_case c = {.run = run_geglu, .args = &a, .name = "geglu"};
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d * 2, 2);
        parity_operand(&c, OPERAND_ACTIVATION, true, rows * d, 1);
        cpu_check(&c);
        c = (struct parity_case){.run = run_geglu_grad, .args = &a, .name = "geglu_grad"};
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d * 2, 2);
        parity_operand(&c, OPERAND_ACTIVATION, false, rows * d, 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, rows * d * 2, 1);
        cpu_check(&c);
    }
}

RUN(run_activation, activation_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.y = run->data[1];
RUN_END(activation)

RUN(run_activation_grad, activation_args)
a.dtype = run->dtype;
a.x = run->data[0];
a.dy = run->data[1];
a.dx = run->data[2];
RUN_END(activation_grad)

void test_activation(void **unused)
{
    for (int act = 0; act < ACT_COUNT; act++)
        for (int long_one = 0; long_one < 2; long_one++) {
            int64_t count = long_one ? 33333 : 221;
            struct activation_args a = {.count = count, .act = act, .accumulate = long_one};
            struct parity_case c = {.run = run_activation, .args = &a};
            snprintf(c.name, sizeof c.name, "activation %d, %lld", act, (long long)count);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 4);
            parity_operand(&c, OPERAND_ACTIVATION, true, count, 1);
            cpu_check(&c);
            c = (struct parity_case){.run = run_activation_grad, .args = &a};
            snprintf(c.name, sizeof c.name, "activation_grad %d, %lld", act, (long long)count);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 4);
            parity_operand(&c, OPERAND_ACTIVATION, false, count, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, count, 1);
            cpu_check(&c);
        }
}

struct pair_case {
    struct add_args add;
    struct mul_args mul;
    bool none;
};

static int run_add(struct parity_run *run, const void *args, struct error *err)
{
    const struct pair_case *c = args;
    struct add_args a = c->add;
    a.dtype = run->dtype;
    a.a = run->data[0];
    a.b = c->none ? NULL : run->data[1];
    a.y = run->data[2];
    return run->k->add(run->d, &a, err);
}

static int run_mul(struct parity_run *run, const void *args, struct error *err)
{
    const struct pair_case *c = args;
    struct mul_args a = c->mul;
    a.dtype = run->dtype;
    a.a = run->data[0];
    a.b = run->data[1];
    a.y = run->data[2];
    return run->k->mul(run->d, &a, err);
}

void test_pairs(void **unused)
{
    static const int64_t sizes[][2] = {
        {5, 5}, {40000, 40000}, {51, 17}, {36000, 18000}, {40000, 8}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct pair_case v = {
            .add = {.count = sizes[i][0], .b_count = sizes[i][1], .alpha = 0.75, .beta = -1.5},
            .mul = {.count = sizes[i][0], .accumulate = i % 2},
            .none = i == 1,
        };
        struct parity_case c = {.run = run_add, .args = &v};
        snprintf(c.name, sizeof c.name, "add %lld %lld", (long long)sizes[i][0],
                 (long long)sizes[i][1]);
        parity_operand(&c, OPERAND_ACTIVATION, false, sizes[i][0], 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, sizes[i][1], 1);
        parity_operand(&c, OPERAND_ACTIVATION, true, sizes[i][0], 1);
        cpu_check(&c);
        for (int repeats = 0; repeats < 2; repeats++) {
            c = (struct parity_case){.run = run_mul, .args = &v, .name = "mul"};
            v.mul.b_count = repeats ? sizes[i][1] : 0;
            for (int o = 0; o < 3; o++)
                parity_operand(&c, OPERAND_ACTIVATION, o == 2,
                               o == 1 && repeats ? sizes[i][1] : sizes[i][0], 1);
            cpu_check(&c);
        }
    }
}
