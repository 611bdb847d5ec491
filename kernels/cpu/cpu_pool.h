/*
 * cpu_pool.h - the threads of the CPU device.
 *
 * Place    below every kernel of kernels/cpu: pool_run splits a kernel into numbered tasks.
 * Owner    the device; one caller at a time. The caller's thread works too (as worker 0).
 * Failure  pool_new: ERR_NO_MEMORY. A thread that cannot be started means fewer workers.
 *
 * Workers spin for a few microseconds after a task, then sleep on a futex, so that pools of several
 * processes on one machine do not starve each other. A pool_run inside a task runs its tasks on
 * the calling worker alone.
 */
#ifndef KERNELS_CPU_CPU_POOL_H
#define KERNELS_CPU_CPU_POOL_H

#include <stdint.h>

#include "base/error.h"

#define POOL_THREADS_MAX 256
#define POOL_NODES_MAX 16 /* shares of a job; workers of further nodes belong to the last */

struct pool;
struct topology;

/* task in [0, tasks), worker in [0, pool_threads) */
typedef void (*pool_task)(void *context, int64_t task, int worker);

/* threads 0: one a physical core that this process may use, fewer where its control group has less time.
 * Where they are pinned is cpu_topology.h's; KILN_CPU_PIN=0 leaves it to the scheduler. */
int pool_new(struct pool **pool, int threads, struct error *err);
/* The same on a machine that looks so. */
int pool_new_on(struct pool **pool, const struct topology *t, int threads, struct error *err);
void pool_free(struct pool *pool);
/* Nodes that pinned workers lie on, bit by bit; more than one bit: memory that all read may be spread. */
uint64_t pool_memory_nodes(const struct pool *pool);
int pool_threads(const struct pool *pool);
void pool_run(struct pool *pool, int64_t tasks, pool_task function, void *context);

#endif
