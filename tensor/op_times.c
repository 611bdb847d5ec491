#include "tensor/op_times.h"

#include <string.h>
#include <time.h>

#include "base/now.h"

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void op_times_start(struct op_times *t, struct device *d)
{
    t->flop = t->flops ? t->flops(d) : 0;
    t->cpu = cpu_seconds();
    t->wall = now_seconds();
}

void op_times_stop(struct op_times *t, struct device *d, const char *name)
{
    double wall = now_seconds() - t->wall, cpu = cpu_seconds() - t->cpu;
    struct op_time *item = t->item;
    while (item < t->item + t->count && strcmp(item->name, name) != 0) item++;
    if (item == t->item + t->count) {
        if (t->count == OP_TIMES_MAX)
            item--;
        else
            *item = (struct op_time){.name = name}, t->count++;
    }
    item->calls++;
    item->wall += wall;
    item->cpu += cpu;
    if (t->flops) item->flop += t->flops(d) - t->flop;
}
