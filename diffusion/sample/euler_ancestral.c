/* Euler to a lower level than asked, then noise up to it. k-diffusion sample_euler_ancestral. */
#include "diffusion/sample/sampling.h"

int sample_euler_ancestral(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *N = sampling_vector(s, err);
    double eta = sampling_eta(s, 1);
    int rc = D && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        struct ancestral a = ancestral_split(sigma, next, eta);
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        euler_step(s->x, s->count, s->x, D, sigma, a.down);
        if (next > 0) {
            sampling_noise(s, N);
            vector_add(s->x, s->count, a.up, N);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
