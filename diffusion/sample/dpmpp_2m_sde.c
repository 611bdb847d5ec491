/* DPM-Solver++(2M) as an SDE solver, midpoint form, Brownian noise. k-diffusion
 * sample_dpmpp_2m_sde. */
#include "diffusion/sample/sampling.h"

int sample_dpmpp_2m_sde(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *previous = sampling_vector(s, err);
    float *N = sampling_vector(s, err);
    double eta = sampling_eta(s, 1), h_last = 0;
    int rc = D && previous && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0) {
            vector_scale(s->x, s->count, 1, D);
        } else {
            double h = log(sigma / next), weight = -expm1(-h - eta * h);
            double lean = i ? 0.5 * weight * h / h_last : 0;
            vector_sum3(s->x, s->count, next / sigma * exp(-eta * h), s->x, weight + lean, D, -lean,
                        previous);
            if (eta > 0) {
                rc = sampling_noise_sde(s, N, sigma, next, err);
                if (rc) break;
                vector_add(s->x, s->count, next * sqrt(-expm1(-2 * eta * h)), N);
            }
            h_last = h;
        }
        rc = sampling_step_done(s, i, D, err);
        float *swap = previous;
        previous = D;
        D = swap;
    }
    return rc;
}
