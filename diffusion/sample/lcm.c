/* Latent consistency: jump to D, noise it again to the next level. Luo et al. 2023. */
#include "diffusion/sample/sampling.h"

int sample_lcm(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *N = sampling_vector(s, err);
    int rc = D && N ? 0 : ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, s->sigmas[i], err);
        if (rc) break;
        vector_scale(s->x, s->count, 1, D);
        if (next > 0) {
            sampling_noise(s, N);
            vector_add(s->x, s->count, next, N);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
