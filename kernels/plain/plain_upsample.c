#include "kernels/plain/plain.h"

/* The input pixel that output pixel (oy,ox) of image n shows. */
static int64_t source(const struct upsample_args *a, int64_t n, int64_t oy, int64_t ox)
{
    return (n * a->h + oy * a->h / a->oh) * a->w + ox * a->w / a->ow;
}

int plain_upsample(struct device *d, const struct upsample_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->n * a->h * a->w * a->c);
    real *y = plain_write(&s, a->y, a->dtype, a->n * a->oh * a->ow * a->c, false);
    for (int64_t n = 0; !s.failed && n < a->n; n++) {
        for (int64_t oy = 0; oy < a->oh; oy++) {
            for (int64_t ox = 0; ox < a->ow; ox++) {
                const real *from = x + source(a, n, oy, ox) * a->c;
                real *to = y + ((n * a->oh + oy) * a->ow + ox) * a->c;
                for (int64_t c = 0; c < a->c; c++) to[c] = from[c];
            }
        }
    }
    return plain_end(&s, "upsample", err);
}

int plain_upsample_grad(struct device *d, const struct upsample_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t inputs = a->n * a->h * a->w * a->c;
    const real *dy = plain_read(&s, a->dy, a->dtype, a->n * a->oh * a->ow * a->c);
    real *dx = plain_write(&s, a->dx, a->dtype, inputs, a->accumulate);
    for (int64_t i = 0; !s.failed && !a->accumulate && i < inputs; i++) dx[i] = 0;
    for (int64_t n = 0; !s.failed && n < a->n; n++) {
        for (int64_t oy = 0; oy < a->oh; oy++) {
            for (int64_t ox = 0; ox < a->ow; ox++) {
                real *to = dx + source(a, n, oy, ox) * a->c;
                const real *from = dy + ((n * a->oh + oy) * a->ow + ox) * a->c;
                for (int64_t c = 0; c < a->c; c++) to[c] += from[c];
            }
        }
    }
    return plain_end(&s, "upsample_grad", err);
}
