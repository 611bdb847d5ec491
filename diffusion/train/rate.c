#include "diffusion/train/rate.h"

#include <math.h>

#include "base/str.h"

static const char *const names[RATE_SHAPE_COUNT] = {"constant", "cosine", "restarts", "tail"};

const char *rate_shape_name(enum rate_shape shape)
{
    return names[shape];
}

bool rate_shape_find(const char *name, enum rate_shape *shape)
{
    for (int i = 0; i < RATE_SHAPE_COUNT; i++)
        if (str_equal(name, names[i])) {
            *shape = (enum rate_shape)i;
            return true;
        }
    return false;
}

static double cosine(const struct rate *r, double progress)
{
    if (progress < 0) progress = 0;
    if (progress > 1) progress = 1;
    return r->low + (r->peak - r->low) * .5 * (1 + cos(3.141592653589793 * progress));
}

double rate_at(const struct rate *r, int64_t step)
{
    double done = (double)(step - 1);
    if (step <= r->warmup) return r->peak * (double)step / (double)r->warmup;
    switch (r->shape) {
    case RATE_COSINE:
        return cosine(r, (done - (double)r->warmup) / fmax(1, (double)(r->total - r->warmup)));
    case RATE_RESTARTS:
        return cosine(r, fmod(done - (double)r->warmup, (double)r->period) / (double)r->period);
    case RATE_TAIL:
        return cosine(r, (done - (double)(r->total - r->period)) / fmax(1, (double)r->period));
    default: return r->peak;
    }
}
