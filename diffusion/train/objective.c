#include "diffusion/train/objective.h"

#include <math.h>

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

int objective_draw(const struct objective *o, struct noise_cpu *g, float *noise, size_t count,
                   int channels)
{
    float u;
    noise_cpu_uniform(g, &u, 1);
    int t = o->t_min + (int)(u * (float)(o->t_max - o->t_min + 1));
    if (t > o->t_max) t = o->t_max;
    noise_cpu_normal(g, noise, count);
    if (o->noise_offset != 0) {
        float shift[16] = {0};
        if (channels > 16) channels = 16;
        noise_cpu_normal(g, shift, 16);
        for (size_t i = 0; i < count; i++)
            noise[i] += (float)o->noise_offset * shift[i % (size_t)channels];
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
