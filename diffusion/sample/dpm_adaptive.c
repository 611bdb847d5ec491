/* DPM-Solver with orders 2 and 3 side by side and a step size from their difference (PID control
 * with the integral term alone). Ends at the last positive sigma. k-diffusion sample_dpm_adaptive
 * with order 3, rtol 0.05, atol 0.0078, h_init 0.05, accept_safety 0.81, eta 0. */
#include "diffusion/sample/dpm_solver.h"

static const double RTOL = 0.05, ATOL = 0.0078, H_FIRST = 0.05, SAFETY = 0.81, T_SLACK = 1e-5;
enum { CALLS_MAX = 3000 }; /* a worker must not loop for ever */

static double error_norm(const float *low, const float *high, const float *previous, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double scale = RTOL * fmax(fabs((double)low[i]), fabs((double)previous[i]));
        double e = ((double)low[i] - high[i]) / fmax(ATOL, scale);
        sum += e * e;
    }
    return sqrt(sum / (double)count);
}

int sample_dpm_adaptive(struct sampling *s, struct error *err)
{
    struct dpm_solver d;
    float *low = sampling_vector(s, err), *high = sampling_vector(s, err);
    float *previous = sampling_vector(s, err);
    int rc = low && high && previous ? dpm_solver_init(&d, s, err) : ERR_NO_MEMORY;
    if (rc) return rc;
    vector_scale(previous, s->count, 1, s->x);
    const double start = -log(s->sigma_max), end = -log(s->sigma_min);
    double t = start, h = H_FIRST;
    for (int calls = 0; t < end - T_SLACK; calls += 3) {
        if (calls >= CALLS_MAX)
            return error_set(err, ERR_INVALID,
                             "k_dpm_adaptive found no step small enough within %d network calls",
                             CALLS_MAX);
        double next = fmin(end, t + h);
        rc = dpm_solver_start(&d, s->x, t, err);
        if (!rc) rc = dpm_solver_2(&d, low, s->x, t, next, 1.0 / 3, err);
        if (!rc) rc = dpm_solver_3(&d, high, s->x, t, next, true, err);
        if (rc) return rc;
        double inverse = 1 / (error_norm(low, high, previous, s->count) + 1e-8);
        double factor = 1 + atan(cbrt(inverse) - 1);
        if (!isfinite(factor))
            return error_set(err, ERR_INVALID, "k_dpm_adaptive met values that are not numbers");
        if (factor >= SAFETY) {
            vector_scale(previous, s->count, 1, low);
            vector_scale(s->x, s->count, 1, high);
            t = next;
            int step = (int)((t - start) / (end - start) * s->steps);
            rc = sampling_step_done(s, step < s->steps ? step : s->steps - 1, d.D, err);
            if (rc) return rc;
        }
        h *= factor;
    }
    return 0;
}
