/*
 * plain.h - the back end that is obviously right.
 *
 * Place    the truth that cpu/ and cuda/ are compared with, and, built over double, the one whose
 *          derivatives are checked against central differences.
 * Owner    plain_device_open gives a device for device_close; kernels hold no state at all.
 * Failure  ERR_NO_MEMORY when the heap has no room for a widened copy.
 *
 * Every kernel is: widen what it reads into `real`, loop, store what it wrote. A dtype that is real
 * already is used in place.
 */
#ifndef KERNELS_PLAIN_PLAIN_H
#define KERNELS_PLAIN_PLAIN_H

#include <math.h>

#include "kernels/device.h"
#include "kernels/kernels.h"
#include "kernels/real.h"

#ifdef KILN_REAL_DOUBLE
#define REAL(function) function
#else
#define REAL(function) function##f
#endif

int plain_device_open(struct device **device, struct error *err);

/* The widened copies of one kernel call. */
#define PLAIN_SCRATCH_MAX 12
struct plain_scratch {
    struct plain_copy {
        real *copy;
        void *to; /* NULL: read only */
        enum dtype dtype;
        int64_t rows, cols, ld;
    } copies[PLAIN_SCRATCH_MAX];
    int count;
    bool failed;
};

/* NULL data gives NULL. `rows` rows of `cols` elements, `ld` apart, become contiguous. */
const real *plain_read(struct plain_scratch *s, const void *data, enum dtype dtype, int64_t count);
const real *plain_read_rows(struct plain_scratch *s, const void *data, enum dtype dtype,
                            int64_t rows, int64_t cols, int64_t ld);
/* Where to write; holds the old values when `keep`. plain_end stores it back. */
real *plain_write(struct plain_scratch *s, void *data, enum dtype dtype, int64_t count, bool keep);
real *plain_write_rows(struct plain_scratch *s, void *data, enum dtype dtype, int64_t rows,
                       int64_t cols, int64_t ld, bool keep);
real *plain_room(struct plain_scratch *s, int64_t count); /* zeroed */
/* Stores what was written, frees the copies. To be called once, also after a failure. */
int plain_end(struct plain_scratch *s, const char *kernel, struct error *err);

int64_t plain_weight_count(const struct kernel_weight *w);

real plain_act(enum activation act, real x);
real plain_act_slope(enum activation act, real x);

/* y[m,n] += a[m,k] b[k,n] */
void plain_matmul(real *y, const real *a, const real *b, int64_t m, int64_t n, int64_t k);

/* The common end of linear and conv2d on y [rows,out], see struct epilogue_args. */
int plain_epilogue(real *y, int64_t rows, int64_t out, const struct epilogue_args *e,
                   enum dtype dtype, int64_t ldadd, struct error *err);

#define X(name, args) int plain_##name(struct device *d, const struct args *a, struct error *err);
KERNEL_TABLE(X)
KERNEL_FUSED_TABLE(X)
#undef X

#endif
