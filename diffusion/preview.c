#include "diffusion/preview.h"

#include <math.h>

#include "base/alloc.h"

struct fit {
    float factor[4][3], offset[3];
};

static const struct fit small = {{{.3512f, .2297f, .3227f},
                                  {.3250f, .4974f, .2350f},
                                  {-.2829f, .1762f, .2721f},
                                  {-.2120f, -.2616f, -.7177f}},
                                 {0, 0, 0}};
static const struct fit xl = {{{.3651f, .4232f, .4341f},
                               {-.2533f, -.0042f, .1068f},
                               {.1076f, .1111f, -.0362f},
                               {-.3165f, -.2492f, -.2188f}},
                              {.1084f, -.0175f, -.0011f}};

int preview_linear(struct pixels *to, enum family family, const float *latent, int w, int h,
                   struct error *err)
{
    const struct fit *f = family == FAMILY_SDXL || family == FAMILY_SDXL_REFINER ? &xl : &small;
    int rc = pixels_new(to, w, h, 3, err);
    for (int i = 0; !rc && i < w * h; i++)
        for (int k = 0; k < 3; k++) {
            float v = f->offset[k];
            for (int c = 0; c < 4; c++) v += f->factor[c][k] * latent[c * w * h + i];
            v = fminf(fmaxf((v + 1) / 2, 0), 1);
            to->data[i * 3 + k] = isfinite(v) ? (uint8_t)(v * 255) : 0;
        }
    return rc;
}
