/*
 * energy.h - joules that the machine spent on a job, when something measures them.
 *
 * Place    around each job of the engine (reliability V3). The card's counter where the driver has one, else
 *          RAPL's package counter when it is readable; else nothing is claimed.
 * Owner    the caller's struct. One thread.
 * Failure  energy_since is NAN when nothing measures; energy_source says "n/a" then.
 * Source   Linux Documentation/power/powercap: energy_uj wraps at max_energy_range_uj.
 */
#ifndef ENGINE_ENERGY_H
#define ENGINE_ENERGY_H

struct nvml;

struct energy {
    struct nvml *nvml;   /* NULL: RAPL's */
    double start_joules; /* NAN: not measured */
    double range_joules;
};

void energy_start(struct energy *e, struct nvml *nvml);
double energy_since(const struct energy *e);
const char *energy_source(const struct energy *e); /* nvml, rapl or n/a */

#endif
