/*
 * fake_nvml.c - a stand-in for NVIDIA's management library: it says what a file says.
 *
 * Place    KILN_NVML of an engine in tests; KILN_FAKE_NVML names the file, read at each call:
 *          "temperature watts joules foreign_percent lost".
 * Failure  without the file every question is NVML_ERROR_UNKNOWN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card);
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *degrees);
int nvmlDeviceGetPowerUsage(void *card, unsigned *milliwatts);
int nvmlDeviceGetTotalEnergyConsumption(void *card, unsigned long long *millijoules);
int nvmlDeviceGetMemoryInfo(void *card, unsigned long long *total_free_used);
int nvmlDeviceGetProcessUtilization(void *card, void *samples, unsigned *count,
                                    unsigned long long since);

struct sample {
    unsigned pid;
    unsigned long long time_us;
    unsigned sm, memory, encoder, decoder;
};

static int ask(double values[5])
{
    const char *path = getenv("KILN_FAKE_NVML");
    FILE *f = path ? fopen(path, "re") : NULL;
    if (!f) return 999;
    int got = fscanf(f, "%lf %lf %lf %lf %lf", &values[0], &values[1], &values[2], &values[3],
                     &values[4]);
    fclose(f);
    if (got != 5) return 999;
    return values[4] > 0 ? 15 : 0;
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card)
{
    static int one;
    *card = &one;
    return index ? 2 : 0;
}

int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *degrees)
{
    double v[5];
    int rc = ask(v);
    if (!rc) *degrees = (unsigned)v[0];
    return rc;
}

int nvmlDeviceGetPowerUsage(void *card, unsigned *milliwatts)
{
    double v[5];
    int rc = ask(v);
    if (!rc) *milliwatts = (unsigned)(v[1] * 1000);
    return rc;
}

int nvmlDeviceGetTotalEnergyConsumption(void *card, unsigned long long *millijoules)
{
    static double more; /* each question finds another joule spent */
    double v[5];
    int rc = ask(v);
    if (!rc) *millijoules = (unsigned long long)((v[2] + ++more) * 1000);
    return rc;
}

int nvmlDeviceGetMemoryInfo(void *card, unsigned long long *total_free_used)
{
    double v[5];
    int rc = ask(v);
    if (rc) return rc;
    total_free_used[0] = 8ull << 30;
    total_free_used[1] = 6ull << 30;
    total_free_used[2] = 2ull << 30;
    return 0;
}

int nvmlDeviceGetProcessUtilization(void *card, void *to, unsigned *count, unsigned long long since)
{
    double v[5];
    int rc = ask(v);
    if (rc) return rc;
    struct sample list[] = {{(unsigned)getpid(), 1000, 90, 0, 0, 0}, /* ours does not count */
                            {1, 500, 99, 0, 0, 0},                   /* an older one neither */
                            {1, 1000, (unsigned)v[3], 0, 0, 0}};
    if (*count < 3) return 7;
    memcpy(to, list, sizeof list);
    *count = 3;
    return 0;
}
