#include "engine/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"

#define LIBRARY "libnvidia-ml.so.1"
#define SAMPLES_MAX 128
#define LOST 15 /* NVML_ERROR_GPU_IS_LOST */
#define SAMPLE_AGE_US 3000000

struct memory_info {
    unsigned long long total, free, used;
};

struct use_sample {
    unsigned pid;
    unsigned long long time_us;
    unsigned sm, memory, encoder, decoder; /* per cent */
};

/* name in the library, then result and arguments; those marked 1 must be there */
#define CALLS(X)                                                                                   \
    X(init, "nvmlInit_v2", 1, (void))                                                              \
    X(shutdown, "nvmlShutdown", 1, (void))                                                         \
    X(handle, "nvmlDeviceGetHandleByIndex_v2", 1, (unsigned, void **))                             \
    X(temperature, "nvmlDeviceGetTemperature", 0, (void *, int, unsigned *))                       \
    X(power, "nvmlDeviceGetPowerUsage", 0, (void *, unsigned *))                                   \
    X(energy, "nvmlDeviceGetTotalEnergyConsumption", 0, (void *, unsigned long long *))            \
    X(memory, "nvmlDeviceGetMemoryInfo", 0, (void *, struct memory_info *))                        \
    X(use, "nvmlDeviceGetProcessUtilization", 0,                                                   \
      (void *, struct use_sample *, unsigned *, unsigned long long))

struct nvml {
    void *library, *card;
    bool lost;
#define X(name, symbol, needed, arguments) int(*name) arguments;
    CALLS(X)
#undef X
};

/* POSIX gives functions as objects; ISO C has no cast for it */
static bool find(void *library, const char *symbol, void *to)
{
    void *found = dlsym(library, symbol);
    memcpy(to, &found, sizeof found);
    return found != NULL;
}

static bool find_all(struct nvml *n)
{
    bool whole = true;
#define X(name, symbol, needed, arguments) whole &= find(n->library, symbol, &n->name) || !(needed);
    CALLS(X)
#undef X
    return whole;
}

struct nvml *nvml_open(const char *device)
{
    const char *path = getenv("KILN_NVML");
    bool card = str_starts(device, "cuda");
    if (!card && (!path || !*path)) return NULL;
    const char *colon = strchr(device, ':');
    uint64_t index = 0;
    if (card && colon && !str_parse_u64(colon + 1, &index)) return NULL;
    struct nvml *n = alloc_zero(1, sizeof *n);
    n->library = dlopen(path && *path ? path : LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (n->library && find_all(n) && !n->init()) {
        if (!n->handle((unsigned)index, &n->card)) return n;
        n->shutdown();
    }
    log_info("nvml.none", "device=%s", device);
    if (n->library) dlclose(n->library);
    free(n);
    return NULL;
}

void nvml_close(struct nvml *n)
{
    if (!n) return;
    n->shutdown();
    dlclose(n->library);
    free(n);
}

static bool good(struct nvml *n, int code)
{
    n->lost |= code == LOST;
    return !code;
}

/* Each program's newest sample, ours left out; samples of programs that have ended grow old. */
static double foreign_use(struct nvml *n)
{
    struct use_sample samples[SAMPLES_MAX];
    unsigned count = SAMPLES_MAX, sum = 0;
    unsigned long long newest = 0;
    if (!n->use) return NAN;
    int code = n->use(n->card, samples, &count, 0);
    if (code == 6) return 0; /* NVML_ERROR_NOT_FOUND: nobody used it */
    if (!good(n, code) || count > SAMPLES_MAX) return NAN;
    for (unsigned i = 0; i < count; i++)
        if (samples[i].time_us > newest) newest = samples[i].time_us;
    for (unsigned i = 0; i < count; i++) {
        bool last = samples[i].time_us + SAMPLE_AGE_US >= newest;
        for (unsigned k = 0; k < count; k++)
            last &= samples[k].pid != samples[i].pid || samples[k].time_us <= samples[i].time_us;
        if (last && samples[i].pid != (unsigned)getpid()) sum += samples[i].sm;
    }
    return sum > 100 ? 1 : sum / 100.0;
}

void nvml_read(struct nvml *n, struct nvml_facts *facts)
{
    unsigned value = 0;
    struct memory_info memory = {0};
    *facts = (struct nvml_facts){.temperature_c = NAN, .watts = NAN, .foreign_use = NAN};
    if (!n) return;
    if (n->temperature && good(n, n->temperature(n->card, 0, &value))) facts->temperature_c = value;
    if (n->power && good(n, n->power(n->card, &value))) facts->watts = value / 1000.0;
    if (n->memory && good(n, n->memory(n->card, &memory))) {
        facts->memory_bytes = (int64_t)memory.total;
        facts->free_bytes = (int64_t)memory.free;
    }
    facts->foreign_use = foreign_use(n);
    facts->lost = n->lost;
}

double nvml_joules(struct nvml *n)
{
    unsigned long long millijoules = 0;
    if (!n || !n->energy || !good(n, n->energy(n->card, &millijoules))) return NAN;
    return (double)millijoules / 1000;
}
