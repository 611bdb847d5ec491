#include "kernels/plain/plain.h"

/* Row i of softmax(scale q k^T + mask) of one head into `row` [lk]; returns its log-sum-exp. */
static real softmax_row(const struct attention_args *a, real *row, const real *q, const real *k,
                        int64_t i)
{
    int64_t width = a->heads * a->d, seen = a->causal && i + 1 < a->lk ? i + 1 : a->lk;
    real top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < seen; j++) {
        real dot = 0;
        for (int64_t e = 0; e < a->d; e++) dot += q[e] * k[j * width + e];
        row[j] = dot * (real)a->scale;
        if (!(row[j] <= top)) top = row[j]; /* written so that NaN is kept */
    }
    for (int64_t j = 0; j < seen; j++) {
        row[j] = REAL(exp)(row[j] - top);
        sum += row[j];
    }
    for (int64_t j = 0; j < seen; j++) row[j] /= sum;
    for (int64_t j = seen; j < a->lk; j++) row[j] = 0;
    return top + REAL(log)(sum);
}

int plain_attention(struct device *d, const struct attention_args *a, struct error *err)
{
    struct plain_scratch s = {0};
    int64_t width = a->heads * a->d;
    const real *q = plain_read_rows(&s, a->q, a->dtype, a->n * a->lq, width, a->ldq);
    const real *k = plain_read_rows(&s, a->k, a->dtype, a->n * a->lk, width, a->ldk);
    const real *v = plain_read_rows(&s, a->v, a->dtype, a->n * a->lk, width, a->ldv);
    real *y = plain_write_rows(&s, a->y, a->dtype, a->n * a->lq, width, a->ldy, false);
    real *row = plain_room(&s, a->lk), *lse = a->lse;
    for (int64_t n = 0; !s.failed && n < a->n; n++) {
        for (int64_t h = 0; h < a->heads; h++) {
            const real *kh = k + n * a->lk * width + h * a->d;
            const real *vh = v + n * a->lk * width + h * a->d;
            for (int64_t i = 0; i < a->lq; i++) {
                int64_t at = (n * a->lq + i) * width + h * a->d;
                real sum = softmax_row(a, row, q + at, kh, i);
                if (lse) lse[(n * a->heads + h) * a->lq + i] = sum;
                for (int64_t e = 0; e < a->d; e++) y[at + e] = 0;
                for (int64_t j = 0; j < a->lk; j++) {
                    if (a->causal && j > i) break;
                    for (int64_t e = 0; e < a->d; e++) y[at + e] += row[j] * vh[j * width + e];
                }
            }
        }
    }
    return plain_end(&s, "attention", err);
}

/* docs/kernels/attention.md: with P the softmax and D_i = dy_i . y_i
 *   dv = P^T dy,  dS_ij = P_ij (dy_i . v_j - D_i),  dq = scale dS k,  dk = scale dS^T q */
int plain_attention_grad(struct device *dev, const struct attention_grad_args *g, struct error *err)
{
    const struct attention_args *a = &g->forward;
    struct plain_scratch s = {0};
    int64_t width = a->heads * a->d, rows_q = a->n * a->lq, rows_k = a->n * a->lk;
    const real *q = plain_read_rows(&s, a->q, a->dtype, rows_q, width, a->ldq);
    const real *k = plain_read_rows(&s, a->k, a->dtype, rows_k, width, a->ldk);
    const real *v = plain_read_rows(&s, a->v, a->dtype, rows_k, width, a->ldv);
    const real *dy = plain_read_rows(&s, g->dy, a->dtype, rows_q, width, a->ldy);
    real *dq = plain_room(&s, rows_q * width), *dk = plain_room(&s, rows_k * width);
    real *dv = plain_room(&s, rows_k * width), *row = plain_room(&s, a->lk);
    real *slope = plain_room(&s, a->lk);
    for (int64_t n = 0; !s.failed && n < a->n; n++) {
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t keys = n * a->lk * width + h * a->d;
            for (int64_t i = 0; i < a->lq; i++) {
                int64_t at = (n * a->lq + i) * width + h * a->d;
                int64_t seen = a->causal && i + 1 < a->lk ? i + 1 : a->lk;
                softmax_row(a, row, q + at, k + keys, i);
                real mean = 0;
                for (int64_t j = 0; j < seen; j++) {
                    real dot = 0;
                    for (int64_t e = 0; e < a->d; e++) dot += dy[at + e] * v[keys + j * width + e];
                    slope[j] = dot;
                    mean += row[j] * dot;
                }
                for (int64_t j = 0; j < seen; j++) {
                    int64_t key = keys + j * width;
                    real ds = row[j] * (slope[j] - mean) * (real)a->scale;
                    for (int64_t e = 0; e < a->d; e++) {
                        dv[key + e] += row[j] * dy[at + e];
                        dq[at + e] += ds * k[key + e];
                        dk[key + e] += ds * q[at + e];
                    }
                }
            }
        }
    }
    const struct {
        void *to;
        const real *from;
        int64_t rows, ld;
    } results[3] = {
        {g->dq, dq, rows_q, a->ldq}, {g->dk, dk, rows_k, a->ldk}, {g->dv, dv, rows_k, a->ldv}};
    for (int i = 0; i < 3 && !s.failed; i++) {
        real *to = plain_write_rows(&s, results[i].to, a->dtype, results[i].rows, width,
                                    results[i].ld, g->accumulate);
        for (int64_t j = 0; to && j < results[i].rows * width; j++) {
            to[j] = g->accumulate ? to[j] + results[i].from[j] : results[i].from[j];
        }
    }
    return plain_end(&s, "attention_grad", err);
}
