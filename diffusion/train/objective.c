#include "diffusion/train/objective.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"

void objective_init(struct objective *o, enum prediction prediction)
{
    *o = (struct objective){.prediction = prediction, .t_min = 0, .t_max = NOISE_LEVELS - 1};
    noise_levels_init(&o->levels, false);
}

void objective_seed(struct noise_cpu *g, uint64_t seed, int64_t step, uint64_t index)
{
    uint64_t z = seed * 0xd1342543de82ef95u + (uint64_t)step * 0x9e3779b97f4a7c15u +
                 index * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    noise_cpu_seed(g, (z ^ z >> 31) & 0xffffffffu);
}

/* noise [h,w,c] += factor * coarse [ch,cw,c], enlarged bilinearly (pixel middles, edges kept). */
static void add_enlarged(float *noise, const float *coarse, int h, int w, int ch, int cw,
                         int channels, float factor)
{
    for (int y = 0; y < h; y++) {
        double v = fmax(0, (y + .5) * ch / h - .5);
        int y0 = (int)v, y1 = y0 + 1 < ch ? y0 + 1 : y0;
        float fy = (float)(v - y0);
        for (int x = 0; x < w; x++) {
            double u = fmax(0, (x + .5) * cw / w - .5);
            int x0 = (int)u, x1 = x0 + 1 < cw ? x0 + 1 : x0;
            float fx = (float)(u - x0);
            for (int c = 0; c < channels; c++) {
                float a = coarse[(y0 * cw + x0) * channels + c];
                float b = coarse[(y0 * cw + x1) * channels + c];
                float d = coarse[(y1 * cw + x0) * channels + c];
                float e = coarse[(y1 * cw + x1) * channels + c];
                float upper = a + fx * (b - a), lower = d + fx * (e - d);
                noise[(y * w + x) * channels + c] += factor * (upper + fy * (lower - upper));
            }
        }
    }
}

static void to_unit_deviation(float *noise, size_t count)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) sum += (double)noise[i];
    double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += ((double)noise[i] - mean) * ((double)noise[i] - mean);
    double deviation = sqrt(squares / (double)count);
    for (size_t i = 0; i < count && deviation > 0; i++)
        noise[i] = (float)((double)noise[i] / deviation);
}

static void add_pyramid(const struct objective *o, struct noise_cpu *g, float *noise, int h, int w,
                        int channels)
{
    size_t count = (size_t)h * (size_t)w * (size_t)channels;
    float *coarse = alloc_zero(count, sizeof *coarse);
    double shrink = 1, factor = 1;
    for (int level = 1, ch = h, cw = w; level <= o->pyramid && ch > 1 && cw > 1; level++) {
        float u;
        noise_cpu_uniform(g, &u, 1);
        shrink *= 2 + 2 * (double)u;
        factor *= o->pyramid_discount;
        ch = (int)fmax(1, h / shrink);
        cw = (int)fmax(1, w / shrink);
        noise_cpu_normal(g, coarse, (size_t)ch * (size_t)cw * (size_t)channels);
        add_enlarged(noise, coarse, h, w, ch, cw, channels, (float)factor);
    }
    free(coarse);
    to_unit_deviation(noise, count);
}

int objective_draw(const struct objective *o, struct noise_cpu *g, float *noise, int h, int w,
                   int channels)
{
    float u;
    size_t count = (size_t)h * (size_t)w * (size_t)channels;
    noise_cpu_uniform(g, &u, 1);
    int t = o->t_min + (int)(u * (float)(o->t_max - o->t_min + 1));
    if (t > o->t_max) t = o->t_max;
    noise_cpu_normal(g, noise, count);
    if (o->pyramid) add_pyramid(o, g, noise, h, w, channels);
    if (o->noise_offset != 0) {
        float shift[16] = {0};
        int shifted = channels > 16 ? 16 : channels;
        noise_cpu_normal(g, shift, 16);
        for (size_t i = 0; i < count; i++)
            noise[i] += (float)o->noise_offset * shift[i % (size_t)shifted];
    }
    return t;
}

double objective_noisy(const struct objective *o, float *noisy, float *target, const float *z,
                       const float *noise, size_t count, int t)
{
    double a = o->levels.alpha_bar[t], signal = sqrt(a), noisiness = sqrt(1 - a);
    bool v = o->prediction == PREDICTION_V;
    for (size_t i = 0; i < count; i++) {
        noisy[i] = (float)(signal * z[i] + noisiness * noise[i]);
        target[i] = v ? (float)(signal * noise[i] - noisiness * z[i]) : noise[i];
    }
    if (o->min_snr <= 0) return 1;
    double snr = a / (1 - a);
    return fmin(snr, o->min_snr) / (v ? snr + 1 : snr);
}

struct tensor objective_weights(struct pass *p, const float *host, int rank, const int64_t *dim)
{
    struct tensor t = pass_tensor(p, DTYPE_F32, rank, dim);
    struct error err;
    int rc = t.data ? p->kernels->upload(p->device, t.data, host, tensor_bytes(t), &err) : 0;
    if (rc) pass_fail(p, rc, "loss weights", "%s", err.text);
    return t;
}
