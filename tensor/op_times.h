/*
 * op_times.h - where the time of a pass goes, kernel by kernel.
 *
 * Place    benchmarks hang one on pass.times; without it nothing is measured. Meant for devices
 *          whose kernels have ended when the call returns (the CPU).
 * Owner    the caller's struct, zeroed but for `flops`. One thread, same as its pass.
 * Failure  cannot fail: past OP_TIMES_MAX names the rest counts as the last.
 */
#ifndef TENSOR_OP_TIMES_H
#define TENSOR_OP_TIMES_H

#include "kernels/device.h"

#define OP_TIMES_MAX 40

struct op_time {
    const char *name; /* the kernel's */
    int64_t calls;
    double wall, cpu; /* seconds; cpu is of all threads */
    double flop;
};

struct op_times {
    double (*flops)(struct device *d); /* operations done on the device so far; NULL: not counted */
    struct op_time item[OP_TIMES_MAX];
    int count;
    double wall, cpu, flop; /* when the call at hand began */
};

void op_times_start(struct op_times *t, struct device *d);
void op_times_stop(struct op_times *t, struct device *d, const char *name);

#endif
