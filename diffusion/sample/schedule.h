/*
 * schedule.h - which sigmas a run of n steps visits.
 *
 * Place    between the request (schedule, steps, denoise, sampler) and the sampler.
 * Owner    results are the caller's (free). Any thread.
 * Failure  ERR_INVALID for a step count the schedule cannot give.
 * Source   comfyanonymous/ComfyUI comfy/samplers.py (the Horde's worker), Karras et al. 2022,
 *          Sabour et al. 2024 (AYS), Chen et al. 2024 (GITS).
 */
#ifndef SAMPLE_SCHEDULE_H
#define SAMPLE_SCHEDULE_H

#include "base/error.h"
#include "diffusion/sample/noise_levels.h"
#include "proto/terms.h"

#define SCHEDULE_STEPS_MAX 50001 /* 500 steps at denoise 0.01, and the one that dpm_2 loses */

/* Sigmas of a run, descending, the last 0. */
struct sigmas {
    double *value; /* count of them */
    int count;     /* steps + 1 */
};

/* The bare schedule: steps + 1 values (ddim_uniform: one more for some step
 * counts; beta: fewer for many steps). */
int schedule_make(struct sigmas *s, enum schedule schedule, const struct noise_levels *levels,
                  enum family family, int steps, struct error *err);

/* What a run uses: denoise < 1 keeps the last steps + 1 values of trunc(steps / denoise) steps; the
 * samplers that need it (dpm_2, dpm_2_a, uni_pc, uni_pc_bh2) lose the second last. A level that comes
 * twice (`simple` of more than 1000 steps) is visited once. */
int schedule_for_run(struct sigmas *s, enum schedule schedule, enum sampler sampler,
                     const struct noise_levels *levels, enum family family, int steps,
                     double denoise, struct error *err);
void sigmas_release(struct sigmas *s);

/* x = latent + noise * factor at the first sigma: sqrt(1 + sigma^2) when it is the schedule's
 * maximum (pure noise), else sigma. */
double schedule_noise_factor(const struct noise_levels *levels, double first_sigma);

#endif
