/*
 * cuda_parity.h - one case, three tables: the CUDA kernels (emulated), plain loops in the same storage
 *            type, and plain loops over double as the truth.
 *
 * Place    tests/parity/test_*.c.
 * Owner    a struct cuda_parity for a program; operands live until cuda_parity_release.
 * Failure  asserts (cmocka).
 *
 * The rule: the error of a kernel against the truth is at most twice the error that the plain loops
 * make in the same storage type, measured as root mean square, and four times as a maximum. Outputs
 * that both get exactly right count as one unit in the last place of the largest value.
 */
#ifndef TESTS_PARITY_CUDA_PARITY_H
#define TESTS_PARITY_CUDA_PARITY_H

#include <stdbool.h>
#include <stdint.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/kernels.h"

enum side { SIDE_TRUTH, SIDE_PLAIN, SIDE_CUDA, SIDE_COUNT };

/* The same numbers for each side. */
struct operand {
    void *data[SIDE_COUNT];
    enum dtype dtype; /* of SIDE_PLAIN and SIDE_CUDA; the truth has F64 */
    int64_t count;
};

struct cuda_parity {
    struct device *device[SIDE_COUNT]; /* the truth's is a device of the double build */
    const struct kernels *kernels[SIDE_COUNT];
    uint64_t random;
    const char *label; /* of the case, for messages */
    struct operand *operands[256];
    int operand_count;
};

void cuda_parity_open(struct cuda_parity *p);
void cuda_parity_close(struct cuda_parity *p);
/* A case begins: its operands are freed by the next one. */
void cuda_parity_case(struct cuda_parity *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Normally distributed times `scale`, rounded to dtype, the same on all sides. */
struct operand *cuda_parity_random(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                   double scale);
struct operand *cuda_parity_constant(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                     double value);
/* Copies the numbers of one operand, e.g. for `+=` results. */
struct operand *cuda_parity_values(struct cuda_parity *p, enum dtype dtype, int64_t count,
                                   const double *value);
/* Not initialised (NaN). */
struct operand *cuda_parity_result(struct cuda_parity *p, enum dtype dtype, int64_t count);
enum dtype cuda_parity_dtype(const struct operand *o, enum side side);
/* A weight of that side; freed with the case. rank 2: {out, in}; 4: {out, c, kh, kw}. */
struct kernel_weight *cuda_parity_weight(struct cuda_parity *p, struct operand *o, enum side side,
                                         int rank, const int64_t *dim);

/* Runs after the three sides did: compares a result. */
void cuda_parity_compare(struct cuda_parity *p, const struct operand *result, const char *what);
/* The largest error is at most `limit`: for fp32 results whose plain error is accidental. */
void cuda_parity_compare_absolute(struct cuda_parity *p, const struct operand *result,
                                  const char *what, double limit);
/* |error| is at most `limit` of |truth|: for kernels that round on purpose. */
void cuda_parity_compare_relative(struct cuda_parity *p, const struct operand *result,
                                  const char *what, double limit);
/* The CUDA side finished, and the emulator saw nothing wrong. */
void cuda_parity_finish(struct cuda_parity *p);
/* What the last comparison measured: ratio of root mean squares. */
void cuda_parity_summary(void);

/* Runs the tests four times: in file order, with two seeded orders of blocks, warps and lanes, and
 * with the limits and instructions of sm_75;
 * the race and block checks are on. Returns the number of failed tests. */
int cuda_parity_main(const char *name, const struct CMUnitTest *tests, size_t count,
                     struct cuda_parity *p);
/* The same with other targets and orders. */
struct emulator_options;
int cuda_parity_main_on(const struct emulator_options *runs, size_t run_count, const char *name,
                        const struct CMUnitTest *tests, size_t count, struct cuda_parity *p);

#define CUDA_RUN(p, name, args_type, ...)                                                          \
    for (enum side side = 0; side < SIDE_COUNT; side++) {                                          \
        struct error err = {0};                                                                    \
        struct args_type args = __VA_ARGS__;                                                       \
        int rc = (p)->kernels[side]->name((p)->device[side], &args, &err);                         \
        if (rc) print_message("%s: side %d: %s\n", (p)->label, (int)side, err.text);               \
        assert_int_equal(rc, 0);                                                                   \
    }                                                                                              \
    cuda_parity_finish(p)

#define AT(o) ((o) ? (o)->data[side] : NULL)

#endif
