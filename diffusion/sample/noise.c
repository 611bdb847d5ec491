#include "diffusion/sample/noise.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"

void noise_init(struct noise *n, enum noise_device device, uint64_t seed)
{
    *n = (struct noise){.device = device, .seed = seed, .images = 1};
    noise_cpu_seed(&n->cpu, seed);
    noise_philox_seed(&n->cuda, seed);
}

static void forget_tree(struct noise *n)
{
    brownian_free(n->brownian);
    n->brownian = NULL;
}

void noise_release(struct noise *n)
{
    forget_tree(n);
    while (n->next) {
        struct noise *next = n->next;
        forget_tree(next);
        n->next = next->next;
        free(next);
    }
}

void noise_add(struct noise *n, uint64_t seed, int images)
{
    struct noise *more = alloc_zero(1, sizeof *more);
    noise_init(more, n->device, seed);
    more->images = images;
    while (n->next) n = n->next;
    n->next = more;
}

/* numbers of this stream among `count` of all that follow from `first` on */
static size_t share_of(const struct noise *first, const struct noise *n, size_t count)
{
    size_t images = 0;
    for (const struct noise *i = first; i; i = i->next) images += (size_t)i->images;
    return first->next ? count / images * (size_t)n->images : count;
}

void noise_slerp(float *out, const float *a, const float *b, size_t count, double t)
{
    double aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < count; i++) {
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
        ab += (double)a[i] * b[i];
    }
    double cosine = aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 1;
    double wa = 1 - t, wb = t;
    if (fabs(cosine) < 0.9995) { /* nearly parallel: the straight mean */
        double angle = acos(cosine);
        wa = sin((1 - t) * angle) / sin(angle);
        wb = sin(t * angle) / sin(angle);
    }
    for (size_t i = 0; i < count; i++) out[i] = (float)(wa * a[i] + wb * b[i]);
}

static int first_of_stream(struct noise *n, float *out, int images, size_t count_each,
                           uint64_t variation_seed, double variation_strength, struct error *err)
{
    size_t count = (size_t)images * count_each;
    float *other = NULL;
    if (variation_strength > 0) {
        other = alloc_try(count, sizeof(float));
        if (!other) return error_set(err, ERR_NO_MEMORY, "no memory for the variation's noise");
    }
    if (n->device == NOISE_CUDA)
        noise_philox_normal(&n->cuda, out, count);
    else
        noise_cpu_normal(&n->cpu, out, count);
    if (other) {
        struct noise variation;
        noise_init(&variation, n->device, variation_seed);
        int rc = first_of_stream(&variation, other, images, count_each, 0, 0, err);
        noise_release(&variation);
        for (int i = 0; !rc && i < images; i++) {
            float *own = out + (size_t)i * count_each;
            noise_slerp(own, own, other + (size_t)i * count_each, count_each, variation_strength);
        }
        free(other);
        return rc;
    }
    return 0;
}

int noise_first(struct noise *n, float *out, int images, size_t count_each, uint64_t variation_seed,
                double variation_strength, struct error *err)
{
    if (!n->next)
        return first_of_stream(n, out, images, count_each, variation_seed, variation_strength, err);
    int rc = 0;
    for (struct noise *i = n; i && !rc; i = i->next) {
        rc =
            first_of_stream(i, out, i->images, count_each, variation_seed, variation_strength, err);
        out += (size_t)i->images * count_each;
    }
    return rc;
}

void noise_step(struct noise *n, float *out, size_t count)
{
    for (struct noise *i = n; i; i = i->next) {
        size_t share = share_of(n, i, count);
        if (i->device == NOISE_CPU)
            noise_cpu_normal(&i->cpu, out, share);
        else
            noise_philox_normal(&i->cuda, out, share);
        out += share;
    }
}

static int step_of_stream(struct noise *n, float *out, size_t count, double sigma, double next,
                          double sigma_min, double sigma_max, struct error *err)
{
    if (n->brownian && n->brownian_count != count) forget_tree(n);
    if (!n->brownian) {
        int rc = brownian_new(&n->brownian, n->seed, count, sigma_min, sigma_max, err);
        if (rc) return rc;
        n->brownian_count = count;
    }
    return brownian_noise(n->brownian, out, sigma, next, err);
}

int noise_step_sde(struct noise *n, float *out, size_t count, double sigma, double next,
                   double sigma_min, double sigma_max, struct error *err)
{
    int rc = 0;
    for (struct noise *i = n; i && !rc; i = i->next) {
        size_t share = share_of(n, i, count);
        rc = step_of_stream(i, out, share, sigma, next, sigma_min, sigma_max, err);
        out += share;
    }
    return rc;
}
