/*
 * cpu_device.h - the CPU back end's own state.
 *
 * Place    behind struct device of "cpu"; kernels/device.c opens it.
 * Owner    cpu_device_open / device->close. One thread uses a device at a time.
 * Failure  ERR_INVALID for a thread count that is none, ERR_UNSUPPORTED for a forced path
 * (KILN_CPU) that the machine lacks, ERR_NO_MEMORY.
 */
#ifndef KERNELS_CPU_CPU_DEVICE_H
#define KERNELS_CPU_CPU_DEVICE_H

#include "kernels/cpu/cpu_pool.h"
#include "kernels/device.h"

/* Beside KERNEL_TABLE: linears joined (linear_join) gain nothing here, a task gathers few rows of x. */
#define CPU_FUSED_TABLE(X)                                                                         \
    X(linear_geglu, linear_args)                                                                   \
    KERNEL_BANDED_TABLE(X)

/* The two halves of GEMM scratch of one worker, see cpu_gemm.h. */
#define CPU_WORKER_BYTES ((size_t)3 << 20)
/* Of a picture in rows: half a last cache holds it and what is made of it. */
#define CPU_BAND_BYTES ((size_t)8 << 20)

struct cpu_state {
    struct pool *pool;
    int threads;
    uint64_t spread_nodes;       /* bit by bit; 0: memory stays with who touches it first */
    const struct kernels *table; /* of the chosen instruction set */
    int (*pack_forward)(struct device *d, struct kernel_weight *w, enum dtype activation_dtype,
                        struct error *err);
    double (*peak_loop)(int64_t rounds, enum dtype dtype);
    char *worker_memory; /* CPU_WORKER_BYTES for each worker */
    /* grows to what the largest kernel so far needed: packed keys, statistics, biases */
    char *scratch;
    size_t scratch_bytes, scratch_used;
    char *panels; /* a weight packed for the call at hand */
    size_t panels_bytes;
    char *band; /* some normalised rows of a picture, for the convolution that follows */
    size_t band_bytes, band_most; /* tests make bands small */
    double flops;                 /* products and sums of matrix kernels so far */
};

/* options: NULL (one thread a core) or a thread count in decimal. */
int cpu_device_open(struct device **device, const char *options, struct error *err);

/* What the device could do at most: GFLOP/s of products from registers, all threads, measured now
 * (`seconds` long). */
double cpu_peak_gflops(struct device *d, enum dtype dtype, double seconds);

/* Operations that linear, convolution, attention and their derivatives have done on this device. */
double cpu_flops(struct device *d);

static inline struct cpu_state *cpu_state(struct device *d)
{
    return d->state;
}

/* Scratch of one kernel call: cpu_scratch_start announces the total (rounded up by 64 bytes a
 * piece), cpu_scratch_take hands out pieces, 64-byte aligned, uninitialised. */
int cpu_scratch_start(struct device *d, size_t bytes, struct error *err);
void *cpu_scratch_take(struct device *d, size_t bytes);

/* `panels` of at least so many bytes, for this call. */
int cpu_panels_reserve(struct device *d, size_t bytes, struct error *err);
/* and `band`, which calls of other kernels leave alone. */
int cpu_band_reserve(struct device *d, size_t bytes, struct error *err);

static inline char *cpu_worker_memory(struct device *d, int worker)
{
    return cpu_state(d)->worker_memory + CPU_WORKER_BYTES * (size_t)worker;
}

/* Memory for weights and scratch: 64-byte aligned, huge pages where allowed. Freed with the size it was
 * asked for. */
void *cpu_big_alloc(size_t bytes);
/* For weights and panels, which the workers of all nodes read: pages go to the nodes in turn, before they are
 * first touched. On one node, or with KILN_CPU_NUMA=local, nothing happens, and where the kernel refuses. */
void cpu_spread(struct device *d, void *memory, size_t bytes);
/* These bytes of a read-only mapping will not be read soon; they come from the file when they are. */
void cpu_forget_pages(const void *data, size_t bytes);
void cpu_big_free(void *memory, size_t bytes);

#endif
