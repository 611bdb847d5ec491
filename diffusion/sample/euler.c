/* Euler's method in sigma: x += d (next - sigma). Karras et al. 2022, algorithm 2 without churn. */
#include "diffusion/sample/sampling.h"

int sample_euler(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err);
    int rc = D ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        euler_step(s->x, s->count, s->x, D, sigma, next);
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
