/*
 * parity.h - one case, run by three back ends.
 *
 * Place    tests/parity. A case lists its operands and calls one kernel; parity_check runs it with
 *          the plain kernels built over double (the reference), with the plain kernels in the
 *          storage dtype, and with the back end under test.
 * Owner    the case; parity_case_release frees the values.
 * Failure  a cmocka assertion that names case, dtype and both errors.
 *
 * The rule (style): the back end may err at most twice as far from the reference as the plain
 * kernel in the same dtype does, in the root mean square and at the worst element.
 */
#ifndef TESTS_PARITY_PARITY_H
#define TESTS_PARITY_PARITY_H

#include "kernels/device.h"

enum operand_kind {
    OPERAND_ACTIVATION, /* stored in the dtype under test */
    OPERAND_REAL,       /* F32, F64 in the reference */
    OPERAND_WEIGHT,     /* F32, F64 in the reference; values rounded to the dtype under test */
};

#define OPERANDS_MAX 12

struct operand {
    enum operand_kind kind;
    bool output; /* compared afterwards */
    int64_t count;
    double *value; /* initial */
    void *data;    /* in the run at hand */
};

/* What a run of a case may use. */
struct parity_run {
    const struct kernels *k;
    struct device *d;
    enum dtype dtype; /* of activations */
    enum dtype real;  /* F32, or F64 in the reference */
    void *data[OPERANDS_MAX];
    struct kernel_weight weight; /* filled from the OPERAND_WEIGHT, if any */
};

struct parity_case {
    char name[160];
    struct operand operand[OPERANDS_MAX];
    int operands;
    int rank;
    int64_t dim[4]; /* of the weight */
    int (*run)(struct parity_run *run, const void *args, struct error *err);
    const void *args;
};

/* Adds an operand of random normal values times scale; returns its index. */
int parity_operand(struct parity_case *c, enum operand_kind kind, bool output, int64_t count,
                   double scale);
/* The same with the back end's weights stored in that type; values are rounded to it for all three. */
void parity_check_stored(struct parity_case *c, struct device *device, enum dtype dtype,
                         enum dtype stored);
void parity_check(struct parity_case *c, struct device *device, enum dtype dtype);
void parity_case_release(struct parity_case *c);

void parity_seed(uint64_t seed); /* prints it */
double parity_uniform(void);     /* [0,1) */
int64_t parity_between(int64_t low, int64_t high);

/* The plain kernels over double, from the shared object beside the tests. */
const struct kernels *parity_reference(void);

#endif
