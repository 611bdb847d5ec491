#include "engine/energy.h"

#include <math.h>
#include <stdio.h>

#include "engine/nvml.h"

#define RAPL "/sys/class/powercap/intel-rapl:0/"

static double read_joules(const char *path)
{
    unsigned long long microjoules;
    FILE *f = fopen(path, "re");
    if (!f) return NAN;
    int got = fscanf(f, "%llu", &microjoules);
    fclose(f);
    return got == 1 ? (double)microjoules * 1e-6 : NAN;
}

static double read_counter(const struct energy *e)
{
    return e->nvml ? nvml_joules(e->nvml) : read_joules(RAPL "energy_uj");
}

void energy_start(struct energy *e, struct nvml *nvml)
{
    e->nvml = nvml;
    e->start_joules = read_counter(e);
    if (isnan(e->start_joules)) e->nvml = NULL;
    if (nvml && !e->nvml) e->start_joules = read_counter(e);
    e->range_joules = read_joules(RAPL "max_energy_range_uj");
}

double energy_since(const struct energy *e)
{
    double joules = read_counter(e) - e->start_joules;
    if (e->nvml) return joules < 0 ? NAN : joules; /* the driver began anew */
    return joules < 0 ? joules + e->range_joules : joules;
}

const char *energy_source(const struct energy *e)
{
    return isnan(e->start_joules) ? "n/a" : e->nvml ? "nvml" : "rapl";
}
