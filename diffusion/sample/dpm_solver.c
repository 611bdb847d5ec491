#include "diffusion/sample/dpm_solver.h"

int dpm_solver_init(struct dpm_solver *d, struct sampling *s, struct error *err)
{
    *d = (struct dpm_solver){.s = s};
    d->D = sampling_vector(s, err);
    d->eps = sampling_vector(s, err);
    d->eps1 = sampling_vector(s, err);
    d->eps2 = sampling_vector(s, err);
    d->u = sampling_vector(s, err);
    return d->D && d->eps && d->eps1 && d->eps2 && d->u ? 0 : ERR_NO_MEMORY;
}

static int slope(struct dpm_solver *d, float *eps, const float *x, double t, struct error *err)
{
    double sigma = exp(-t);
    int rc = sampling_denoise(d->s, d->D, x, sigma, err);
    if (!rc) derivative(eps, d->s->count, x, d->D, sigma);
    return rc;
}

int dpm_solver_start(struct dpm_solver *d, const float *x, double t, struct error *err)
{
    return slope(d, d->eps, x, t, err);
}

void dpm_solver_1(struct dpm_solver *d, float *y, const float *x, double t, double t_next)
{
    vector_sum2(y, d->s->count, 1, x, -exp(-t_next) * expm1(t_next - t), d->eps);
}

/* Slope of the inner stage at t + r1 h. */
static int stage_1(struct dpm_solver *d, const float *x, double t, double h, double r1,
                   struct error *err)
{
    double s1 = t + r1 * h;
    d->r1 = r1;
    vector_sum2(d->u, d->s->count, 1, x, -exp(-s1) * expm1(r1 * h), d->eps);
    return slope(d, d->eps1, d->u, s1, err);
}

int dpm_solver_2(struct dpm_solver *d, float *y, const float *x, double t, double t_next, double r1,
                 struct error *err)
{
    double h = t_next - t;
    int rc = stage_1(d, x, t, h, r1, err);
    if (rc) return rc;
    double own = -exp(-t_next) * expm1(h), lean = own / (2 * r1);
    vector_sum3(y, d->s->count, 1, x, own - lean, d->eps, lean, d->eps1);
    return 0;
}

int dpm_solver_3(struct dpm_solver *d, float *y, const float *x, double t, double t_next,
                 bool again, struct error *err)
{
    const double r1 = 1.0 / 3, r2 = 2.0 / 3;
    double h = t_next - t, s2 = t + r2 * h;
    int rc = again ? 0 : stage_1(d, x, t, h, r1, err);
    if (rc) return rc;
    KILN_ASSERT(d->r1 == r1, "inner stage at %g", d->r1);
    double own = -exp(-s2) * expm1(r2 * h);
    double lean = -exp(-s2) * (r2 / r1) * (expm1(r2 * h) / (r2 * h) - 1);
    vector_sum3(d->u, d->s->count, 1, x, own - lean, d->eps, lean, d->eps1);
    rc = slope(d, d->eps2, d->u, s2, err);
    if (rc) return rc;
    own = -exp(-t_next) * expm1(h);
    lean = -exp(-t_next) / r2 * (expm1(h) / h - 1);
    vector_sum3(y, d->s->count, 1, x, own - lean, d->eps, lean, d->eps2);
    return 0;
}
