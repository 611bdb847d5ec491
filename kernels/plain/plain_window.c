/* The largest of a window, and the value between pixels. */
#include "kernels/plain/plain.h"

int plain_max_pool(struct device *d, const struct max_pool_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->n * a->h * a->w * a->c);
    real *y = plain_write(&s, a->y, a->dtype, a->n * a->oh * a->ow * a->c, false);
    for (int64_t i = 0; !s.failed && i < a->n * a->oh * a->ow * a->c; i++) {
        int64_t c = i % a->c, ox = i / a->c % a->ow, oy = i / a->c / a->ow % a->oh;
        int64_t n = i / a->c / a->ow / a->oh;
        bool any = false;
        for (int k = 0; k < a->kernel * a->kernel; k++) {
            int64_t v = oy * a->stride - a->pad + k / a->kernel;
            int64_t u = ox * a->stride - a->pad + k % a->kernel;
            if (v < 0 || v >= a->h || u < 0 || u >= a->w) continue;
            real here = x[((n * a->h + v) * a->w + u) * a->c + c];
            if (!any || here > y[i]) y[i] = here;
            any = true;
        }
    }
    return plain_end(&s, "max_pool", err);
}

/* Where output `i` of `to` lies in an input of `from`: the pixel before it, and how far behind. */
static int64_t between(int64_t i, int64_t from, int64_t to, real *part)
{
    real at = ((real)i + (real)0.5) * (real)from / (real)to - (real)0.5;
    if (at < 0) at = 0;
    int64_t before = (int64_t)at;
    if (before > from - 1) before = from - 1;
    *part = at - (real)before;
    return before;
}

int plain_bilinear(struct device *d, const struct bilinear_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->n * a->h * a->w * a->c);
    real *y = plain_write(&s, a->y, a->dtype, a->n * a->oh * a->ow * a->c, false);
    for (int64_t i = 0; !s.failed && i < a->n * a->oh * a->ow; i++) {
        int64_t ox = i % a->ow, oy = i / a->ow % a->oh, n = i / a->ow / a->oh;
        real down, right;
        int64_t y0 = between(oy, a->h, a->oh, &down), x0 = between(ox, a->w, a->ow, &right);
        int64_t y1 = y0 + 1 < a->h ? y0 + 1 : y0, x1 = x0 + 1 < a->w ? x0 + 1 : x0;
        const real *upper = x + (n * a->h + y0) * a->w * a->c;
        const real *lower = x + (n * a->h + y1) * a->w * a->c;
        for (int64_t c = 0; c < a->c; c++) {
            real top = (1 - right) * upper[x0 * a->c + c] + right * upper[x1 * a->c + c];
            real bottom = (1 - right) * lower[x0 * a->c + c] + right * lower[x1 * a->c + c];
            y[i * a->c + c] = (1 - down) * top + down * bottom;
        }
    }
    return plain_end(&s, "bilinear", err);
}
