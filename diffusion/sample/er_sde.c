/* Extended reverse-time SDE solver, order 3, noise scale function x (exp(x^0.3) + 10). Cui et al.
 * 2023 (arXiv 2309.06169), ER-SDE-Solver-3 as ComfyUI's "er_sde": lambda = sigma, 200-point sums.
 */
#include "diffusion/sample/sampling.h"

enum { POINTS = 200 };

static double noise_scale(double x)
{
    return x * (exp(pow(x, 0.3)) + 10);
}

struct er_sums {
    double s, s_u; /* integrals of 1 / scale and (lambda - sigma) / scale from next to sigma */
};

static struct er_sums integrate(double sigma, double next)
{
    struct er_sums sums = {0, 0};
    double width = (sigma - next) / POINTS;
    for (int n = 0; n < POINTS; n++) {
        double at = next + n * width, scale = noise_scale(at);
        sums.s += width / scale;
        sums.s_u += width * (at - sigma) / scale;
    }
    return sums;
}

int sample_er_sde(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D_old = sampling_vector(s, err);
    float *slope = sampling_vector(s, err), *slope_old = sampling_vector(s, err);
    float *N = sampling_vector(s, err);
    int rc = D && D_old && slope && slope_old && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        if (next == 0) {
            vector_scale(s->x, s->count, 1, D);
        } else {
            double scale = noise_scale(next), r = scale / noise_scale(sigma), dt = next - sigma;
            vector_sum2(s->x, s->count, r, s->x, 1 - r, D);
            if (i >= 1) {
                struct er_sums sums = integrate(sigma, next);
                double over = 1 / (sigma - s->sigmas[i - 1]);
                vector_sum2(slope, s->count, over, D, -over, D_old);
                vector_add(s->x, s->count, dt + sums.s * scale, slope);
                if (i >= 2) {
                    double curve =
                        (dt * dt / 2 + sums.s_u * scale) * 2 / (sigma - s->sigmas[i - 2]);
                    vector_sum3(s->x, s->count, 1, s->x, curve, slope, -curve, slope_old);
                }
            }
            double variance = next * next - sigma * sigma * r * r;
            sampling_noise(s, N);
            vector_add(s->x, s->count, variance > 0 ? sqrt(variance) : 0, N);
        }
        rc = sampling_step_done(s, i, D, err);
        float *swap = D_old;
        D_old = D;
        D = swap;
        swap = slope_old;
        slope_old = slope;
        slope = swap;
    }
    return rc;
}
