/* Group and layer norms, forward and back. Part of test_cpu. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "tests/parity/test_cpu.h"

struct norm_case {
    struct group_norm_args group;
    struct layer_norm_args layer;
    bool gamma, in_place, accumulate;
};

static struct group_norm_args group_args(struct parity_run *run, const struct norm_case *c)
{
    struct group_norm_args a = c->group;
    a.dtype = run->dtype;
    a.weight_dtype = run->real;
    a.x = run->data[0];
    a.gamma = c->gamma ? run->data[2] : NULL;
    a.beta = c->gamma ? run->data[3] : NULL;
    a.mean = run->data[4];
    a.rstd = run->data[5];
    return a;
}

static int run_group_norm(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct group_norm_args a = group_args(run, c);
    a.y = c->in_place ? run->data[0] : run->data[1];
    return run->k->group_norm(run->d, &a, err);
}

static int run_group_norm_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct group_norm_args a = group_args(run, c);
    size_t bytes = (size_t)(a.n * a.rows * a.c) * dtype_bytes(a.dtype);
    a.y = alloc_zero(1, bytes);
    int rc = run->k->group_norm(run->d, &a, err);
    free(a.y);
    struct group_norm_grad_args g = {.forward = a,
                                     .dy = run->data[1],
                                     .dx = run->data[6],
                                     .dgamma = run->data[7],
                                     .dbeta = run->data[8],
                                     .accumulate = c->accumulate};
    return rc ? rc : run->k->group_norm_grad(run->d, &g, err);
}

static void norm_operands(struct parity_case *c, int64_t count, int64_t width, int64_t groups,
                          bool grad, const struct norm_case *v)
{
    parity_operand(c, OPERAND_ACTIVATION, !grad && v->in_place, count, 1);
    for (int64_t i = 0; i < count; i++) c->operand[0].value[i] += 3; /* a mean to lose digits to */
    parity_operand(c, OPERAND_ACTIVATION, !grad, count, 1);
    parity_operand(c, OPERAND_REAL, false, width, 1);
    parity_operand(c, OPERAND_REAL, false, width, 1);
    parity_operand(c, OPERAND_REAL, true, groups, 1);
    parity_operand(c, OPERAND_REAL, true, groups, 1);
    if (!grad) return;
    parity_operand(c, OPERAND_ACTIVATION, true, count, 1);
    parity_operand(c, OPERAND_REAL, true, width, 1);
    parity_operand(c, OPERAND_REAL, true, width, 1);
}

static void group_once(int64_t n, int64_t rows, int64_t c, int64_t groups, enum activation act,
                       bool gamma, bool other)
{
    struct norm_case v = {
        .group = {.n = n, .rows = rows, .c = c, .groups = groups, .eps = 1e-5, .act = act},
        .gamma = gamma,
        .in_place = other,
        .accumulate = other};
    for (int grad = 0; grad < 2; grad++) {
        struct parity_case p = {.run = grad ? run_group_norm_grad : run_group_norm, .args = &v};
        snprintf(p.name, sizeof p.name, "group_norm%s n%lld rows %lld c %lld groups %lld act %d",
                 grad ? "_grad" : "", (long long)n, (long long)rows, (long long)c,
                 (long long)groups, act);
        norm_operands(&p, n * rows * c, c, n * groups, grad, &v);
        cpu_check(&p);
    }
}

void test_group_norm(void **unused)
{
    group_once(2, 9, 32, 8, ACT_NONE, true, false);
    group_once(1, 200, 60, 6, ACT_SILU, true, true);
    group_once(3, 65, 130, 10, ACT_SILU, true, false);
    group_once(1, 1, 32, 2, ACT_NONE, false, false);
    group_once(2, 300, 7, 1, ACT_SILU, true, true);
}

static struct layer_norm_args layer_args(struct parity_run *run, const struct norm_case *c)
{
    struct layer_norm_args a = c->layer;
    a.dtype = run->dtype;
    a.weight_dtype = run->real;
    a.x = run->data[0];
    a.gamma = c->gamma ? run->data[2] : NULL;
    a.beta = c->gamma ? run->data[3] : NULL;
    a.mean = run->data[4];
    a.rstd = run->data[5];
    return a;
}

static int run_layer_norm(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct layer_norm_args a = layer_args(run, c);
    a.y = c->in_place ? run->data[0] : run->data[1];
    return run->k->layer_norm(run->d, &a, err);
}

static int run_layer_norm_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct norm_case *c = args;
    struct layer_norm_args a = layer_args(run, c);
    a.y = alloc_zero((size_t)(a.rows * a.d), dtype_bytes(a.dtype));
    int rc = run->k->layer_norm(run->d, &a, err);
    free(a.y);
    struct layer_norm_grad_args g = {.forward = a,
                                     .dy = run->data[1],
                                     .dx = run->data[6],
                                     .dgamma = run->data[7],
                                     .dbeta = run->data[8],
                                     .accumulate = c->accumulate};
    return rc ? rc : run->k->layer_norm_grad(run->d, &g, err);
}

static void layer_once(int64_t rows, int64_t d, bool gamma, bool other)
{
    struct norm_case v = {.layer = {.rows = rows, .d = d, .eps = 1e-5},
                          .gamma = gamma,
                          .in_place = other,
                          .accumulate = other};
    for (int grad = 0; grad < 2; grad++) {
        struct parity_case p = {.run = grad ? run_layer_norm_grad : run_layer_norm, .args = &v};
        snprintf(p.name, sizeof p.name, "layer_norm%s %lldx%lld", grad ? "_grad" : "",
                 (long long)rows, (long long)d);
        norm_operands(&p, rows * d, d, rows, grad, &v);
        cpu_check(&p);
    }
}

void test_layer_norm(void **unused)
{
    layer_once(5, 64, true, false);
    layer_once(77, 100, true, true);
    layer_once(3, 7, false, false);
    layer_once(40, 320, true, false);
}
