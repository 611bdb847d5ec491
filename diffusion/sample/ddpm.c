/* Ancestral sampling of the discrete chain between the visited levels. Ho et al. 2020, eq. 11, with
 * alpha_bar = 1 / (1 + sigma^2). */
#include "diffusion/sample/sampling.h"

int sample_ddpm(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *N = sampling_vector(s, err);
    int rc = D && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        double bar = 1 / (sigma * sigma + 1), bar_next = 1 / (next * next + 1);
        double alpha = bar / bar_next, root = sqrt(1 / alpha);
        double own = root * sqrt(bar); /* of x, brought to unit variance */
        double slope = root * (1 - alpha) / sqrt(1 - bar) / sigma; /* of x - D */
        double up = next > 0 ? sqrt(1 + next * next) : 1;          /* back from unit variance */
        vector_sum2(s->x, s->count, up * (own - slope), s->x, up * slope, D);
        if (next > 0) {
            sampling_noise(s, N);
            vector_add(s->x, s->count, up * sqrt((1 - alpha) * (1 - bar_next) / (1 - bar)), N);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
