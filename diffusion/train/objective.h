/*
 * objective.h - what a denoiser is asked to predict, and how much each answer counts.
 *
 * Place    host arithmetic between cached latents and a training pass.
 * Owner    the caller's struct, read-only after init. Any thread.
 * Failure  cannot fail.
 * Source   Ho et al. 2020 (epsilon), Salimans & Ho 2022 (v), Hang et al. 2023 (min-SNR), noise
 *          offset as in kohya-ss/sd-scripts. x_t = sqrt(a) z + sqrt(1 - a) n with a = alpha_bar(t).
 *          Pyramid ("multires") noise as there: level k is 2 to 4 times as coarse as k - 1, enlarged
 *          bilinearly, weighted discount^k, the sum divided by its standard deviation; its level 0
 *          is the noise itself (kohya adds a second one).
 *
 * Everything random about image `index` of step `step` comes from (seed, step, index) alone, so a run
 * that goes on after a kill draws what it would have drawn.
 */
#ifndef TRAIN_OBJECTIVE_H
#define TRAIN_OBJECTIVE_H

#include <stddef.h>
#include <stdint.h>

#include "diffusion/sample/noise_cpu.h"
#include "diffusion/sample/noise_levels.h"
#include "tensor/pass.h"

struct objective {
    struct noise_levels levels;
    enum prediction prediction;
    double min_snr;      /* gamma; 0: off */
    double noise_offset; /* 0: off */
    int pyramid;         /* coarser noises that are added; 0: off */
    double pyramid_discount;
    int t_min, t_max; /* timesteps drawn, inclusive */
};

void objective_init(struct objective *o, enum prediction prediction);

/* A generator for one purpose of one step. */
void objective_seed(struct noise_cpu *g, uint64_t seed, int64_t step, uint64_t index);
/* Timestep and noise of one image, in the latent's layout: [h,w,channels]. */
int objective_draw(const struct objective *o, struct noise_cpu *g, float *noise, int h, int w,
                   int channels);
/* noisy and target from latent z; returns the weight of the squared error. */
double objective_noisy(const struct objective *o, float *noisy, float *target, const float *z,
                       const float *noise, size_t count, int t);

/* One factor per element for op_mse: F32 whatever the pass computes in. */
struct tensor objective_weights(struct pass *p, const float *host, int rank, const int64_t *dim);

#endif
