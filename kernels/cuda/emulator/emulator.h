/*
 * emulator.h - runs the CUDA kernel sources on the host, one thread block after the other, and
 * watches them for what a GPU would not tell.
 *
 * Place    below the emulated wrappers (wrap_emulated.h) and the emulated runtime; tests read the
 *          counters and the failure. Built for tests only.
 * Owner    one global machine. Any thread: a launch, a copy, an allocation is whole before another
 *          thread's begins. A capture is its thread's.
 * Failure  the first broken rule ends the launch and stays as emulator_failure() until cleared;
 *          every later launch is refused, as on a GPU after a sticky error.
 *
 * Rules checked: device memory range and alignment; shared memory range, alignment and poison
 * (NaN until written); asynchronous copies arrive only at the covering wait; two threads touching
 * one shared cell, one of them writing, with no barrier between; lanes of a warp that meet in
 * different collectives; barriers not reached by all; nobody runnable; two blocks of a launch that
 * touch one global cell, one of them writing; block and shared memory sizes against the target.
 * Not seen: weak memory, timing, spills, the hardware's rounding order inside an mma.
 */
#ifndef KERNELS_CUDA_EMULATOR_EMULATOR_H
#define KERNELS_CUDA_EMULATOR_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emulator_options {
    int target;        /* 75, 80, 86, 89, 90 or 120: limits and instruction forms; 0: what
                          KILN_EMULATOR_TARGET says, or 80 */
    uint64_t seed;     /* 0: file order of warps and lanes; else a seeded shuffle */
    bool check_races;  /* shadow of shared memory */
    uint64_t fail_at;  /* this launch and all after it fail as a broken card's do; 0: none. Also
                          KILN_EMULATOR_FAIL=N, for programs; =hang:N: launches from N on never
                          end; =copy:N and =copyhang:N: the same of the copies of a stream of copies;
                          =memory:MIB: the card has so little. With KILN_EMULATOR_FAIL_ONCE=FILE
                          only the process that can make FILE is struck */
    bool check_global; /* shadow of device memory (two blocks, one cell) */
};

struct emulator_counts {
    uint64_t launches, blocks, barriers, mma, matrix_loads, bank_conflicts, async_bytes;
    uint64_t load_bytes, store_bytes; /* global memory */
    uint64_t wgmma, tensor_loads;
};

void emulator_set(const struct emulator_options *options);
void emulator_get(struct emulator_options *options);
struct emulator_counts emulator_count(void);
void emulator_count_reset(void);
/* "race: shared cell 64 ... (gemm.cu:120)" or NULL. */
const char *emulator_failure(void);
void emulator_clear(void);

/* Device memory of the emulated machine: 256-byte aligned, filled with NaN, guarded on both sides
 * by address space that no kernel may touch. NULL when there is none (or over the set limit). */
void *emulator_alloc(size_t bytes);
void emulator_free(void *memory);
/* The allocation that holds [p, p + bytes)? */
bool emulator_owns(const void *p, size_t bytes);
void emulator_limit_memory(size_t bytes); /* 0: no limit; for out-of-memory tests */
size_t emulator_free_bytes(size_t of);    /* what is left of the limit, or of `of` */
/* The emulated card's clock: `ms` tells how long a kernel takes; NULL: no time passes. */
void emulator_set_clock(double (*ms)(const char *kernel, uint64_t blocks));
void emulator_clock_add(double ms);
double emulator_clock(void);
bool emulator_hangs(void);        /* a launch does not end */
void emulator_start_faults(void); /* reads the two variables above, once */

/* Held by the runtime around what takes more than one call. */
void emulator_lock(void);
void emulator_unlock(void);
/* One copy of a stream of copies, when its turn has come; a CUDA error number. */
int emulator_stream_copy(void *to, const void *from, size_t bytes);
/* The copies from this one on fail, or never end; counted from now. 0: none */
void emulator_fail_copies(uint64_t fail_at, uint64_t hang_at);

/* Limits of the target, as cudaDeviceGetAttribute tells them. */
size_t emulator_shared_limit(int target);

/* Between begin and end launches and copies are kept (with their parameters, as a CUDA graph does)
 * instead of done. end: NULL when something in between could not be kept. */
struct emulator_graph;
void emulator_capture_begin(void);
struct emulator_graph *emulator_capture_end(void);
bool emulator_capturing(void);
void emulator_capture_spoil(void); /* the host waited for the device, or wanted memory */
/* Keeps a copy (from NULL: zeros) while capturing; false: not capturing, do it now. */
bool emulator_capture_copy(void *to, const void *from, size_t bytes);
int emulator_graph_launch(const struct emulator_graph *graph);
void emulator_graph_free(struct emulator_graph *graph);

typedef void (*emulator_body)(const void *params);
/* 0, or the code a CUDA launch would give (9 invalid configuration, 719 launch failure). */
int emulator_launch(const char *name, emulator_body body, const void *params, size_t params_bytes,
                    unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block,
                    size_t shared_bytes);

#ifdef __cplusplus
}
#endif
#endif
