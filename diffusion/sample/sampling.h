/*
 * sampling.h - what the samplers share: one run's scratch, the denoiser call, vector sums.
 *
 * Place    inside diffusion/sample only; sampler.c makes it, each sampler file uses it.
 * Owner    sampler_run, for the length of one run.
 * Failure  through err, as the denoiser reports it.
 *
 * Notation of the sampler files: sigma, next: this and the following noise level; D: denoised;
 * d = (x - D) / sigma; t = -ln sigma; h: step in t; N: step noise.
 */
#ifndef SAMPLE_SAMPLING_H
#define SAMPLE_SAMPLING_H

#include <math.h>

#include "base/arena.h"
#include "diffusion/sample/sampler.h"

struct sampling {
    struct sampler_run *run;
    struct arena arena;
    float *x;
    size_t count;
    const double *sigmas;
    int steps;                   /* sigma_count - 1 */
    double sigma_min, sigma_max; /* smallest positive and largest of the run */
};

typedef int sampler_function(struct sampling *s, struct error *err);

/* A zeroed vector of `count` floats that lives as long as the run; NULL with err set. */
float *sampling_vector(struct sampling *s, struct error *err);
/* D = D(x, sigma) */
int sampling_denoise(struct sampling *s, float *D, const float *x, double sigma, struct error *err);
/* Tells the hook that step i is done. */
int sampling_step_done(struct sampling *s, int i, const float *D, struct error *err);
void sampling_noise(struct sampling *s, float *N);
int sampling_noise_sde(struct sampling *s, float *N, double sigma, double next, struct error *err);
double sampling_eta(const struct sampling *s, double own);

/* How far to step down and how much noise to add back (k-diffusion get_ancestral_step). */
struct ancestral {
    double down, up;
};
struct ancestral ancestral_split(double sigma, double next, double eta);

/* y = a x; y = a x + b D; y = a x + b D + c E. y may be any of the inputs. */
void vector_scale(float *y, size_t count, double a, const float *x);
void vector_sum2(float *y, size_t count, double a, const float *x, double b, const float *D);
void vector_sum3(float *y, size_t count, double a, const float *x, double b, const float *D,
                 double c, const float *E);
void vector_add(float *y, size_t count, double a, const float *x); /* y += a x */

/* y = x + (x - D) / sigma (next - sigma), the Euler step; y may be x. */
void euler_step(float *y, size_t count, const float *x, const float *D, double sigma, double next);
/* d = (x - D) / sigma; d may be x or D */
void derivative(float *d, size_t count, const float *x, const float *D, double sigma);

sampler_function sample_ddim, sample_euler, sample_euler_ancestral, sample_heun, sample_lms,
    sample_dpm_2, sample_dpm_2_ancestral, sample_dpm_fast, sample_dpm_adaptive,
    sample_dpmpp_2s_ancestral, sample_dpmpp_2m, sample_dpmpp_sde, sample_lcm, sample_uni_pc,
    sample_uni_pc_bh2, sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_ddpm, sample_deis,
    sample_ipndm, sample_res_multistep, sample_heunpp2, sample_er_sde;

#endif
