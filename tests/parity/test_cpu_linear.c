/* Linear layers and their gradients. Part of test_cpu. */
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "tests/parity/test_cpu.h"

struct linear_case {
    struct linear_args a;
    bool bias, row, add, in_place;
};

static int run_linear(struct parity_run *run, const void *args, struct error *err)
{
    const struct linear_case *c = args;
    struct linear_args a = c->a;
    a.dtype = run->dtype;
    a.w = &run->weight;
    a.x = run->data[0];
    a.y = run->data[2];
    a.epilogue.bias = c->bias ? run->data[3] : NULL;
    a.epilogue.bias_dtype = run->real;
    a.epilogue.row = c->row ? run->data[4] : NULL;
    a.epilogue.add = c->in_place ? run->data[2] : c->add ? run->data[5] : NULL;
    return run->k->linear(run->d, &a, err);
}

void linear_once(int64_t m, int64_t k, int64_t out, int64_t gap, enum activation act, int flags)
{
    struct linear_case l = {.a = {.m = m,
                                  .k = k,
                                  .out = out,
                                  .ldx = k + gap,
                                  .ldy = out + gap,
                                  .epilogue = {.act = act, .rows_per_image = (m + 1) / 2}},
                            .bias = flags & 1,
                            .row = flags & 2,
                            .add = flags & 4,
                            .in_place = flags & 8};
    struct parity_case c = {.run = run_linear, .args = &l, .rank = 2, .dim = {out, k}};
    snprintf(c.name, sizeof c.name, "linear %lldx%lldx%lld gap %lld act %d flags %d", (long long)m,
             (long long)out, (long long)k, (long long)gap, act, flags);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (k + gap), 1);
    parity_operand(&c, OPERAND_WEIGHT, false, out * k, 1 / sqrt((double)k));
    parity_operand(&c, OPERAND_ACTIVATION, true, m * (out + gap), 1);
    parity_operand(&c, OPERAND_REAL, false, out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, 2 * out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    cpu_check(&c);
}

void test_linear(void **unused)
{
    for (int act = 0; act < ACT_COUNT; act++) linear_once(17, 40, 33, 0, act, 7);
    for (int flags = 0; flags < 16; flags++) linear_once(31, 21, 37, 3, ACT_SILU, flags);
    static const int64_t edge[] = {1, 2, 13, 14, 15, 16, 28, 29, 32, 64, 65};
    for (size_t i = 0; i < COUNT_OF(edge); i++) {
        linear_once(edge[i], 19, 16, 0, ACT_NONE, 1);
        linear_once(9, edge[i], 16, 0, ACT_NONE, 1);
        linear_once(9, 19, edge[i], 0, ACT_NONE, 1);
    }
    linear_once(400, 77, 70, 0, ACT_NONE, 1);  /* several tasks of rows */
    linear_once(30, 1111, 50, 1, ACT_GELU, 7); /* several slices of K */
    linear_once(5, 600, 1100, 0, ACT_NONE, 0); /* several tasks of columns */
    for (int i = 0; i < 6; i++)
        linear_once(parity_between(1, 120), parity_between(1, 700), parity_between(1, 200),
                    parity_between(0, 5), ACT_NONE, (int)parity_between(0, 15));
}

RUN(run_linear_geglu, linear_args)
a.dtype = run->dtype;
a.w = &run->weight;
a.x = run->data[0];
a.y = run->data[2];
a.epilogue.bias_dtype = run->real;
if (a.epilogue.bias) a.epilogue.bias = run->data[3];
RUN_END(linear_geglu)

static void geglu_once(int64_t m, int64_t k, int64_t half, int64_t gap, bool bias)
{
    struct linear_args a = {.m = m,
                            .k = k,
                            .out = 2 * half,
                            .ldx = k + gap,
                            .ldy = half + gap,
                            .epilogue.bias = bias ? "" : NULL};
    struct parity_case c = {.run = run_linear_geglu, .args = &a, .rank = 2, .dim = {2 * half, k}};
    snprintf(c.name, sizeof c.name, "linear_geglu %lldx2*%lldx%lld gap %lld bias %d", (long long)m,
             (long long)half, (long long)k, (long long)gap, bias);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (k + gap), 1);
    parity_operand(&c, OPERAND_WEIGHT, false, 2 * half * k, 1 / sqrt((double)k));
    parity_operand(&c, OPERAND_ACTIVATION, true, m * (half + gap), 1);
    parity_operand(&c, OPERAND_REAL, false, 2 * half, 1);
    cpu_check(&c);
}

void test_linear_geglu(void **unused)
{
    static const int64_t edge[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 96};
    for (size_t i = 0; i < COUNT_OF(edge); i++) {
        geglu_once(29, 40, edge[i], 0, i % 2);
        geglu_once(9, edge[i], 64, 3, true);
        geglu_once(edge[i], 18, 35, 1, true);
    }
    geglu_once(500, 64, 128, 0, true);  /* several tasks of rows */
    geglu_once(30, 1300, 160, 0, true); /* slices of K */
    geglu_once(20, 900, 1320, 2,
               true); /* a weight packed in ranges of columns, the last one narrow */
    geglu_once(3, 2600, 1600, 0, true);
    for (int i = 0; i < 4; i++)
        geglu_once(parity_between(1, 120), parity_between(1, 700), parity_between(1, 200),
                   parity_between(0, 5), true);
}

RUN(run_linear_dx, linear_dx_args)
a.dtype = run->dtype;
a.w = &run->weight;
a.dy = run->data[0];
a.dx = run->data[2];
RUN_END(linear_dx)

RUN(run_linear_dw, linear_dw_args)
a.dtype = run->dtype;
a.dy = run->data[0];
a.x = run->data[1];
a.dw = run->data[2];
RUN_END(linear_dw)

void linear_grad_once(int64_t m, int64_t k, int64_t out, int64_t gap, bool accumulate)
{
    struct linear_dx_args dx = {
        .m = m, .k = k, .out = out, .ldx = k + gap, .ldy = out + gap, .accumulate = accumulate};
    struct parity_case c = {.run = run_linear_dx, .args = &dx, .rank = 2, .dim = {out, k}};
    snprintf(c.name, sizeof c.name, "linear_dx %lldx%lldx%lld", (long long)m, (long long)out,
             (long long)k);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    parity_operand(&c, OPERAND_WEIGHT, false, out * k, 1 / sqrt((double)out));
    parity_operand(&c, OPERAND_ACTIVATION, true, m * (k + gap), 1);
    cpu_check(&c);
    struct linear_dw_args dw = {.m = m, .k = k, .out = out, .ldx = k + gap, .ldy = out + gap};
    c = (struct parity_case){.run = run_linear_dw, .args = &dw};
    snprintf(c.name, sizeof c.name, "linear_dw %lldx%lldx%lld", (long long)m, (long long)out,
             (long long)k);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (out + gap), 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, m * (k + gap), 1);
    parity_operand(&c, OPERAND_REAL, true, out * k, 1);
    cpu_check(&c);
}

void test_linear_grad(void **unused)
{
    linear_grad_once(1, 1, 1, 0, false);
    linear_grad_once(64, 32, 64, 0, false);
    linear_grad_once(77, 45, 61, 2, true);
    linear_grad_once(600, 33, 20, 0, false);
    linear_grad_once(15, 300, 530, 1, true);
}
