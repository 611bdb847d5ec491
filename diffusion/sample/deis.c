/* DEIS: the slope's polynomial integrated in the time of a VP process, order 3. Zhang and Chen 2023
 * (tAB-DEIS); constants as ComfyUI's "deis": process of sigma 0.002 .. 80, epsilon 1e-3, 10,000
 * points of a Riemann sum. */
#include <string.h>

#include "diffusion/sample/sampling.h"

enum { ORDER = 3, POINTS = 10000 };

struct vp {
    double beta_min, beta_d; /* beta(t) = beta_min + beta_d t */
};

static struct vp vp_process(void)
{
    const double low = 0.002, high = 80, epsilon = 1e-3;
    double log_low = log(low * low + 1), log_high = log(high * high + 1);
    double beta_d = 2 * (log_low / epsilon - log_high) / (epsilon - 1);
    return (struct vp){log_high - 0.5 * beta_d, beta_d};
}

static double vp_time(struct vp p, double sigma)
{
    double root = sqrt(p.beta_min * p.beta_min + 2 * p.beta_d * log(sigma * sigma + 1));
    return (root - p.beta_min) / p.beta_d;
}

/* d/dt of the weight on the slope: beta / (2 sqrt(alpha (1 - alpha))) */
static double integrand(struct vp p, double t)
{
    double exponent = 0.5 * t * t * p.beta_d + t * p.beta_min;
    double alpha = exp(-exponent);
    return 0.5 * (p.beta_min + p.beta_d * t) / sqrt(alpha * -expm1(-exponent));
}

/* Weight of slope j of `order` for the step from t[0] to `next`; t[k]: k steps back. */
static double weight(struct vp p, const double *t, double next, int order, int j)
{
    double sum = 0;
    for (int n = 0; n < POINTS; n++) {
        double tau = t[0] + (next - t[0]) * n / (POINTS - 1), poly = 1;
        for (int k = 0; k < order; k++)
            if (k != j) poly *= (tau - t[k]) / (t[j] - t[k]);
        sum += integrand(p, tau) * poly;
    }
    return sum * (next - t[0]) / POINTS;
}

int sample_deis(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *d[ORDER];
    double t[ORDER] = {0};
    struct vp p = vp_process();
    int rc = D ? 0 : ERR_NO_MEMORY;
    for (int j = 0; !rc && j < ORDER; j++)
        if (!(d[j] = sampling_vector(s, err))) rc = ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        float *oldest = d[ORDER - 1];
        memmove(d + 1, d, (ORDER - 1) * sizeof d[0]);
        memmove(t + 1, t, (ORDER - 1) * sizeof t[0]);
        d[0] = oldest;
        t[0] = vp_time(p, sigma);
        derivative(d[0], s->count, s->x, D, sigma);
        int order = i + 1 < ORDER ? i + 1 : ORDER;
        if (next == 0 || order == 1) {
            vector_add(s->x, s->count, next - sigma, d[0]);
        } else {
            for (int j = 0; j < order; j++)
                vector_add(s->x, s->count, weight(p, t, vp_time(p, next), order, j), d[j]);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
