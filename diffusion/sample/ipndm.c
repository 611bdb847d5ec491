/* Improved pseudo linear multistep, order 4: Adams-Bashforth weights on the slopes, as if the steps
 * were equal. Zhang and Chen 2023; ComfyUI's "ipndm". */
#include <string.h>

#include "diffusion/sample/sampling.h"

enum { ORDER = 4 };

static const double weights[ORDER][ORDER] = {
    {1},
    {3.0 / 2, -1.0 / 2},
    {23.0 / 12, -16.0 / 12, 5.0 / 12},
    {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
};

int sample_ipndm(struct sampling *s, struct error *err)
{
    float *D = sampling_vector(s, err), *d[ORDER];
    int rc = D ? 0 : ERR_NO_MEMORY;
    for (int j = 0; !rc && j < ORDER; j++)
        if (!(d[j] = sampling_vector(s, err))) rc = ERR_NO_MEMORY;
    for (int i = 0; !rc && i < s->steps; i++) {
        double sigma = s->sigmas[i], next = s->sigmas[i + 1];
        rc = sampling_denoise(s, D, s->x, sigma, err);
        if (rc) break;
        float *oldest = d[ORDER - 1];
        memmove(d + 1, d, (ORDER - 1) * sizeof d[0]);
        d[0] = oldest;
        derivative(d[0], s->count, s->x, D, sigma);
        int order = i + 1 < ORDER ? i + 1 : ORDER;
        if (next == 0) {
            vector_scale(s->x, s->count, 1, D);
        } else {
            for (int j = 0; j < order; j++)
                vector_add(s->x, s->count, (next - sigma) * weights[order - 1][j], d[j]);
        }
        rc = sampling_step_done(s, i, D, err);
    }
    return rc;
}
