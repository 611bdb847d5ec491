/*
 * bench_watch.h - a stopwatch with names: wall and processor time and the arithmetic of each part.
 *
 * Place    engine_bench.c and train_bench.c. What it prints while it runs ("NAME wall S cpu S",
 *          "peak N MiB") is what `kiln bench --peer` reads of either side.
 * Owner    the caller's struct, zeroed but for device and quiet. One thread.
 * Failure  cannot fail.
 */
#ifndef ENGINE_BENCH_WATCH_H
#define ENGINE_BENCH_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/device.h"
#include "tensor/op_times.h"

#define WATCH_RUNS_MAX 100
#define WATCH_PARTS_MAX 12

struct watch_part {
    const char *name;
    double wall[WATCH_RUNS_MAX], cpu[WATCH_RUNS_MAX];
    double flop; /* of one run; 0: not counted */
    int runs;
};

struct bench_watch {
    struct device *device; /* NULL until it is open */
    bool quiet;            /* no lines while it runs */
    struct watch_part part[WATCH_PARTS_MAX];
    int parts;
    double peak_before, peak_after; /* GFLOP/s; 0: not measured */
    double wall, cpu, flop;         /* when the run at hand began */
};

void watch_start(struct bench_watch *w);
void watch_stop(struct bench_watch *w, const char *name);
/* A run made of others: `wall` and `cpu` are the caller's. */
void watch_add(struct bench_watch *w, const char *name, double wall, double cpu);
/* The time since watch_start, without an end. */
void watch_read(const struct bench_watch *w, double *wall, double *cpu);
const struct watch_part *watch_find(const struct bench_watch *w, const char *name);

/* What registers reach, on the CPU; nothing elsewhere. */
void watch_peak(struct bench_watch *w, enum dtype dtype, bool after);
int watch_peak_mib(void); /* of this process so far */

double watch_median(const double *value, int n);

void watch_print(const struct bench_watch *w);
/* "peak_gflops": [..], "parts": [..] */
void watch_print_json(const struct bench_watch *w);
/* What each kernel took of `runs` runs of a pass. */
void watch_print_ops(const struct bench_watch *w, const struct op_times *times, int64_t runs);

#endif
