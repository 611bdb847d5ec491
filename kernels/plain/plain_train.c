/* What only training needs: the loss, the optimiser and the norm it is clipped by. */
#include "kernels/adamw8.h"
#include "kernels/plain/plain.h"

int plain_mse(struct device *d, const struct mse_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *y = plain_read(&s, a->y, a->dtype, a->count);
    const real *target = plain_read(&s, a->target, a->dtype, a->count), *weight = a->weight;
    double sum = 0;
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        double off = (double)y[i] - target[i];
        sum += (weight ? weight[i] : 1) * off * off;
    }
    if (!s.failed) *(real *)a->loss = (real)(sum / (double)a->count);
    return plain_end(&s, "mse", err);
}

int plain_mse_grad(struct device *d, const struct mse_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *y = plain_read(&s, a->y, a->dtype, a->count);
    const real *target = plain_read(&s, a->target, a->dtype, a->count), *weight = a->weight;
    real *dy = plain_write(&s, a->dy, a->dtype, a->count, false);
    real factor = (real)(2 * a->scale / (double)a->count);
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        dy[i] = factor * (weight ? weight[i] : 1) * (y[i] - target[i]);
    }
    return plain_end(&s, "mse_grad", err);
}

int plain_adamw(struct device *d, const struct adamw_args *a, struct error *err)
{
    real *param = a->param, *m = a->m, *v = a->v;
    const real *grad = a->grad;
    double m_unbias = 1 / (1 - pow(a->beta1, (double)a->step));
    double v_unbias = 1 / (1 - pow(a->beta2, (double)a->step));
    for (int64_t i = 0; i < a->count; i++) {
        double g = grad[i] * a->grad_scale;
        double first = a->beta1 * m[i] + (1 - a->beta1) * g;
        double second = a->beta2 * v[i] + (1 - a->beta2) * g * g;
        double step = first * m_unbias / (sqrt(second * v_unbias) + a->eps);
        m[i] = (real)first;
        v[i] = (real)second;
        param[i] = (real)(param[i] - a->lr * (step + a->weight_decay * param[i]));
    }
    return 0;
}

int plain_adamw8(struct device *d, const struct adamw8_args *a, struct error *err)
{
    struct adamw8_run run;
    adamw8_start(&run, a);
    for (int64_t block = 0; block * ADAMW8_BLOCK < a->base.count; block++)
        adamw8_block(&run, block);
    return 0;
}

int plain_norm(struct device *d, const struct norm_args *a, struct error *err)
{
    double sum = 0;
    for (int64_t i = 0; i < a->count; i++) {
        double x = dtype_get(a->x, a->dtype, i);
        sum += x * x;
    }
    *a->sum_of_squares = sum;
    return 0;
}
