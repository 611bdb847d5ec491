/* The midpoint method to a lower level, then noise. k-diffusion sample_dpm_2_ancestral. */
#include "diffusion/sample/sampling.h"

int sample_dpm_2_ancestral(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D2 = sampling_vector(s, err);
    float *x2 = sampling_vector(s, err), *N = sampling_vector(s, err);
    double eta = sampling_eta(s, 1);
    int rc = D && D2 && x2 && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i];
        struct ancestral a = ancestral_split(sigma, s->sigmas[i + 1], eta);
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (a.down == 0) {
            euler_step(s->x, s->count, s->x, D, sigma, 0);
        } else {
            double middle = sqrt(sigma * a.down);
            euler_step(x2, s->count, s->x, D, sigma, middle);
            rc = sampling_denoise(s, D2, x2, middle, err);
            if (rc) break;
            derivative(x2, s->count, x2, D2, middle);
            vector_add(s->x, s->count, a.down - sigma, x2);
            sampling_noise(s, N);
            vector_add(s->x, s->count, a.up, N);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
