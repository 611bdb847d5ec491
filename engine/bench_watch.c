#include "engine/bench_watch.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/now.h"
#include "kernels/cpu/cpu_device.h"

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool is_cpu(const struct bench_watch *w)
{
    return w->device && w->device->kernels == &cpu_kernels;
}

void watch_start(struct bench_watch *w)
{
    w->flop = is_cpu(w) ? cpu_flops(w->device) : 0;
    w->cpu = cpu_seconds();
    w->wall = now_seconds();
}

void watch_read(const struct bench_watch *w, double *wall, double *cpu)
{
    *wall = now_seconds() - w->wall;
    *cpu = cpu_seconds() - w->cpu;
}

static struct watch_part *part_of(struct bench_watch *w, const char *name)
{
    struct watch_part *p = w->part;
    while (p < w->part + w->parts && strcmp(p->name, name) != 0) p++;
    if (p == w->part + WATCH_PARTS_MAX) return NULL;
    if (p == w->part + w->parts) {
        w->parts++;
        p->name = name;
    }
    return p;
}

const struct watch_part *watch_find(const struct bench_watch *w, const char *name)
{
    for (int i = 0; i < w->parts; i++)
        if (strcmp(w->part[i].name, name) == 0) return &w->part[i];
    return NULL;
}

void watch_add(struct bench_watch *w, const char *name, double wall, double cpu)
{
    struct watch_part *p = part_of(w, name);
    if (!p || p->runs == WATCH_RUNS_MAX) return;
    p->wall[p->runs] = wall;
    p->cpu[p->runs++] = cpu;
    if (w->quiet) return;
    printf("%s wall %.3f cpu %.3f\n", name, wall, cpu);
    fflush(stdout);
}

void watch_stop(struct bench_watch *w, const char *name)
{
    double wall, cpu;
    watch_read(w, &wall, &cpu);
    watch_add(w, name, wall, cpu);
    struct watch_part *p = part_of(w, name);
    if (p) p->flop = is_cpu(w) ? cpu_flops(w->device) - w->flop : 0;
}

void watch_peak(struct bench_watch *w, enum dtype dtype, bool after)
{
    if (!is_cpu(w)) return;
    double rate = cpu_peak_gflops(w->device, dtype, 0.2);
    if (after)
        w->peak_after = rate;
    else
        w->peak_before = rate;
}

int watch_peak_mib(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (int)(use.ru_maxrss / 1024);
}

double watch_median(const double *value, int n)
{
    double sorted[WATCH_RUNS_MAX];
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && sorted[j - 1] > value[i]; j--) sorted[j] = sorted[j - 1];
        sorted[j] = value[i];
    }
    if (n == 0) return 0;
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* GFLOP/s in processor time, which other programs on the machine disturb less; 0: not counted */
static double rate_of(const struct bench_watch *w, double flop, double cpu)
{
    return flop > 0 && cpu > 0 ? flop / cpu * cpu_state(w->device)->threads * 1e-9 : 0;
}

static double peak_of(const struct bench_watch *w)
{
    return w->peak_after > 0 ? (w->peak_before + w->peak_after) / 2 : w->peak_before;
}

void watch_print(const struct bench_watch *w)
{
    printf("%-18s %5s %9s %9s %8s %9s %6s\n", "", "runs", "wall s", "cpu s", "TFLOP", "GFLOP/s",
           "peak");
    double peak = peak_of(w);
    for (int i = 0; i < w->parts; i++) {
        const struct watch_part *p = &w->part[i];
        double cpu = watch_median(p->cpu, p->runs), rate = rate_of(w, p->flop, cpu);
        printf("%-18s %5d %9.3f %9.3f", p->name, p->runs, watch_median(p->wall, p->runs), cpu);
        if (rate > 0) printf(" %8.3f %9.0f", p->flop * 1e-12, rate);
        if (rate > 0 && peak > 0) printf(" %5.0f%%", 100 * rate / peak);
        printf("\n");
    }
    if (peak > 0)
        printf("peak %.0f GFLOP/s before, %.0f after (products from registers, all threads)\n",
               w->peak_before, w->peak_after);
}

void watch_print_json(const struct bench_watch *w)
{
    printf("\"peak_gflops\": [%.1f, %.1f], \"parts\": [", w->peak_before, w->peak_after);
    for (int i = 0; i < w->parts; i++) {
        const struct watch_part *p = &w->part[i];
        double cpu = watch_median(p->cpu, p->runs);
        printf("%s{\"name\": \"%s\", \"runs\": %d, \"wall_seconds\": %.6f, \"cpu_seconds\": %.6f, "
               "\"tflop\": %.4f, \"gflops\": %.1f}",
               i ? ", " : "", p->name, p->runs, watch_median(p->wall, p->runs), cpu,
               p->flop * 1e-12, rate_of(w, p->flop, cpu));
    }
    printf("]");
}

void watch_print_ops(const struct bench_watch *w, const struct op_times *times, int64_t runs)
{
    if (runs < 1 || !times->count) return;
    int order[OP_TIMES_MAX];
    struct op_time all = {0};
    for (int i = 0; i < times->count; i++) {
        const struct op_time *item = &times->item[i];
        int j = i;
        for (; j > 0 && times->item[order[j - 1]].cpu < item->cpu; j--) order[j] = order[j - 1];
        order[j] = i;
        all.calls += item->calls;
        all.wall += item->wall;
        all.cpu += item->cpu;
        all.flop += item->flop;
    }
    double peak = peak_of(w), n = (double)runs;
    printf("\n%-18s %6s %9s %9s %6s %8s %9s %6s\n", "by kernel", "calls", "wall ms", "cpu ms",
           "share", "TFLOP", "GFLOP/s", "peak");
    for (int i = 0; i <= times->count; i++) {
        const struct op_time *item = i < times->count ? &times->item[order[i]] : &all;
        double rate = rate_of(w, item->flop, item->cpu);
        printf("%-18s %6.0f %9.1f %9.1f %5.1f%%", i < times->count ? item->name : "all",
               (double)item->calls / n, item->wall * 1e3 / n, item->cpu * 1e3 / n,
               100 * item->cpu / all.cpu);
        if (rate > 0) printf(" %8.3f %9.0f", item->flop * 1e-12 / n, rate);
        if (rate > 0 && peak > 0) printf(" %5.0f%%", 100 * rate / peak);
        printf("\n");
    }
}
