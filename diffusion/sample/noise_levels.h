/*
 * noise_levels.h - the training schedule: 1000 noise levels, and what the network predicts at one.
 *
 * Place    below schedule.h; the denoiser in pipeline.c scales by it; training draws from it.
 * Owner    the caller's struct, read-only after init; any thread.
 * Failure  cannot fail.
 * Source   "scaled linear" betas of CompVis latent-diffusion; Lin et al. 2023 for zero terminal
 * SNR; Karras et al. 2022 for the scalings. Values are float32, as in the reference, so that the
 *          nearest timestep comes out the same.
 */
#ifndef SAMPLE_NOISE_LEVELS_H
#define SAMPLE_NOISE_LEVELS_H

#include <stdbool.h>

#define NOISE_LEVELS 1000

enum prediction { PREDICTION_EPSILON, PREDICTION_V };

struct noise_levels {
    float alpha_bar[NOISE_LEVELS];
    float sigma[NOISE_LEVELS]; /* ascending, 0.02917 .. 14.61464 */
    float log_sigma[NOISE_LEVELS];
};

void noise_levels_init(struct noise_levels *l, bool zero_terminal_snr);

double noise_levels_min(const struct noise_levels *l);
double noise_levels_max(const struct noise_levels *l);
/* sigma at a fractional timestep: linear in log sigma, clamped to 0..999 */
double noise_levels_sigma(const struct noise_levels *l, double timestep);
/* index of the nearest log sigma, the first of two equal ones: what the Horde's worker feeds */
int noise_levels_timestep(const struct noise_levels *l, double sigma);
/* interpolated instead, for schedules */
double noise_levels_timestep_exact(const struct noise_levels *l, double sigma);

/* The network F sees x * input and means D = x * skip + F * output. */
struct scaling {
    double input, skip, output;
};
struct scaling prediction_scaling(enum prediction prediction, double sigma);

#endif
