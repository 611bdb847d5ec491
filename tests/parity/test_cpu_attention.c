/* Attention, forward and back. Part of test_cpu. */
#include <math.h>
#include <stdio.h>

#include "tests/parity/test_cpu.h"

struct attention_case {
    struct attention_args a;
    bool accumulate, lse;
};

static struct attention_args attention_args_of(struct parity_run *run,
                                               const struct attention_case *c)
{
    struct attention_args a = c->a;
    a.dtype = run->dtype;
    a.q = run->data[0];
    a.k = run->data[1];
    a.v = run->data[2];
    a.y = run->data[3];
    return a;
}

static int run_attention(struct parity_run *run, const void *args, struct error *err)
{
    const struct attention_case *c = args;
    struct attention_args a = attention_args_of(run, c);
    if (c->lse) a.lse = run->data[4];
    return run->k->attention(run->d, &a, err);
}

static int run_attention_grad(struct parity_run *run, const void *args, struct error *err)
{
    const struct attention_case *c = args;
    struct attention_args a = attention_args_of(run, c);
    a.lse = run->data[4];
    int rc = run->k->attention(run->d, &a, err);
    struct attention_grad_args g = {.forward = a,
                                    .dy = run->data[5],
                                    .dq = run->data[6],
                                    .dk = run->data[7],
                                    .dv = run->data[8],
                                    .accumulate = c->accumulate};
    return rc ? rc : run->k->attention_grad(run->d, &g, err);
}

static void attention_once(int64_t n, int64_t heads, int64_t lq, int64_t lk, int64_t d, bool causal,
                           int64_t gap, double spread)
{
    int64_t ld = heads * d + gap;
    struct attention_case v = {.a = {.n = n,
                                     .heads = heads,
                                     .lq = lq,
                                     .lk = lk,
                                     .d = d,
                                     .ldq = ld,
                                     .ldk = ld,
                                     .ldv = ld,
                                     .ldy = ld,
                                     .scale = 1 / sqrt((double)d),
                                     .causal = causal},
                               .accumulate = gap > 0};
    for (int i = 0; i < 3; i++) { /* inference, with sums, backward */
        int grad = i == 2;
        v.lse = i == 1;
        struct parity_case c = {.run = grad ? run_attention_grad : run_attention, .args = &v};
        snprintf(c.name, sizeof c.name, "attention%s n%lld heads %lld %lldx%lld d %lld causal %d",
                 grad ? "_grad" : "", (long long)n, (long long)heads, (long long)lq, (long long)lk,
                 (long long)d, causal);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lq * ld, spread);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lk * ld, 1);
        parity_operand(&c, OPERAND_ACTIVATION, false, n * lk * ld, 1);
        parity_operand(&c, OPERAND_ACTIVATION, !grad, n * lq * ld, 1);
        parity_operand(&c, OPERAND_REAL, !grad, n * heads * lq, 1);
        if (grad) {
            parity_operand(&c, OPERAND_ACTIVATION, false, n * lq * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lq * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lk * ld, 1);
            parity_operand(&c, OPERAND_ACTIVATION, true, n * lk * ld, 1);
        }
        cpu_check(&c);
    }
}

void test_attention(void **unused)
{
    attention_once(2, 2, 60, 77, 40, false, 0, 1);
    attention_once(1, 3, 77, 77, 64, true, 0, 1);
    attention_once(1, 1, 5, 1, 8, false, 0, 1);
    attention_once(2, 1, 33, 78, 80, false, 5, 1);
    attention_once(1, 2, 70, 300, 13, false, 2, 8); /* two blocks of keys, a rising maximum */
    attention_once(1, 1, 270, 270, 160, true, 0, 4);
    attention_once(1, 1, 20, 30, 512, false, 0, 1);
    attention_once(1, 1, 40, 600, 17, false, 0, 6);
    attention_once(2, 3, 7, 40, 16, false, 0, 1);
    attention_once(1, 1, 300, 1101, 16, false, 3, 2); /* two parts of keys, blocks of queries */
    attention_once(1, 1, 1100, 1100, 8, true, 0, 2);
    /* maxima far above the first keys': a block is done again */
    attention_once(1, 2, 40, 601, 24, false, 0, 40);
    attention_once(2, 1, 65, 300, 40, false, 0, 100);
    attention_once(1, 1, 33, 283, 64, false, 4, 1); /* an odd key alone in a second block */
}
