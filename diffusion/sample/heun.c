/* Heun's method: the mean of the slopes at both ends. Karras et al. 2022, algorithm 1. */
#include "diffusion/sample/sampling.h"

int sample_heun(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D2 = sampling_vector(s, err);
    float *d = sampling_vector(s, err), *x2 = sampling_vector(s, err);
    int rc = D && D2 && d && x2 ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        derivative(d, s->count, s->x, D, sigma);
        if (next == 0) {
            vector_add(s->x, s->count, next - sigma, d);
        } else {
            vector_sum2(x2, s->count, 1, s->x, next - sigma, d);
            rc = sampling_denoise(s, D2, x2, next, err);
            if (rc) break;
            derivative(x2, s->count, x2, D2, next); /* the slope there */
            vector_sum3(s->x, s->count, 1, s->x, (next - sigma) / 2, d, (next - sigma) / 2, x2);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
