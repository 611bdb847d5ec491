#include "kernels/cpu/cpu_topology.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define NODES_MAX 256

/* The first line of a small file, empty where there is none. */
static bool read_line(char *line, int room, const char *path)
{
    *line = 0;
    FILE *f = fopen(path, "r");
    if (!f) return false;
    bool read = fgets(line, room, f) != NULL;
    fclose(f);
    return read;
}

/* "0-3,8,10-11" into flags */
static void read_list(bool in[TOPOLOGY_CPUS_MAX], const char *line)
{
    memset(in, 0, TOPOLOGY_CPUS_MAX * sizeof *in);
    for (const char *at = line; *at >= '0' && *at <= '9';) {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (long i = first; i <= last && i < TOPOLOGY_CPUS_MAX; i++) in[i] = true;
        at = *end == ',' ? end + 1 : end;
    }
}

/* "package:core" of a CPU, or -1 where the kernel does not say. */
static int64_t core_of(const char *root, int cpu)
{
    static const char *const part[2] = {"physical_package_id", "core_id"};
    int64_t id = 0;
    for (int i = 0; i < 2; i++) {
        char path[PATH_MAX], line[64], *end;
        snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/topology/%s", root, cpu, part[i]);
        if (!read_line(line, sizeof line, path)) return -1;
        long value = strtol(line, &end, 10);
        if (end == line) return -1;
        id = id << 32 | (uint32_t)value;
    }
    return id;
}

static void read_nodes(int node_of[TOPOLOGY_CPUS_MAX], const char *root)
{
    memset(node_of, 0, TOPOLOGY_CPUS_MAX * sizeof *node_of);
    for (int node = 0; node < NODES_MAX; node++) {
        char path[PATH_MAX], line[4096];
        bool in[TOPOLOGY_CPUS_MAX];
        snprintf(path, sizeof path, "%s/devices/system/node/node%d/cpulist", root, node);
        if (!read_line(line, sizeof line, path)) continue; /* numbers may have gaps */
        read_list(in, line);
        for (int i = 0; i < TOPOLOGY_CPUS_MAX; i++)
            if (in[i]) node_of[i] = node;
    }
}

/* Room for CPUs that are the first, or the later, threads of their cores, those of a node together. */
static void add_cpus(struct topology *t, const int node_of[TOPOLOGY_CPUS_MAX],
                     const bool wanted[TOPOLOGY_CPUS_MAX])
{
    for (int node = 0; node < NODES_MAX; node++)
        for (int i = 0; i < TOPOLOGY_CPUS_MAX && t->count < POOL_THREADS_MAX; i++) {
            if (!wanted[i] || node_of[i] != node) continue;
            t->node[t->count] = node;
            t->cpu[t->count++] = i;
        }
}

void topology_read(struct topology *t, const char *root, const bool allowed[TOPOLOGY_CPUS_MAX])
{
    *t = (struct topology){0};
    char path[PATH_MAX], line[4096];
    bool online[TOPOLOGY_CPUS_MAX], first[TOPOLOGY_CPUS_MAX] = {0}, later[TOPOLOGY_CPUS_MAX] = {0};
    int node_of[TOPOLOGY_CPUS_MAX], firsts = 0;
    int64_t core[TOPOLOGY_CPUS_MAX];
    snprintf(path, sizeof path, "%s/devices/system/cpu/online", root);
    bool known = read_line(line, sizeof line, path);
    read_list(online, line);
    read_nodes(node_of, root);
    for (int i = 0; i < TOPOLOGY_CPUS_MAX; i++) {
        if (!allowed[i] || (known && !online[i])) continue;
        int64_t id = core_of(root, i);
        bool twin = false;
        for (int j = 0; id >= 0 && j < firsts; j++) twin = twin || core[j] == id;
        (twin ? later : first)[i] = true;
        if (!twin) core[firsts++] = id;
    }
    add_cpus(t, node_of, first);
    t->cores = t->count;
    add_cpus(t, node_of, later);
    bool used[NODES_MAX] = {0};
    for (int i = 0; i < t->count; i++) {
        t->nodes += !used[t->node[i]];
        used[t->node[i]] = true;
    }
    if (!t->nodes) t->nodes = 1;
}

int topology_quota(const char *root, const char *group)
{
    int least = 0;
    char at[PATH_MAX / 2];
    str_copy(at, sizeof at, group);
    for (;;) {
        char path[PATH_MAX], line[64];
        long long quota, period;
        snprintf(path, sizeof path, "%s/fs/cgroup%s/cpu.max", root, at);
        if (read_line(line, sizeof line, path) && sscanf(line, "%lld %lld", &quota, &period) == 2 &&
            quota > 0 && period > 0) {
            long long cpus = (quota - 1) / period + 1;
            if (cpus < INT_MAX && (!least || cpus < least)) least = (int)cpus;
        }
        char *slash = strrchr(at, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

bool topology_pins(const struct topology *t, int threads, const char *asked)
{
    if (asked && strcmp(asked, "0") == 0) return false;
    return threads <= t->count && (t->nodes > 1 || t->count > t->cores);
}
