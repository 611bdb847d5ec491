#include "kernels/plain/plain.h"

static real sigmoid(real x)
{
    return 1 / (1 + REAL(exp)(-x));
}

/* standard normal density and distribution */
static real normal_pdf(real x)
{
    return (real)0.39894228040143267794 * REAL(exp)(-x * x / 2);
}
static real normal_cdf(real x)
{
    return (1 + REAL(erf)(x * (real)0.70710678118654752440)) / 2;
}

real plain_act(enum activation act, real x)
{
    switch (act) {
    case ACT_SILU: return x * sigmoid(x);
    case ACT_GELU: return x * normal_cdf(x);
    case ACT_QUICK_GELU: return x * sigmoid((real)1.702 * x);
    case ACT_RELU: return x < 0 ? 0 : x;
    case ACT_LEAKY_RELU: return x < 0 ? (real)0.2 * x : x;
    case ACT_TANH: return REAL(tanh)(x);
    case ACT_SIGMOID: return sigmoid(x);
    case ACT_NONE:
    case ACT_COUNT: break;
    }
    return x;
}

real plain_act_slope(enum activation act, real x)
{
    real s;
    switch (act) {
    case ACT_SILU: s = sigmoid(x); return s * (1 + x * (1 - s));
    case ACT_GELU: return normal_cdf(x) + x * normal_pdf(x);
    case ACT_QUICK_GELU: s = sigmoid((real)1.702 * x); return s * (1 + (real)1.702 * x * (1 - s));
    case ACT_RELU: return x > 0 ? 1 : 0;
    case ACT_LEAKY_RELU: return x > 0 ? 1 : (real)0.2;
    case ACT_TANH: s = REAL(tanh)(x); return 1 - s * s;
    case ACT_SIGMOID: s = sigmoid(x); return s * (1 - s);
    case ACT_NONE:
    case ACT_COUNT: break;
    }
    return 1;
}

int plain_activation(struct device *d, const struct activation_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->count);
    real *y = plain_write(&s, a->y, a->dtype, a->count, false);
    for (int64_t i = 0; !s.failed && i < a->count; i++) y[i] = plain_act(a->act, x[i]);
    return plain_end(&s, "activation", err);
}

int plain_activation_grad(struct device *d, const struct activation_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->count);
    const real *dy = plain_read(&s, a->dy, a->dtype, a->count);
    real *dx = plain_write(&s, a->dx, a->dtype, a->count, a->accumulate);
    for (int64_t i = 0; !s.failed && i < a->count; i++) {
        real slope = dy[i] * plain_act_slope(a->act, x[i]);
        dx[i] = a->accumulate ? dx[i] + slope : slope;
    }
    return plain_end(&s, "activation_grad", err);
}

int plain_geglu(struct device *d, const struct geglu_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->rows * a->d * 2);
    real *y = plain_write(&s, a->y, a->dtype, a->rows * a->d, false);
    for (int64_t r = 0; !s.failed && r < a->rows; r++) {
        const real *value = x + r * 2 * a->d, *gate = value + a->d;
        for (int64_t i = 0; i < a->d; i++)
            y[r * a->d + i] = value[i] * plain_act(ACT_GELU, gate[i]);
    }
    return plain_end(&s, "geglu", err);
}

int plain_geglu_grad(struct device *d, const struct geglu_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    const real *x = plain_read(&s, a->x, a->dtype, a->rows * a->d * 2);
    const real *dy = plain_read(&s, a->dy, a->dtype, a->rows * a->d);
    real *dx = plain_write(&s, a->dx, a->dtype, a->rows * a->d * 2, a->accumulate);
    for (int64_t r = 0; !s.failed && r < a->rows; r++) {
        const real *value = x + r * 2 * a->d, *gate = value + a->d, *slope = dy + r * a->d;
        real *dvalue = dx + r * 2 * a->d, *dgate = dvalue + a->d;
        for (int64_t i = 0; i < a->d; i++) {
            real v = slope[i] * plain_act(ACT_GELU, gate[i]);
            real g = slope[i] * value[i] * plain_act_slope(ACT_GELU, gate[i]);
            dvalue[i] = a->accumulate ? dvalue[i] + v : v;
            dgate[i] = a->accumulate ? dgate[i] + g : g;
        }
    }
    return plain_end(&s, "geglu_grad", err);
}
