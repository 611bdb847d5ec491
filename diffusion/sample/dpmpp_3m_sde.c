/* DPM-Solver++(3M) as an SDE solver, Brownian noise. k-diffusion sample_dpmpp_3m_sde. */
#include "diffusion/sample/sampling.h"

/* x += phi2 D' - phi3 D'' with divided differences over the last steps h1, h2. */
static void add_corrections(struct sampling *s, double h, double h1, double h2, double h_eta,
                            const float *D, const float *D1, const float *D2)
{
    double phi2 = expm1(-h_eta) / h_eta + 1, phi3 = phi2 / h_eta - 0.5;
    double r0 = h1 / h, r1 = h2 / h;
    for (size_t k = 0; k < s->count; k++) {
        double d0 = ((double)D[k] - D1[k]) / r0;
        double change = phi2 * d0;
        if (D2) {
            double d1 = ((double)D1[k] - D2[k]) / r1;
            double first = d0 + (d0 - d1) * r0 / (r0 + r1), second = (d0 - d1) / (r0 + r1);
            change = phi2 * first - phi3 * second;
        }
        s->x[k] = (float)(s->x[k] + change);
    }
}

int sample_dpmpp_3m_sde(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D1 = sampling_vector(s, err),
          *D2 = sampling_vector(s, err);
    float *N = sampling_vector(s, err);
    double eta = sampling_eta(s, 1), h1 = 0, h2 = 0;
    int rc = D && D1 && D2 && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0) {
            vector_scale(s->x, s->count, 1, D);
        } else {
            double h = log(sigma / next), h_eta = h * (eta + 1);
            vector_sum2(s->x, s->count, exp(-h_eta), s->x, -expm1(-h_eta), D);
            if (i) add_corrections(s, h, h1, h2, h_eta, D, D1, i > 1 ? D2 : NULL);
            if (eta > 0) {
                rc = sampling_noise_sde(s, N, sigma, next, err);
                if (rc) break;
                vector_add(s->x, s->count, next * sqrt(-expm1(-2 * h * eta)), N);
            }
            h2 = h1;
            h1 = h;
        }
        rc = sampling_step_done(s, i, D, err);
        float *oldest = D2;
        D2 = D1;
        D1 = D;
        D = oldest;
    }
    return rc;
}
