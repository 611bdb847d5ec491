/* Attention forward and backward: the CUDA kernels in the emulator against plain loops. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;

struct attention_case {
    int64_t n, heads, lq, lk, d;
    int64_t pad; /* elements between the rows of q, k, v, as in a fused QKV */
    bool causal, backward, accumulate;
};

static void run(enum dtype dtype, struct attention_case c)
{
    int64_t width = c.heads * c.d, ld = width + c.pad;
    cuda_parity_case(&p, "attention n %d heads %d lq %d lk %d d %d%s %s", (int)c.n, (int)c.heads,
                     (int)c.lq, (int)c.lk, (int)c.d, c.causal ? " causal" : "", dtype_name(dtype));
    struct operand *q = cuda_parity_random(&p, dtype, c.n * c.lq * ld, 1);
    struct operand *k = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    struct operand *v = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    struct operand *y = cuda_parity_result(&p, dtype, c.n * c.lq * width);
    struct operand *lse = cuda_parity_result(&p, DTYPE_F32, c.n * c.heads * c.lq);
    struct attention_args of[SIDE_COUNT];
    CUDA_RUN(&p, attention, attention_args,
             {.y = AT(y),
              .q = AT(q),
              .k = AT(k),
              .v = AT(v),
              .lse = AT(lse),
              .n = c.n,
              .heads = c.heads,
              .lq = c.lq,
              .lk = c.lk,
              .d = c.d,
              .ldq = ld,
              .ldk = ld,
              .ldv = ld,
              .ldy = width,
              .scale = 1 / sqrt((double)c.d),
              .causal = c.causal,
              .dtype = cuda_parity_dtype(y, side)};
             of[side] = args);
    cuda_parity_compare(&p, y, "y");
    cuda_parity_compare_absolute(&p, lse, "log-sum-exp", dtype == DTYPE_F32 ? 2e-6 : 1e-5);
    if (!c.backward) return;
    struct operand *dy = cuda_parity_random(&p, dtype, c.n * c.lq * width, 1);
    struct operand *dq = cuda_parity_random(&p, dtype, c.n * c.lq * ld, 1);
    struct operand *dk = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    struct operand *dv = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    CUDA_RUN(&p, attention_grad, attention_grad_args,
             {.forward = of[side],
              .dy = AT(dy),
              .dq = AT(dq),
              .dk = AT(dk),
              .dv = AT(dv),
              .accumulate = c.accumulate});
    cuda_parity_compare(&p, dq, "dq");
    cuda_parity_compare(&p, dk, "dk");
    cuda_parity_compare(&p, dv, "dv");
}

static void head_sizes(void **state)
{
    static const int64_t sizes[] = {8, 24, 40, 64, 80, 128, 160, 168, 512};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        bool grad = sizes[i] <= 160;
        run(DTYPE_F16,
            (struct attention_case){
                .n = 1, .heads = 2, .lq = 65, .lk = 67, .d = sizes[i], .backward = grad});
        run(DTYPE_BF16, (struct attention_case){.n = 1,
                                                .heads = 1,
                                                .lq = 33,
                                                .lk = 130,
                                                .d = sizes[i],
                                                .backward = grad,
                                                .accumulate = true});
    }
}

/* a prompt's 77 tokens go through one tile of 80; 64, 78, 80 and 81 stand around it */
static void key_counts(void **state)
{
    static const int64_t keys[] = {1, 16, 64, 65, 77, 78, 80, 81, 128};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        run(DTYPE_F16,
            (struct attention_case){.n = 2, .heads = 1, .lq = 64, .lk = keys[i], .d = 40});
        run(DTYPE_F16,
            (struct attention_case){.n = 1, .heads = 1, .lq = 20, .lk = keys[i], .d = 160});
    }
}

static void causal(void **state)
{
    run(DTYPE_F16, (struct attention_case){.n = 2,
                                           .heads = 2,
                                           .lq = 77,
                                           .lk = 77,
                                           .d = 64,
                                           .pad = 64,
                                           .causal = true,
                                           .backward = true});
    run(DTYPE_F16,
        (struct attention_case){
            .n = 1, .heads = 1, .lq = 150, .lk = 150, .d = 40, .causal = true, .backward = true});
    run(DTYPE_BF16,
        (struct attention_case){
            .n = 1, .heads = 1, .lq = 70, .lk = 90, .d = 128, .causal = true, .backward = true});
    run(DTYPE_F16,
        (struct attention_case){.n = 1, .heads = 1, .lq = 40, .lk = 40, .d = 256, .causal = true});
    run(DTYPE_F32,
        (struct attention_case){
            .n = 1, .heads = 2, .lq = 19, .lk = 19, .d = 12, .causal = true, .backward = true});
}

/* rows inside a fused QKV result, and shapes that only the simple kernels take */
static void other_layouts(void **state)
{
    run(DTYPE_F16,
        (struct attention_case){
            .n = 2, .heads = 2, .lq = 48, .lk = 48, .d = 40, .pad = 160, .backward = true});
    run(DTYPE_F16,
        (struct attention_case){.n = 1, .heads = 3, .lq = 9, .lk = 11, .d = 5, .backward = true});
    run(DTYPE_BF16,
        (struct attention_case){.n = 1, .heads = 1, .lq = 5, .lk = 7, .d = 65, .backward = true});
    run(DTYPE_F32,
        (struct attention_case){
            .n = 2, .heads = 2, .lq = 13, .lk = 9, .d = 40, .backward = true, .accumulate = true});
    run(DTYPE_F32,
        (struct attention_case){.n = 1, .heads = 1, .lq = 6, .lk = 5, .d = 200, .backward = true});
}

/* even head sizes whose rows do not begin at 16 bytes */
static void unaligned(void **state)
{
    static const int64_t sizes[] = {4, 10, 42, 100};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        run(DTYPE_F16, (struct attention_case){.n = 2,
                                               .heads = 3,
                                               .lq = 35,
                                               .lk = 70,
                                               .d = sizes[i],
                                               .pad = 2,
                                               .backward = true,
                                               .accumulate = i % 2 == 0});
        run(DTYPE_BF16, (struct attention_case){.n = 1,
                                                .heads = 2,
                                                .lq = 70,
                                                .lk = 70,
                                                .d = sizes[i],
                                                .causal = true,
                                                .backward = true});
    }
}

static void no_bank_conflicts(void **state)
{
    static const int64_t sizes[] = {40, 64, 80, 128, 160};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        emulator_count_reset();
        run(DTYPE_F16,
            (struct attention_case){
                .n = 1, .heads = 1, .lq = 64, .lk = 64, .d = sizes[i], .backward = true});
        assert_int_equal(emulator_count().bank_conflicts, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_sizes), cmocka_unit_test(key_counts),
        cmocka_unit_test(causal),     cmocka_unit_test(other_layouts),
        cmocka_unit_test(unaligned),  cmocka_unit_test(no_bank_conflicts),
    };
    return cuda_parity_main("cuda_attention", tests, COUNT_OF(tests), &p);
}
