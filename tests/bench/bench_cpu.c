/* Speed of the CPU kernels on the shapes of one guided SD1.5 step at 512x512, op by op.
 *   bench_cpu [f32|bf16] [cpu:THREADS] [word that the op's name must hold]
 * Each op runs on random data; the median of several runs counts. "cpu" is processor time divided by the
 * threads, which other programs disturb less than the wall's; the share is of the register peak in the
 * same measure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/now.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/bench/unet_shapes.h"

static double median(double *t, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && t[j] < t[j - 1]; j--) {
            double swap = t[j];
            t[j] = t[j - 1];
            t[j - 1] = swap;
        }
    return t[n / 2];
}

/* Processor time of all threads: what a kernel costs when others share the machine. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    enum dtype dtype = argc > 1 && !strcmp(argv[1], "f32") ? DTYPE_F32 : DTYPE_BF16;
    const char *device_name = argc > 2 ? argv[2] : "cpu", *word = argc > 3 ? argv[3] : "";
    struct device *d;
    struct error err = {0};
    if (device_open(&d, device_name, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    double peak = cpu_peak_gflops(d, dtype, 0.3);
    printf("%s, %s, peak %.0f GFLOP/s\n", d->label, dtype_name(dtype), peak);
    double seconds = 0, seconds_wall = 0, flops = 0, by_kind[SHAPE_KINDS] = {0},
           flops_kind[SHAPE_KINDS] = {0};
    for (size_t i = 0; i < unet_shape_count; i++) {
        const struct unet_shape *s = &unet_shapes[i];
        if (!strstr(s->name, word)) continue;
        struct shape_run run;
        if (shape_run_init(&run, s, d, dtype, &err)) {
            fprintf(stderr, "%s: %s\n", s->name, err.text);
            return 1;
        }
        double wall[15], cpu[15], flop = shape_flops(s);
        shape_run_once(&run, &err);
        int n = 0;
        double begin = now_seconds();
        while (n < 5 || (n < 15 && now_seconds() - begin < 0.25)) {
            double start = now_seconds(), start_cpu = cpu_seconds();
            if (shape_run_once(&run, &err)) {
                fprintf(stderr, "%s: %s\n", s->name, err.text);
                return 1;
            }
            cpu[n] = (cpu_seconds() - start_cpu) / cpu_state(d)->threads;
            wall[n++] = now_seconds() - start;
        }
        shape_run_release(&run);
        double middle = median(cpu, n);
        seconds += middle * s->count;
        seconds_wall += median(wall, n) * s->count;
        flops += flop * s->count;
        by_kind[s->kind] += middle * s->count;
        flops_kind[s->kind] += flop * s->count;
        printf("%-30s x%-3d cpu %8.3f ms  wall %8.3f (least %8.3f)  %5.0f GFLOP/s %3.0f %%  all "
               "%7.1f ms\n",
               s->name, s->count, middle * 1e3, median(wall, n) * 1e3, wall[0] * 1e3,
               flop / middle * 1e-9, flop / middle * 1e-7 / peak, middle * s->count * 1e3);
    }
    for (int k = 0; k < SHAPE_KINDS; k++)
        if (by_kind[k] > 0)
            printf("%-12s %8.1f ms  %6.3f TFLOP  %5.0f GFLOP/s\n", shape_kind_name[k],
                   by_kind[k] * 1e3, flops_kind[k] * 1e-12, flops_kind[k] / by_kind[k] * 1e-9);
    double peak_after = cpu_peak_gflops(d, dtype, 0.3);
    printf("step cpu %.1f ms, wall %.1f ms, %.3f TFLOP, %.0f GFLOP/s = %.0f %% of peak (%.0f "
           "before, %.0f after)\n",
           seconds * 1e3, seconds_wall * 1e3, flops * 1e-12, flops / seconds * 1e-9,
           flops / seconds * 1e-7 / peak, peak, peak_after);
    device_close(d);
    return 0;
}
