/* Midpoint method with the midpoint in log sigma. k-diffusion sample_dpm_2 (Karras et al. 2022). */
#include "diffusion/sample/sampling.h"

int sample_dpm_2(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D2 = sampling_vector(s, err),
          *x2 = sampling_vector(s, err);
    int rc = D && D2 && x2 ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0) {
            euler_step(s->x, s->count, s->x, D, sigma, next);
        } else {
            double middle = sqrt(sigma * next);
            euler_step(x2, s->count, s->x, D, sigma, middle);
            rc = sampling_denoise(s, D2, x2, middle, err);
            if (rc) break;
            derivative(x2, s->count, x2, D2, middle);
            vector_add(s->x, s->count, next - sigma, x2);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
