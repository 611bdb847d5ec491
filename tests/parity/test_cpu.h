/*
 * test_cpu.h - what the parts of test_cpu share: the CPU back end against the plain kernels.
 *
 * Place    test_cpu.c runs the list below once for each instruction set; test_cpu_*.c hold the tests by family
 *          of kernels.
 * Owner    test_cpu.c owns the device under test. One stream of random numbers runs through all tests of all
 *          paths, so their order is part of what the seed means.
 * Failure  a cmocka assertion that names case, dtype and both errors.
 */
#ifndef TESTS_PARITY_TEST_CPU_H
#define TESTS_PARITY_TEST_CPU_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/parity/parity.h"

#define CPU_TESTS(X)                                                                               \
    X(linear)                                                                                      \
    X(linear_geglu)                                                                                \
    X(linear_grad)                                                                                 \
    X(conv2d)                                                                                      \
    X(group_norm)                                                                                  \
    X(layer_norm)                                                                                  \
    X(attention)                                                                                   \
    X(geglu)                                                                                       \
    X(activation)                                                                                  \
    X(pairs)                                                                                       \
    X(copies)                                                                                      \
    X(transpose)                                                                                   \
    X(column_sum)                                                                                  \
    X(upsample)                                                                                    \
    X(windows)                                                                                     \
    X(embedding)                                                                                   \
    X(mse)                                                                                         \
    X(adamw)                                                                                       \
    X(norm)                                                                                        \
    X(same_for_all_threads)                                                                        \
    X(repacks_changed_weight)                                                                      \
    X(winograd_from_any_form)                                                                      \
    X(whole_blocks)                                                                                \
    X(kept_after_some_calls)                                                                       \
    X(weights_of_any_dtype)                                                                        \
    X(int8_exact)                                                                                  \
    X(int8_geglu)                                                                                  \
    X(int8_near)                                                                                   \
    X(norm_conv2d)                                                                                 \
    X(refuses)

#define X(test) void test_##test(void **unused);
CPU_TESTS(X)
#undef X

/* The case in fp32 and bf16, and where it has a weight, with weights of 16 bits; releases it. */
void cpu_check(struct parity_case *c);

/* A CPU device of its own; a failed test where there is none. */
struct device *cpu_opened(const char *options);

/* Defines a run: its arguments copied to `a`, which the lines between fill with operands. */
#define RUN(function, type)                                                                        \
    static int function(struct parity_run *run, const void *args, struct error *err)               \
    {                                                                                              \
        struct type a = *(const struct type *)args;

#define RUN_END(kernel)                                                                            \
    return run->k->kernel(run->d, &a, err);                                                        \
    }

/* one case of a layer; flags: 1 bias, 2 row, 4 add, 8 add in place, 16 SiLU (convolutions) */
void linear_once(int64_t m, int64_t k, int64_t out, int64_t gap, enum activation act, int flags);
void linear_grad_once(int64_t m, int64_t k, int64_t out, int64_t gap, bool accumulate);

struct conv_case {
    struct conv2d_args a;
    int flags;
    bool accumulate;
};
void conv_once(struct conv_case v);
/* n h w c out kernel stride pad up circular; output as a model would have it */
void conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t out, int kernel, int stride, int pad,
          int up, bool circular, int flags);

#endif
