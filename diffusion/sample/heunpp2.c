/* Heun++: slopes of this and the next two levels, weighted by noise level. ComfyUI's "heunpp2". */
#include "diffusion/sample/sampling.h"

int sample_heunpp2(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *D2 = sampling_vector(s, err);
    float *d = sampling_vector(s, err), *mean = sampling_vector(s, err);
    float *y = sampling_vector(s, err), *slope = sampling_vector(s, err);
    int rc = D && D2 && d && mean && y && slope ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        int ahead = s->steps - 1 - i; /* levels after next */
        if (ahead > 2) ahead = 2;
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        derivative(d, s->count, s->x, D, sigma);
        /* the mean of 1 to 3 slopes; each later one is reached by Euler from the one before */
        double own = 1, scale = (ahead + 1) * s->sigmas[0];
        vector_scale(mean, s->count, 0, d);
        vector_scale(y, s->count, 1, s->x);
        vector_scale(slope, s->count, 1, d);
        for (int k = 1; k <= ahead; k++) {
            double at = s->sigmas[i + k];
            vector_add(y, s->count, at - s->sigmas[i + k - 1], slope);
            rc = sampling_denoise(s, D2, y, at, err);
            if (rc) return rc;
            derivative(slope, s->count, y, D2, at);
            vector_add(mean, s->count, at / scale, slope);
            own -= at / scale;
        }
        vector_add(mean, s->count, own, d);
        vector_add(s->x, s->count, next - sigma, mean);
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
