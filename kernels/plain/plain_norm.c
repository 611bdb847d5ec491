#include "kernels/plain/plain.h"

/* Group norm and layer norm are one thing: a layer norm is a group norm of `rows` images with one
 * pixel each and one group. */
struct norm_view {
    int64_t n, rows, c, groups;
    double eps;
    enum activation act;
    const real *x, *gamma, *beta;
};

static void statistics(const struct norm_view *v, int64_t n, int64_t g, real *mean, real *rstd)
{
    int64_t width = v->c / v->groups;
    const real *x = v->x + n * v->rows * v->c + g * width;
    double sum = 0, squares = 0, count = (double)(v->rows * width);
    for (int64_t r = 0; r < v->rows; r++) {
        for (int64_t c = 0; c < width; c++) sum += x[r * v->c + c];
    }
    double middle = sum / count;
    for (int64_t r = 0; r < v->rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            double off = x[r * v->c + c] - middle;
            squares += off * off;
        }
    }
    *mean = (real)middle;
    *rstd = (real)(1 / sqrt(squares / count + v->eps));
}

static real scaled(const struct norm_view *v, int64_t channel, real unit)
{
    return (v->gamma ? v->gamma[channel] : 1) * unit + (v->beta ? v->beta[channel] : 0);
}

static void norm_forward(const struct norm_view *v, real *y, real *means, real *rstds)
{
    int64_t width = v->c / v->groups;
    for (int64_t n = 0; n < v->n; n++) {
        for (int64_t g = 0; g < v->groups; g++) {
            real mean, rstd;
            statistics(v, n, g, &mean, &rstd);
            for (int64_t r = 0; r < v->rows; r++) {
                for (int64_t c = g * width; c < (g + 1) * width; c++) {
                    int64_t i = (n * v->rows + r) * v->c + c;
                    y[i] = plain_act(v->act, scaled(v, c, (v->x[i] - mean) * rstd));
                }
            }
            if (means) means[n * v->groups + g] = mean;
            if (rstds) rstds[n * v->groups + g] = rstd;
        }
    }
}

/* docs/kernels/norm.md derives
 *   dx = rstd (u - mean(u) - xhat mean(u xhat)),  u = gamma dz,  dz = dy act'(z) */
static void norm_backward(const struct norm_view *v, const real *means, const real *rstds,
                          const real *dy, real *dx, real *dgamma, real *dbeta, bool accumulate)
{
    int64_t width = v->c / v->groups;
    for (int64_t n = 0; n < v->n; n++) {
        for (int64_t g = 0; g < v->groups; g++) {
            real mean = means[n * v->groups + g], rstd = rstds[n * v->groups + g];
            double sum_u = 0, sum_u_xhat = 0, count = (double)(v->rows * width);
            for (int64_t r = 0; r < v->rows; r++) {
                for (int64_t c = g * width; c < (g + 1) * width; c++) {
                    int64_t i = (n * v->rows + r) * v->c + c;
                    real xhat = (v->x[i] - mean) * rstd;
                    real dz = dy[i] * plain_act_slope(v->act, scaled(v, c, xhat));
                    if (dgamma) dgamma[c] += dz * xhat;
                    if (dbeta) dbeta[c] += dz;
                    real u = v->gamma ? v->gamma[c] * dz : dz;
                    sum_u += u;
                    sum_u_xhat += (double)u * xhat;
                }
            }
            for (int64_t r = 0; dx && r < v->rows; r++) {
                for (int64_t c = g * width; c < (g + 1) * width; c++) {
                    int64_t i = (n * v->rows + r) * v->c + c;
                    real xhat = (v->x[i] - mean) * rstd;
                    real dz = dy[i] * plain_act_slope(v->act, scaled(v, c, xhat));
                    real u = v->gamma ? v->gamma[c] * dz : dz;
                    real slope = rstd * (real)(u - sum_u / count - xhat * (sum_u_xhat / count));
                    dx[i] = accumulate ? dx[i] + slope : slope;
                }
            }
        }
    }
}

int plain_group_norm(struct device *d, const struct group_norm_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t count = a->n * a->rows * a->c;
    struct norm_view v = {a->n,
                          a->rows,
                          a->c,
                          a->groups,
                          a->eps,
                          a->act,
                          plain_read(&s, a->x, a->dtype, count),
                          plain_read(&s, a->gamma, a->weight_dtype, a->c),
                          plain_read(&s, a->beta, a->weight_dtype, a->c)};
    real *y = plain_write(&s, a->y, a->dtype, count, false);
    if (!s.failed) norm_forward(&v, y, a->mean, a->rstd);
    return plain_end(&s, "group_norm", err);
}

int plain_group_norm_grad(struct device *d, const struct group_norm_grad_args *g, struct error *err)
{
    const struct group_norm_args *a = &g->forward;
    struct plain_scratch s = {0};
    int64_t count = a->n * a->rows * a->c;
    struct norm_view v = {a->n,
                          a->rows,
                          a->c,
                          a->groups,
                          a->eps,
                          a->act,
                          plain_read(&s, a->x, a->dtype, count),
                          plain_read(&s, a->gamma, a->weight_dtype, a->c),
                          plain_read(&s, a->beta, a->weight_dtype, a->c)};
    const real *dy = plain_read(&s, g->dy, a->dtype, count);
    real *dx = plain_write(&s, g->dx, a->dtype, count, g->accumulate);
    if (!s.failed) {
        norm_backward(&v, a->mean, a->rstd, dy, dx, g->dgamma, g->dbeta, g->accumulate);
    }
    return plain_end(&s, "group_norm_grad", err);
}

int plain_layer_norm(struct device *d, const struct layer_norm_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    struct norm_view v = {a->rows,
                          1,
                          a->d,
                          1,
                          a->eps,
                          ACT_NONE,
                          plain_read(&s, a->x, a->dtype, a->rows * a->d),
                          plain_read(&s, a->gamma, a->weight_dtype, a->d),
                          plain_read(&s, a->beta, a->weight_dtype, a->d)};
    real *y = plain_write(&s, a->y, a->dtype, a->rows * a->d, false);
    if (!s.failed) norm_forward(&v, y, a->mean, a->rstd);
    return plain_end(&s, "layer_norm", err);
}

int plain_layer_norm_grad(struct device *d, const struct layer_norm_grad_args *g, struct error *err)
{
    const struct layer_norm_args *a = &g->forward;
    struct plain_scratch s = {0};
    struct norm_view v = {a->rows,
                          1,
                          a->d,
                          1,
                          a->eps,
                          ACT_NONE,
                          plain_read(&s, a->x, a->dtype, a->rows * a->d),
                          plain_read(&s, a->gamma, a->weight_dtype, a->d),
                          plain_read(&s, a->beta, a->weight_dtype, a->d)};
    const real *dy = plain_read(&s, g->dy, a->dtype, a->rows * a->d);
    real *dx = plain_write(&s, g->dx, a->dtype, a->rows * a->d, g->accumulate);
    if (!s.failed) {
        norm_backward(&v, a->mean, a->rstd, dy, dx, g->dgamma, g->dbeta, g->accumulate);
    }
    return plain_end(&s, "layer_norm_grad", err);
}
