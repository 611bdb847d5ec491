/* Refined exponential solver, second-order multistep. Zhang et al. 2023 (arXiv 2308.02157);
 * ComfyUI's "res_multistep" (eta 0). */
#include "diffusion/sample/sampling.h"

int sample_res_multistep(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *previous = sampling_vector(s, err);
    int rc = D && previous ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0 || i == 0) {
            euler_step(s->x, s->count, s->x, D, sigma, next);
        } else {
            double h = log(sigma / next), back = log(sigma / s->sigmas[i - 1]) / h;
            double phi1 = expm1(-h) / -h, phi2 = (phi1 - 1) / -h;
            double old = phi2 / back;
            vector_sum3(s->x, s->count, exp(-h), s->x, h * (phi1 - old), D, h * old, previous);
        }
        rc = sampling_step_done(s, i, D, err);
        float *swap = previous;
        previous = D;
        D = swap;
    }
    return rc;
}
