/*
 * noise.h - the random numbers of one sampling run, by the rule of whoever is to be matched.
 *
 * Place    between the request's seed and the samplers.
 * Owner    noise_init / noise_release around the caller's struct; one thread.
 * Failure  ERR_NO_MEMORY (Brownian tree).
 *
 * A run draws its first noise once, for the whole batch [images,4,h,w], then step noise. The rules
 * (enum noise_device of proto/request.h; docs/design/sampling.md says which program does what):
 *
 *   NOISE_CPU    one torch CPU generator: first noise, then step noise from the same stream
 *   NOISE_CUDA   one torch CUDA generator (Philox): the same, as expert interfaces do by default
 *   NOISE_HORDE  first noise torch CPU; step noise from a new CUDA generator of the same seed: what
 *                a Horde worker with an NVIDIA card draws
 *
 * SDE samplers draw from the Brownian tree of the seed in every case.
 *
 * A run that draws for several requests at once (pipeline_run_shared) has a stream for each, by
 * noise_add: each gets for its images exactly the numbers that it would get alone.
 */
#ifndef SAMPLE_NOISE_H
#define SAMPLE_NOISE_H

#include "diffusion/sample/noise_brownian.h"
#include "diffusion/sample/noise_cpu.h"
#include "diffusion/sample/noise_philox.h"
#include "proto/request.h"

struct noise {
    enum noise_device device;
    uint64_t seed;
    struct noise_cpu cpu;
    struct noise_philox cuda;
    struct brownian *brownian; /* made on first use */
    size_t brownian_count;
    int images;         /* of this stream; counts only where others follow */
    struct noise *next; /* of the images behind these; owned */
};

void noise_init(struct noise *n, enum noise_device device, uint64_t seed);
void noise_release(struct noise *n);
/* The streams so far are for the images in front; of `images` more this seed's. noise_init has one
 * image; set n->images before when it is another number. */
void noise_add(struct noise *n, uint64_t seed, int images);

/* First noise of the run, torch order. With variation_strength > 0 each image is the spherical
 * mean of its own noise and the noise of variation_seed. */
int noise_first(struct noise *n, float *out, int images, size_t count_each, uint64_t variation_seed,
                double variation_strength, struct error *err);
/* Step noise, successive draws. */
void noise_step(struct noise *n, float *out, size_t count);
/* Step noise of the SDE samplers; sigma_min and sigma_max of the whole run. */
int noise_step_sde(struct noise *n, float *out, size_t count, double sigma, double next,
                   double sigma_min, double sigma_max, struct error *err);

/* out = slerp(a, b, t) over one image; out may be a. */
void noise_slerp(float *out, const float *a, const float *b, size_t count, double t);

#endif
