#include "diffusion/sample/sampling.h"

float *sampling_vector(struct sampling *s, struct error *err)
{
    float *v = arena_try(&s->arena, s->count, sizeof(float));
    if (!v) error_set(err, ERR_NO_MEMORY, "no memory for a sampler's %zu values", s->count);
    return v;
}

int sampling_denoise(struct sampling *s, float *D, const float *x, double sigma, struct error *err)
{
    const struct denoiser *d = &s->run->denoiser;
    return d->denoise(d->context, D, x, sigma, err);
}

int sampling_step_done(struct sampling *s, int i, const float *D, struct error *err)
{
    struct sampler_run *run = s->run;
    return run->step_done ? run->step_done(run->hook_context, i, s->steps, D, err) : 0;
}

void sampling_noise(struct sampling *s, float *N)
{
    noise_step(s->run->noise, N, s->count);
}

int sampling_noise_sde(struct sampling *s, float *N, double sigma, double next, struct error *err)
{
    return noise_step_sde(s->run->noise, N, s->count, sigma, next, s->sigma_min, s->sigma_max, err);
}

double sampling_eta(const struct sampling *s, double own)
{
    return isnan(s->run->eta) ? own : s->run->eta;
}

struct ancestral ancestral_split(double sigma, double next, double eta)
{
    if (eta == 0) return (struct ancestral){next, 0};
    double up = eta * sqrt(next * next * (sigma * sigma - next * next) / (sigma * sigma));
    if (up > next) up = next;
    return (struct ancestral){sqrt(next * next - up * up), up};
}

void vector_scale(float *y, size_t count, double a, const float *x)
{
    for (size_t i = 0; i < count; i++) y[i] = (float)(a * x[i]);
}

void vector_sum2(float *y, size_t count, double a, const float *x, double b, const float *D)
{
    for (size_t i = 0; i < count; i++) y[i] = (float)(a * x[i] + b * D[i]);
}

void vector_sum3(float *y, size_t count, double a, const float *x, double b, const float *D,
                 double c, const float *E)
{
    for (size_t i = 0; i < count; i++) y[i] = (float)(a * x[i] + b * D[i] + c * E[i]);
}

void vector_add(float *y, size_t count, double a, const float *x)
{
    for (size_t i = 0; i < count; i++) y[i] = (float)(y[i] + a * x[i]);
}

void euler_step(float *y, size_t count, const float *x, const float *D, double sigma, double next)
{
    double keep = next / sigma;
    vector_sum2(y, count, keep, x, 1 - keep, D);
}

void derivative(float *d, size_t count, const float *x, const float *D, double sigma)
{
    for (size_t i = 0; i < count; i++) d[i] = (float)(((double)x[i] - D[i]) / sigma);
}
