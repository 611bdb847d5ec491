/*
 * kernel_check.h - one family of kernels on a device: is it right beside the plain loops, and how fast
 *                  is it?
 *
 * Place    kernel_bench.c.
 * Owner    borrows the device for the call.
 * Failure  that of the kernels; ERR_NO_MEMORY. An error over the family's limit is a result, not a
 *          failure: the caller says what it means.
 */
#ifndef KERNELS_KERNEL_CHECK_H
#define KERNELS_KERNEL_CHECK_H

#include <stdbool.h>

#include "kernels/kernel_families.h"

struct kernel_check {
    bool there;     /* false: the back end composes this one */
    double error;   /* |err| / |ref|, the worst result; -1: not compared */
    double limit;   /* of it, for this dtype */
    double seconds; /* median of a call */
    double work;    /* FLOP, or bytes of all operands */
};

/* quick: small sizes, compared; else the large ones, timed for about `seconds`. */
int kernel_check_run(struct device *d, const struct family *f, enum dtype dtype, bool quick,
                     double seconds, uint64_t *random, struct kernel_check *result,
                     struct error *err);

#endif
