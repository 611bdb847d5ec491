/*
 * kernel_bench.h - times every kernel that matters on the shapes of Stable Diffusion.
 *
 * Place    `kiln bench kernels` (through kiln-engine, which may open devices); any device.
 * Owner    borrows the device for the run; its own memory comes and goes.
 * Failure  that of the kernels; a case that a device lacks is printed as such and skipped.
 *
 * Fresh random data, fp16 on a GPU. Each case is asked for many times, then waited for once; the
 * figure is the median of several such rounds. One line a case: milliseconds, useful TFLOP/s or GB/s,
 * the share of what the device reached in a register-only loop (device.peak) in the same run, and the
 * error of a sample of results against float64, as |err| / |ref|.
 * Behind those the rest of the table, family by family (kernel_families.h): times at full size, and with
 * `quick` every result against the plain loops in F32. One that is off by more than its limit is
 * ERR_DEVICE at the end.
 */
#ifndef KERNELS_KERNEL_BENCH_H
#define KERNELS_KERNEL_BENCH_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels/device.h"

struct kernel_bench_options {
    bool quick;       /* small shapes, one round: is it right, rather than how fast */
    bool json;        /* an array of objects instead of a table */
    const char *only; /* cases whose name contains this; NULL: all */
    double seconds;   /* about as long on a case; 0: 0.2 */
};

int kernel_bench_run(struct device *d, const struct kernel_bench_options *options, FILE *out,
                     struct error *err);

#endif
