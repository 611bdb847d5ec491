/* DPM-Solver++ as an SDE solver, two stages with r = 1/2, Brownian noise. k-diffusion
 * sample_dpmpp_sde. With r = 1/2 the second stage uses D2 alone. */
#include "diffusion/sample/sampling.h"

/* The reference goes through t = -ln sigma in float32 and back, and asks the Brownian path at six
 * decimals of the result: one unit in the last place is another noise. So the same steps here. */
struct levels {
    double start, middle, end;
};

static struct levels through_t(double sigma, double next)
{
    float t = -logf((float)sigma), end = -logf((float)next);
    return (struct levels){expf(-t), expf(-(t + (end - t) * 0.5f)), expf(-end)};
}

int sample_dpmpp_sde(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D2 = sampling_vector(s, err);
    float *x2 = sampling_vector(s, err), *N = sampling_vector(s, err);
    double eta = sampling_eta(s, 1);
    int rc = D && D2 && x2 && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0) {
            euler_step(s->x, s->count, s->x, D, sigma, next);
        } else {
            struct levels l = through_t(sigma, next);
            struct ancestral a = ancestral_split(sigma, l.middle, eta);
            rc = sampling_noise_sde(s, N, l.start, l.middle, err);
            if (rc) break;
            euler_step(x2, s->count, s->x, D, sigma, a.down);
            vector_add(x2, s->count, a.up, N);
            rc = sampling_denoise(s, D2, x2, l.middle, err);
            if (!rc) rc = sampling_noise_sde(s, N, l.start, l.end, err);
            if (rc) break;
            a = ancestral_split(sigma, next, eta);
            euler_step(s->x, s->count, s->x, D2, sigma, a.down);
            vector_add(s->x, s->count, a.up, N);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
