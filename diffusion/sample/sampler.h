/*
 * sampler.h - from noise to a latent: one const table, one file a sampler.
 *
 * Place    called by pipeline.c with a denoiser (network + guidance); nothing here knows a network.
 * Owner    x is the caller's, changed in place; scratch lives inside the run. One thread.
 * Failure  the denoiser's or the hook's own code, at once (ERR_CANCELED from the hook stops a run);
 *          ERR_NO_MEMORY; ERR_INVALID for sigmas that do not descend; a result that is not finite
 *          is the caller's to judge.
 * Source   crowsonkb/k-diffusion sampling.py and ComfyUI's additions; papers are named in each
 * file.
 *
 * Arithmetic is float32 on the host over flat arrays (torch order; samplers mix no elements but for
 * the error norm of dpm_adaptive), scalars in double.
 */
#ifndef SAMPLE_SAMPLER_H
#define SAMPLE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "diffusion/sample/noise.h"
#include "proto/terms.h"

struct denoiser {
    void *context;
    /* denoised = D(x, sigma), guidance included; sigma > 0 */
    int (*denoise)(void *context, float *denoised, const float *x, double sigma, struct error *err);
};

struct sampler_run {
    struct denoiser denoiser;
    float *x; /* in: noisy latent; out: the result */
    size_t count;
    const double *sigmas; /* sigma_count values, descending; usually ending in 0 */
    int sigma_count;
    struct noise *noise; /* may be NULL for samplers that draw none */
    double eta;          /* NAN: the sampler's own */
    /* After each finished step i of `steps`; denoised is the newest D (for previews). May be NULL.
     */
    void *hook_context;
    int (*step_done)(void *context, int step, int steps, const float *denoised, struct error *err);
};

int sampler_run(enum sampler sampler, struct sampler_run *run, struct error *err);

/* Draws noise during steps: equal seeds give equal pictures only under the same enum noise_device.
 */
bool sampler_is_random(enum sampler sampler);

#endif
