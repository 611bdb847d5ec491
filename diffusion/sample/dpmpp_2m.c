/* DPM-Solver++(2M): exponential integrator, D extrapolated from the last step. Lu et al. 2022. */
#include "diffusion/sample/sampling.h"

int sample_dpmpp_2m(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *previous = sampling_vector(s, err);
    int rc = D && previous ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        double weight = 1 - next / sigma; /* -expm1(-h) */
        if (i == 0 || next == 0) {
            vector_sum2(s->x, s->count, next / sigma, s->x, weight, D);
        } else {
            double h = log(sigma / next), h_last = log(s->sigmas[i - 1] / sigma);
            double lean = h / (2 * h_last); /* 1 / 2r */
            vector_sum3(s->x, s->count, next / sigma, s->x, weight * (1 + lean), D, -weight * lean,
                        previous);
        }
        rc = sampling_step_done(s, i, D, err);
        float *swap = previous;
        previous = D;
        D = swap;
    }
    return rc;
}
