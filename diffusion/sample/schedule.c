#include "diffusion/sample/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/sample/schedule_tables.h"

/* float32 where the reference has it: SDE samplers turn the last place into another noise. */
struct plan {
    const struct noise_levels *levels;
    enum family family;
    int steps;
    double min, max; /* of the levels */
};

/* Writes at most steps + 2 values into v, the closing zero included; returns how many. */
typedef int schedule_function(const struct plan *p, double *v);

static int close_with_zero(double *v, int count)
{
    v[count] = 0;
    return count + 1;
}

/* Element i of torch.linspace(from, to, count), in its float arithmetic: from both ends inwards. */
static double linspace(double from, double to, int count, int i)
{
    if (count < 2) return (float)from;
    float step = ((float)to - (float)from) / (float)(count - 1);
    return i < count / 2 ? (float)from + step * (float)i
                         : (float)to - step * (float)(count - 1 - i);
}

static int from_timesteps(const struct plan *p, double *v, int count)
{
    double first = noise_levels_timestep(p->levels, p->max);
    double last = noise_levels_timestep(p->levels, p->min);
    for (int i = 0; i < p->steps; i++)
        v[i] = noise_levels_sigma(p->levels, linspace(first, last, count, i));
    return close_with_zero(v, p->steps);
}

static int make_normal(const struct plan *p, double *v)
{
    return from_timesteps(p, v, p->steps);
}

static int make_sgm_uniform(const struct plan *p, double *v)
{
    return from_timesteps(p, v, p->steps + 1);
}

static int make_karras(const struct plan *p, double *v)
{
    const double rho = 7;
    double low = pow(p->min, 1 / rho), high = pow(p->max, 1 / rho);
    float from = (float)high, step = (float)(low - high);
    for (int i = 0; i < p->steps; i++)
        v[i] = powf(from + (float)linspace(0, 1, p->steps, i) * step, (float)rho);
    return close_with_zero(v, p->steps);
}

static int make_exponential(const struct plan *p, double *v)
{
    for (int i = 0; i < p->steps; i++)
        v[i] = expf((float)linspace(log(p->max), log(p->min), p->steps, i));
    return close_with_zero(v, p->steps);
}

static int make_simple(const struct plan *p, double *v)
{
    double stride = (double)NOISE_LEVELS / p->steps;
    for (int i = 0; i < p->steps; i++)
        v[i] = p->levels->sigma[NOISE_LEVELS - 1 - (int)(i * stride)];
    return close_with_zero(v, p->steps);
}

/* Equal strides from level 1 up, so that one step more than asked comes out for some counts. */
static int make_ddim_uniform(const struct plan *p, double *v)
{
    int stride = NOISE_LEVELS / p->steps, count = 0;
    if (stride < 1) stride = 1;
    for (int t = 1; t < NOISE_LEVELS && count <= p->steps; t += stride) count++;
    for (int i = 0; i < count; i++) v[i] = p->levels->sigma[1 + stride * (count - 1 - i)];
    return close_with_zero(v, count);
}

/* --- beta(0.6, 0.6): Lee et al. 2024, "Beta Sampling is All You Need" --- */

/* Regularised incomplete beta function by its continued fraction (Numerical Recipes, 6.4). */
static double incomplete_beta(double a, double b, double x)
{
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - incomplete_beta(b, a, 1 - x);
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a;
    double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), value = d;
    for (int m = 1; m < 300; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / (1 + even * d);
        c = 1 + even / c;
        value *= d * c;
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        value *= d * c;
        if (fabs(d * c - 1) < 1e-15) break;
    }
    return front * value;
}

static double beta_quantile(double a, double b, double probability)
{
    double low = 0, high = 1;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (incomplete_beta(a, b, middle) < probability)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

static int make_beta(const struct plan *p, double *v)
{
    int count = 0, last = -1;
    for (int i = 0; i < p->steps; i++) {
        double probability = 1 - (double)i / p->steps;
        double place = i ? beta_quantile(0.6, 0.6, probability) : 1;
        int t = (int)rint(place * (NOISE_LEVELS - 1));
        if (t != last) v[count++] = p->levels->sigma[t]; /* many steps meet at the ends */
        last = t;
    }
    return close_with_zero(v, count);
}

/* Half the steps go down by 2.5 % in all, the rest quadratically. Polyak et al. 2024 (Movie Gen).
 */
static int make_linear_quadratic(const struct plan *p, double *v)
{
    const double threshold = 0.025;
    int n = p->steps, linear = n / 2, rest = n - linear;
    if (n == 1) {
        v[0] = p->max;
        return close_with_zero(v, 1);
    }
    double difference = linear - threshold * n;
    double square = difference / (linear * (double)rest * rest);
    double slope = threshold / linear - 2 * difference / ((double)rest * rest);
    double constant = square * linear * linear;
    for (int i = 0; i < n; i++) {
        double down = i < linear ? i * threshold / linear : square * i * i + slope * i + constant;
        v[i] = (float)(1 - down) * p->max;
    }
    return close_with_zero(v, n);
}

/* Theorem 3.1 of Sabour et al. 2024. */
static int make_kl_optimal(const struct plan *p, double *v)
{
    for (int i = 0; i < p->steps; i++) {
        double at = p->steps > 1 ? (double)i / (p->steps - 1) : 0;
        v[i] = tan(at * atan(p->min) + (1 - at) * atan(p->max));
    }
    return close_with_zero(v, p->steps);
}

/* A list of levels stretched to steps + 1 by interpolating log sigma; the last becomes 0. */
static int from_table(const struct plan *p, double *v, const double *table, int count)
{
    for (int i = 0; i < p->steps; i++) {
        double at = (double)i * (count - 1) / p->steps;
        int low = (int)at;
        double w = at - low;
        v[i] = exp((1 - w) * log(table[low]) + (w > 0 ? w * log(table[low + 1]) : 0));
    }
    return close_with_zero(v, p->steps);
}

static int make_align_your_steps(const struct plan *p, double *v)
{
    bool xl = p->family == FAMILY_SDXL || p->family == FAMILY_SDXL_REFINER;
    return from_table(p, v, xl ? ays_sdxl : ays_sd1, AYS_LEVELS);
}

static int make_gits(const struct plan *p, double *v)
{
    int row = p->steps < GITS_STEPS_MIN ? GITS_STEPS_MIN : p->steps;
    if (row > GITS_STEPS_MAX) row = GITS_STEPS_MAX;
    return from_table(p, v, gits_levels[row - GITS_STEPS_MIN], row + 1);
}

static schedule_function *const makers[SCHEDULE_COUNT] = {
    [SCHEDULE_NORMAL] = make_normal,
    [SCHEDULE_KARRAS] = make_karras,
    [SCHEDULE_EXPONENTIAL] = make_exponential,
    [SCHEDULE_SGM_UNIFORM] = make_sgm_uniform,
    [SCHEDULE_SIMPLE] = make_simple,
    [SCHEDULE_DDIM_UNIFORM] = make_ddim_uniform,
    [SCHEDULE_BETA] = make_beta,
    [SCHEDULE_LINEAR_QUADRATIC] = make_linear_quadratic,
    [SCHEDULE_KL_OPTIMAL] = make_kl_optimal,
    [SCHEDULE_ALIGN_YOUR_STEPS] = make_align_your_steps,
    [SCHEDULE_GITS] = make_gits,
};

int schedule_make(struct sigmas *s, enum schedule schedule, const struct noise_levels *levels,
                  enum family family, int steps, struct error *err)
{
    if (steps < 1 || steps > SCHEDULE_STEPS_MAX)
        return error_set(err, ERR_INVALID, "%d steps; a schedule has 1 to %d", steps,
                         SCHEDULE_STEPS_MAX);
    double *v = alloc_zero((size_t)steps + 3, sizeof *v);
    struct plan plan = {
        .levels = levels,
        .family = family,
        .steps = steps,
        .min = noise_levels_min(levels),
        .max = noise_levels_max(levels),
    };
    int count = makers[schedule](&plan, v);
    for (int i = 0; i < count; i++) v[i] = (float)v[i]; /* the reference keeps float32 */
    *s = (struct sigmas){v, count};
    return 0;
}

static bool loses_second_last(enum sampler s)
{
    return s == SAMPLER_K_DPM_2 || s == SAMPLER_K_DPM_2_A || s == SAMPLER_UNI_PC ||
           s == SAMPLER_UNI_PC_BH2;
}

int schedule_for_run(struct sigmas *s, enum schedule schedule, enum sampler sampler,
                     const struct noise_levels *levels, enum family family, int steps,
                     double denoise, struct error *err)
{
    bool lose = loses_second_last(sampler);
    if (!(denoise > 0 && denoise <= 1))
        return error_set(err, ERR_INVALID, "denoise %g is not within 0..1", denoise);
    /* 0.9999 and above is all of it, as the reference has it */
    double total = denoise > 0.9999 ? steps : trunc(steps / denoise);
    if (steps < 1 || total > SCHEDULE_STEPS_MAX)
        return error_set(err, ERR_INVALID,
                         "%d steps at denoise %g are %.0f steps in all; the limit is %d", steps,
                         denoise, total, SCHEDULE_STEPS_MAX);
    struct sigmas all;
    int rc = schedule_make(&all, schedule, levels, family, (int)total + lose, err);
    if (rc) return rc;
    if (lose && all.count > 2) {
        all.value[all.count - 2] = 0;
        all.count--;
    }
    if ((int)total != steps && all.count > steps + 1) {
        memmove(all.value, all.value + all.count - steps - 1, ((size_t)steps + 1) * sizeof(double));
        all.count = steps + 1;
    }
    int kept = 1;
    for (int i = 1; i < all.count; i++)
        if (all.value[i] < all.value[kept - 1]) all.value[kept++] = all.value[i];
    all.count = kept;
    *s = all;
    return 0;
}

void sigmas_release(struct sigmas *s)
{
    free(s->value);
    *s = (struct sigmas){0};
}

double schedule_noise_factor(const struct noise_levels *levels, double first_sigma)
{
    double max = noise_levels_max(levels);
    bool pure = first_sigma > max || fabs(first_sigma - max) <= 1e-5 * max;
    return pure ? sqrt(1 + first_sigma * first_sigma) : first_sigma;
}
