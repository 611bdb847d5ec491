/*
 * nvml.h - what NVIDIA's driver says about a card: heat, power, energy, memory, who else uses it.
 *
 * Place    the heartbeat and the energy of a job. The library is opened at run time, so that one binary serves
 *          machines with and without it.
 * Owner    nvml_open / nvml_close; NULL stands for "nothing is known". Any thread, one at a time each call.
 * Failure  whatever cannot be read is NAN or 0. A card that fell off the bus says so once: `lost`.
 * Source   docs.nvidia.com/deploy/nvml-api (structs of version 1 and _v3 process lists); reliability V1, V3, E4.
 *
 * KILN_NVML names another library: tests give a stand-in, and then the CPU is asked about, too.
 */
#ifndef ENGINE_NVML_H
#define ENGINE_NVML_H

#include <stdbool.h>
#include <stdint.h>

struct nvml;

struct nvml_facts {
    double temperature_c, watts;
    double foreign_use; /* share of the card that other programs use, 0..1 */
    int64_t memory_bytes, free_bytes;
    bool lost; /* gone until the machine starts again */
};

/* NULL for a device that is no card, without the library, or when it does not start. */
struct nvml *nvml_open(const char *device);
void nvml_close(struct nvml *n);

void nvml_read(struct nvml *n, struct nvml_facts *facts);
/* Joules since the driver was loaded; NAN. */
double nvml_joules(struct nvml *n);

#endif
