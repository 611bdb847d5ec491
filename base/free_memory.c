#include "base/free_memory.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static size_t read_number(const char *path)
{
    unsigned long long value;
    FILE *f = fopen(path, "re");
    int got = f ? fscanf(f, "%llu", &value) : 0; /* "max" is no number: no limit */
    if (f) fclose(f);
    return got == 1 ? (size_t)value : SIZE_MAX;
}

static size_t machine_free(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && !kib && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib ? (size_t)kib * 1024 : SIZE_MAX;
}

/* Of our own group and all above it the tightest. */
static size_t group_free(void)
{
    char line[512], path[700];
    size_t least = SIZE_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    char *group = NULL;
    while (f && !group && fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0) group = line + 3;
    if (f) fclose(f);
    if (!group) return SIZE_MAX;
    group[strcspn(group, "\n")] = 0;
    while (*group) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
        size_t most = read_number(path);
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
        size_t used = read_number(path);
        size_t left = most == SIZE_MAX || used == SIZE_MAX ? SIZE_MAX
                      : most > used                        ? most - used
                                                           : 0;
        if (left < least) least = left;
        char *slash = strrchr(group, '/');
        if (!slash) break;
        *slash = 0;
    }
    return least;
}

size_t free_memory_bytes(void)
{
    size_t machine = machine_free(), group = group_free();
    return machine < group ? machine : group;
}
