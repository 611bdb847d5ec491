/*
 * cpu_math.h - exp, erf and the activations on vectors, to about 1e-7 relative.
 *
 * Place    pointwise kernels, epilogues, attention.
 * Failure  none: arguments past the range give 0, the limit or the largest finite power of two.
 * Source   exp: reduction by ln 2 in two parts (Cody & Waite) and the Taylor terms to degree 7 with
 *          the last adjusted; erfc: exp(-z^2) t Q(t), t = 1 / (1 + z/2), Q of degree 9 fitted to
 * the scaled erfc in the relative minimax sense over z in [0,10] (2e-8).
 */
#ifndef KERNELS_CPU_CPU_MATH_H
#define KERNELS_CPU_CPU_MATH_H

#include "kernels/cpu/cpu_vec.h"
#include "kernels/kernels.h"

ALWAYS_INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_set(-87.3f)), vf_set(88.3f));
    /* adding 1.5 * 2^23 rounds to the nearest integer */
    vf shifted = x * 1.44269504089f + 12582912.0f;
    vf n = shifted - 12582912.0f;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vi power = ((vi)shifted) << 23;
    return (vf)((vi)p + power);
}

/* 2^x, exactly 1 at 0; anything below about -126 gives 0 or nearly so, above 127 what is larger than
 * 2^125 or NaN. `rough` is good to
 * 1e-4, for results that are rounded to bfloat16; otherwise 1e-7. Minimax fits, constant term held. */
ALWAYS_INLINE vf vf_exp2(vf x, const bool rough)
{
#if VL == 16
    vf r = x - (vf)_mm512_roundscale_ps((__m512)x, 1); /* less its floor; reduce_ps is slower */
    vf p =
        rough
            ? (r * 0.07706704f + 0.22764499f) * r + 0.69511679f
            : ((((r * 2.1612915e-4f + 1.2467846e-3f) * r + 9.6754516e-3f) * r + 5.5485281e-2f) * r +
               2.4022931e-1f) *
                      r +
                  6.9314704e-1f;
    return (vf)_mm512_scalef_ps((__m512)(p * r + 1.0f), (__m512)x);
#else
    x = vf_min(vf_max(x, vf_set(-126.0f)), vf_set(126.0f));
    vf shifted = x + 12582912.0f;
    vf r = x - (shifted - 12582912.0f);
    vf p =
        rough
            ? (r * 0.055008931f + 0.24221096f) * r + 0.69328293f
            : ((((r * 1.5353362e-4f + 1.3398874e-3f) * r + 9.6184374e-3f) * r + 5.5503325e-2f) * r +
               2.4022648e-1f) *
                      r +
                  6.9314720e-1f;
    return (vf)((vi)(p * r + 1.0f) + (((vi)shifted) << 23));
#endif
}

ALWAYS_INLINE vf vf_sigmoid(vf x)
{
    return 1.0f / (1.0f + vf_exp(-x));
}

/* erfc(|x|) */
ALWAYS_INLINE vf vf_erfc_abs(vf z)
{
    vf t = 1.0f / (1.0f + 0.5f * z);
    vf p = t * 0.01228331f - 0.12325182f;
    p = p * t + 0.42892218f;
    p = p * t - 0.67001490f;
    p = p * t + 0.42126859f;
    p = p * t - 0.09831491f;
    p = p * t + 0.22554103f;
    p = p * t + 0.23864499f;
    p = p * t + 0.28285702f;
    p = p * t + 0.28206450f;
    return p * t * vf_exp(-z * z);
}

/* the standard normal distribution function, (1 + erf(x / sqrt 2)) / 2 */
ALWAYS_INLINE vf vf_normal(vf x)
{
    vf half = 0.5f * vf_erfc_abs(vf_abs(x) * 0.70710678118f);
    return vf_where_less(x, vf_set(0.0f), half, 1.0f - half);
}

/* x times vf_normal(x); `rough` is good to 3e-4 of it, for results that are rounded to bfloat16: Q of degree 4
 * with t = 1 / (1 + 0.55 z), fitted as above to 6e-5. */
ALWAYS_INLINE vf vf_gelu(vf x, const bool rough)
{
    if (!rough) return x * vf_normal(x);
    vf t = 1.0f + 0.38890873f * vf_abs(x);
#if VL == 16
    t = (vf)_mm512_rcp14_ps((__m512)t);
#else
    t = 1.0f / t;
#endif
    vf p = t * -0.087315797f + 0.16710139f;
    p = p * t + 0.10692939f;
    p = p * t + 0.15822057f;
    p = p * t + 0.15503640f;
    vf half = p * t * vf_exp2(-0.72134752f * x * x, true);
    return x * vf_where_less(x, vf_set(0.0f), half, 1.0f - half);
}

/* x / (1 + exp(-x)); `rough` is good to 2e-4 of it, for results that are rounded to bfloat16. */
ALWAYS_INLINE vf vf_silu(vf x, const bool rough)
{
    if (!rough) return x * vf_sigmoid(x);
    vf e = vf_exp2(-1.44269504f * vf_abs(x), true), t = 1.0f + e;
#if VL == 16
    t = (vf)_mm512_rcp14_ps((__m512)t);
#else
    t = 1.0f / t;
#endif
    return x * vf_where_less(x, vf_set(0.0f), e * t, t);
}

ALWAYS_INLINE vf vf_tanh(vf x)
{
    vf a = vf_abs(x);
    vf x2 = x * x;
    /* near zero the quotient cancels; the series to x^7 is exact to 1e-7 below 0.2 */
    vf small = x * (1.0f + x2 * (-0.33333333f + x2 * (0.13333333f + x2 * -0.053968254f)));
    vf e = vf_exp(2.0f * a);
    vf large = 1.0f - 2.0f / (e + 1.0f);
    large = vf_where_less(x, vf_set(0.0f), -large, large);
    return vf_where_less(a, vf_set(0.2f), small, large);
}

ALWAYS_INLINE vf vf_activate(vf x, enum activation act)
{
    switch (act) {
    case ACT_SILU: return x * vf_sigmoid(x);
    case ACT_GELU: return x * vf_normal(x);
    case ACT_QUICK_GELU: return x * vf_sigmoid(1.702f * x);
    case ACT_RELU: return vf_max(x, vf_set(0.0f));
    case ACT_LEAKY_RELU: return vf_max(x, 0.2f * x);
    case ACT_TANH: return vf_tanh(x);
    case ACT_SIGMOID: return vf_sigmoid(x);
    default: return x;
    }
}

/* d act(x) / dx */
ALWAYS_INLINE vf vf_slope(vf x, enum activation act)
{
    vf s, one = vf_set(1.0f), zero = vf_set(0.0f);
    switch (act) {
    case ACT_SILU: s = vf_sigmoid(x); return s * (1.0f + x * (1.0f - s));
    case ACT_GELU: return vf_normal(x) + x * 0.39894228040f * vf_exp(-0.5f * x * x);
    case ACT_QUICK_GELU: s = vf_sigmoid(1.702f * x); return s * (1.0f + 1.702f * x * (1.0f - s));
    case ACT_RELU: return vf_where_less(zero, x, one, zero);
    case ACT_LEAKY_RELU: return vf_where_less(zero, x, one, vf_set(0.2f));
    case ACT_TANH: s = vf_tanh(x); return 1.0f - s * s;
    case ACT_SIGMOID: s = vf_sigmoid(x); return s * (1.0f - s);
    default: return one;
    }
}

#endif
