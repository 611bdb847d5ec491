/* The largest of a window, and the value between pixels: a line of the result a task. */
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_vec.h"

/* the part of a window inside the picture: from .. to */
static void inside(int64_t first, int kernel, int64_t size, int64_t *from, int64_t *to)
{
    *from = first < 0 ? 0 : first;
    *to = first + kernel < size ? first + kernel : size;
}

ALWAYS_INLINE void max_pool_line(const struct max_pool_args *a, int64_t line, const enum dtype t)
{
    int64_t n = line / a->oh, v0, v1, u0, u1;
    inside(line % a->oh * a->stride - a->pad, a->kernel, a->h, &v0, &v1);
    for (int64_t ox = 0; ox < a->ow; ox++) {
        inside(ox * a->stride - a->pad, a->kernel, a->w, &u0, &u1);
        for (int64_t c = 0; c < a->c; c += VL) {
            int lanes = a->c - c < VL ? (int)(a->c - c) : VL;
            vf most = vf_load_n(a->x, ((n * a->h + v0) * a->w + u0) * a->c + c, t, lanes);
            for (int64_t v = v0; v < v1; v++)
                for (int64_t u = u0; u < u1; u++) {
                    int64_t at = ((n * a->h + v) * a->w + u) * a->c + c;
                    most = vf_max(most, vf_load_n(a->x, at, t, lanes));
                }
            vf_store_n(a->y, (line * a->ow + ox) * a->c + c, t, most, lanes);
        }
    }
}

static void max_pool_task(void *context, int64_t line, int worker)
{
    const struct max_pool_args *a = context;
    CPU_BY_DTYPE(a->dtype, max_pool_line, a, line);
}

int cpu_max_pool(struct device *d, const struct max_pool_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "max_pool");
    pool_run(cpu_state(d)->pool, a->n * a->oh, max_pool_task, (void *)a);
    return 0;
}

/* the pixel before output i, and how far behind it lies */
static int64_t before(int64_t i, int64_t from, int64_t to, float *part)
{
    float at = ((float)i + 0.5f) * (float)from / (float)to - 0.5f;
    if (at < 0) at = 0;
    int64_t pixel = (int64_t)at;
    if (pixel > from - 1) pixel = from - 1;
    *part = at - (float)pixel;
    return pixel;
}

ALWAYS_INLINE void bilinear_line(const struct bilinear_args *a, int64_t line, const enum dtype t)
{
    float down, right;
    int64_t n = line / a->oh, y0 = before(line % a->oh, a->h, a->oh, &down);
    int64_t y1 = y0 + 1 < a->h ? y0 + 1 : y0;
    int64_t upper = (n * a->h + y0) * a->w, lower = (n * a->h + y1) * a->w;
    for (int64_t ox = 0; ox < a->ow; ox++) {
        int64_t x0 = before(ox, a->w, a->ow, &right), x1 = x0 + 1 < a->w ? x0 + 1 : x0;
        for (int64_t c = 0; c < a->c; c += VL) {
            int lanes = a->c - c < VL ? (int)(a->c - c) : VL;
            vf top = (1 - right) * vf_load_n(a->x, (upper + x0) * a->c + c, t, lanes) +
                     right * vf_load_n(a->x, (upper + x1) * a->c + c, t, lanes);
            vf bottom = (1 - right) * vf_load_n(a->x, (lower + x0) * a->c + c, t, lanes) +
                        right * vf_load_n(a->x, (lower + x1) * a->c + c, t, lanes);
            vf_store_n(a->y, (line * a->ow + ox) * a->c + c, t, (1 - down) * top + down * bottom,
                       lanes);
        }
    }
}

static void bilinear_task(void *context, int64_t line, int worker)
{
    const struct bilinear_args *a = context;
    CPU_BY_DTYPE(a->dtype, bilinear_line, a, line);
}

int cpu_bilinear(struct device *d, const struct bilinear_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "bilinear");
    pool_run(cpu_state(d)->pool, a->n * a->oh, bilinear_task, (void *)a);
    return 0;
}
