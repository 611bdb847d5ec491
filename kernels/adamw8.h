/*
 * adamw8.h - one block of AdamW whose moments are kept in 8 bits; shared by plain/ and cpu/.
 *
 * Place    plain_adamw8 walks over the blocks, cpu_adamw8 hands them to its pool.
 * Owner    nothing. Any thread.
 * Failure  cannot fail.
 * Source   Dettmers, Lewis, Shleifer & Zettlemoyer 2022, "8-bit Optimizers via Block-wise
 *          Quantization", section 2 (block-wise quantisation) and appendix (dynamic tree); blocks of
 *          256 as bitsandbytes has them since 2024.
 *
 * The table: seven decades; decade i = 0..6 holds 2^i (signed: for each sign) or 2^(i+1) equal cells
 * of [0.1, 1] 10^(i-6), each stood for by its middle; and 0 and 1. That makes 256 values. A block's
 * factor is its largest magnitude, so the table's 1 is always hit.
 */
#ifndef KERNELS_ADAMW8_H
#define KERNELS_ADAMW8_H

#include <math.h>

#include "kernels/kernels.h"
#include "kernels/real.h"

struct adamw8_table {
    float value[256];    /* rising */
    float boundary[255]; /* halfway between neighbours */
};

static inline void adamw8_table_fill(struct adamw8_table *t, bool with_sign)
{
    int at = with_sign ? 127 : 0;
    t->value[at] = 0;
    for (int decade = 0; decade < 7; decade++) {
        int cells = 1 << (decade + !with_sign);
        double unit = pow(10, decade - 6);
        for (int k = 0; k < cells; k++) {
            double middle = (.1 + .9 * (k + .5) / cells) * unit;
            at++;
            t->value[at] = (float)middle;
            if (with_sign) t->value[254 - at] = (float)-middle;
        }
    }
    t->value[255] = 1;
    for (int i = 0; i < 255; i++) t->boundary[i] = .5f * (t->value[i] + t->value[i + 1]);
}

/* The nearest value's index: eight halvings without a branch. */
static inline uint8_t adamw8_encode(const struct adamw8_table *t, float x)
{
    int at = 0;
    for (int half = 128; half; half /= 2) at += x > t->boundary[at + half - 1] ? half : 0;
    return (uint8_t)at;
}

struct adamw8_run {
    const struct adamw8_args *a;
    struct adamw8_table m, v;
    double m_unbias, v_unbias;
};

static inline void adamw8_start(struct adamw8_run *r, const struct adamw8_args *a)
{
    r->a = a;
    adamw8_table_fill(&r->m, true);
    adamw8_table_fill(&r->v, false);
    r->m_unbias = 1 / (1 - pow(a->base.beta1, (double)a->base.step));
    r->v_unbias = 1 / (1 - pow(a->base.beta2, (double)a->base.step));
}

static inline void adamw8_block(const struct adamw8_run *r, int64_t block)
{
    const struct adamw_args *a = &r->a->base;
    int64_t from = block * ADAMW8_BLOCK;
    int count = a->count - from < ADAMW8_BLOCK ? (int)(a->count - from) : ADAMW8_BLOCK;
    real *param = (real *)a->param + from, *m_scale = (real *)r->a->m_scale + block;
    real *v_scale = (real *)r->a->v_scale + block;
    const real *grad = (const real *)a->grad + from;
    uint8_t *m = (uint8_t *)a->m + from, *v = (uint8_t *)a->v + from;
    float first[ADAMW8_BLOCK], second[ADAMW8_BLOCK], m_top = 0, v_top = 0;
    for (int i = 0; i < count; i++) {
        double g = (double)grad[i] * a->grad_scale;
        double mean = a->beta1 * r->m.value[m[i]] * (double)*m_scale + (1 - a->beta1) * g;
        double square = a->beta2 * r->v.value[v[i]] * (double)*v_scale + (1 - a->beta2) * g * g;
        double step = mean * r->m_unbias / (sqrt(square * r->v_unbias) + a->eps);
        param[i] = (real)((double)param[i] - a->lr * (step + a->weight_decay * (double)param[i]));
        first[i] = (float)mean;
        second[i] = (float)square;
        m_top = fmaxf(m_top, fabsf(first[i]));
        v_top = fmaxf(v_top, second[i]);
    }
    float m_unit = m_top > 0 ? 1 / m_top : 0, v_unit = v_top > 0 ? 1 / v_top : 0;
    for (int i = 0; i < count; i++) {
        m[i] = adamw8_encode(&r->m, first[i] * m_unit);
        v[i] = adamw8_encode(&r->v, second[i] * v_unit);
    }
    *m_scale = m_top;
    *v_scale = v_top;
}

#endif
