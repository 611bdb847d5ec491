/* Linear multistep of order 4: the polynomial through the last slopes, integrated exactly.
 * k-diffusion sample_lms, which integrates the same polynomial numerically. */
#include <string.h>

#include "diffusion/sample/sampling.h"

enum { ORDER = 4 };

/* Integral from sigma[i] to sigma[i+1] of the Lagrange polynomial that is 1 at sigma[i-j] and 0 at
 * the other order - 1 levels. */
static double lagrange_integral(const double *sigmas, int i, int order, int j)
{
    double poly[ORDER] = {1}; /* coefficients in u = tau - sigma[i], lowest first */
    int degree = 0;
    for (int m = 0; m < order; m++) {
        if (m == j) continue;
        double root = sigmas[i - m] - sigmas[i], scale = sigmas[i - j] - sigmas[i - m];
        for (int k = ++degree; k >= 0; k--)
            poly[k] = ((k ? poly[k - 1] : 0) - root * (k < degree ? poly[k] : 0)) / scale;
    }
    double length = sigmas[i + 1] - sigmas[i], power = 1, sum = 0;
    for (int k = 0; k <= degree; k++) {
        power *= length;
        sum += poly[k] * power / (k + 1);
    }
    return sum;
}

int sample_lms(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *d[ORDER];
    int rc = D ? 0 : ERR_NO_MEMORY;
    for (int j = 0; !rc && j < ORDER; j++)
        if (!(d[j] = sampling_vector(s, err))) rc = ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        rc = sampling_denoise(s, D, s->x, s->sigmas[i], err);
        if (rc) break;
        float *oldest = d[ORDER - 1]; /* becomes the newest */
        memmove(d + 1, d, (ORDER - 1) * sizeof d[0]);
        d[0] = oldest;
        derivative(d[0], s->count, s->x, D, s->sigmas[i]);
        int order = i + 1 < ORDER ? i + 1 : ORDER;
        for (int j = 0; j < order; j++)
            vector_add(s->x, s->count, lagrange_integral(s->sigmas, i, order, j), d[j]);
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
