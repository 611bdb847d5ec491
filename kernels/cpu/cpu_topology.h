/*
 * cpu_topology.h - which CPUs the pool's threads may use, and where they lie.
 *
 * Place    cpu_pool asks once, when it starts.
 * Owner    the caller's storage.
 * Failure  none: what sysfs does not tell counts as a core of its own on node 0, and as no quota.
 * Source   Linux, Documentation/ABI/stable/sysfs-devices-{node,system-cpu}, admin-guide/cgroup-v2.rst (cpu.max).
 */
#ifndef KERNELS_CPU_CPU_TOPOLOGY_H
#define KERNELS_CPU_CPU_TOPOLOGY_H

#include <stdbool.h>

#include "kernels/cpu/cpu_pool.h"

#define TOPOLOGY_CPUS_MAX 1024 /* numbers that an affinity mask has */

struct topology {
    int count;                 /* CPUs */
    int cores;                 /* the first so many of them are the first threads of their cores */
    int nodes;                 /* that those CPUs lie on, at least 1 */
    int cpu[POOL_THREADS_MAX]; /* cores first, node by node; then their second threads likewise */
    int node[POOL_THREADS_MAX];
};

/* Of the CPUs that are allowed and online. `root` is where sysfs is mounted. */
void topology_read(struct topology *t, const char *root, const bool allowed[TOPOLOGY_CPUS_MAX]);

/* Whole CPUs' worth of time that control group `group` ("/system.slice/x") and those above it leave,
 * rounded up; 0: no limit. */
int topology_quota(const char *root, const char *group);

/* Whether so many threads stay on one CPU each: it keeps two of them off one core's twin threads, and
 * each beside the memory it touched first. Where every CPU is a core of its own on one node, or there are
 * more threads than CPUs, the scheduler places them better. `asked` is KILN_CPU_PIN: "0" never. */
bool topology_pins(const struct topology *t, int threads, const char *asked);

#endif
