/* Derivative of attention, a head a task, in float: a block of queries sees all its keys at once,
 * so that the softmax is made again without saved statistics. dv = P^T dy   dS = P (dy v^T - sum_j
 * P dy v^T)   dq = scale dS k   dk = scale dS^T q */
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_transpose.h"

#include <math.h>

#define BLOCK_Q (4 * GEMM_MR)

struct attention_grad {
    const struct attention_grad_args *g;
    struct device *device;
    char *memory;
    size_t memory_bytes; /* of one worker */
    int64_t lk, d;       /* rounded up to GEMM_NR */
};

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* rows [.,d] of one head as dense floats of pitch `ld`, zero past d */
ALWAYS_INLINE void load_rows(float *to, int64_t ld, const void *from, int64_t base, int64_t pitch,
                             int64_t rows, int64_t d, const enum dtype t)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < ld; e += VL) {
            int64_t left = d - e;
            int lanes = left < 0 ? 0 : left < VL ? (int)left : VL;
            *(vf *)(to + r * ld + e) =
                lanes ? vf_load_n(from, base + r * pitch + e, t, lanes) : vf_set(0);
        }
}

static void load_head(float *to, int64_t ld, const void *from, enum dtype dtype, int64_t base,
                      int64_t pitch, int64_t rows, int64_t d)
{
    CPU_BY_DTYPE(dtype, load_rows, to, ld, from, base, pitch, rows, d);
}

ALWAYS_INLINE void add_rows(void *to, int64_t base, int64_t pitch, const float *from, int64_t ld,
                            int64_t rows, int64_t d, bool accumulate, const enum dtype t)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < d; e += VL) {
            int lanes = d - e < VL ? (int)(d - e) : VL;
            vf v = vf_load(from, r * ld + e, DTYPE_F32);
            if (accumulate) v += vf_load_n(to, base + r * pitch + e, t, lanes);
            vf_store_n(to, base + r * pitch + e, t, v, lanes);
        }
}

/* B panels of x [k,n] (n a multiple of GEMM_NR), or of x^T when x is [n,k] */
static void pack_b(float *to, const float *x, int64_t ld, int64_t k, int64_t n)
{
    for (int64_t p = 0; p < n; p += GEMM_NR)
        for (int64_t s = 0; s < k; s++) {
            float *row = to + p * k + s * GEMM_NR;
            *(vf *)row = *(const vf *)(x + s * ld + p);
            *(vf *)(row + VL) = *(const vf *)(x + s * ld + p + VL);
        }
}

static void pack_b_transposed(float *to, const float *x, int64_t ld, int64_t k, int64_t n,
                              int64_t n_real)
{
    for (int64_t p = 0; p < n; p += GEMM_NR) {
        float *panel = to + p * k;
        int64_t rows = n_real - p < GEMM_NR ? n_real - p : GEMM_NR;
        if (rows < GEMM_NR) memset(panel, 0, (size_t)(k * GEMM_NR) * 4);
        transpose_words(panel, GEMM_NR * 4, x + p * ld, ld * 4, rows, k, false);
    }
}

/* c[m,n] (+)= a . b; a is [m,k], or [k,m] when turned */
static void product(float *c, int64_t ldc, const float *a, int64_t lda, bool turned, const float *b,
                    int64_t m, int64_t n, int64_t k, bool accumulate, char *panel)
{
    for (int64_t k0 = 0; k0 < k; k0 += GEMM_STEPS) {
        int64_t steps = k - k0 < GEMM_STEPS ? k - k0 : GEMM_STEPS;
        for (int64_t r = 0; r < m; r += GEMM_MR) {
            int64_t rows = m - r < GEMM_MR ? m - r : GEMM_MR;
            if (turned) {
                transpose_words(panel, GEMM_PITCH, a + k0 * lda + r, lda * 4, steps, rows, false);
            } else {
                for (int64_t i = 0; i < rows; i++)
                    copy_elements(panel + i * GEMM_PITCH, (const char *)(a + (r + i) * lda + k0),
                                  steps * 4);
            }
            for (int64_t p = 0; p < n; p += GEMM_NR)
                gemm_tile(c + r * ldc + p, ldc, panel, b + p * k + k0 * GEMM_NR, steps, rows,
                          n - p < GEMM_NR ? n - p : GEMM_NR, DTYPE_F32, accumulate || k0 > 0);
        }
    }
}

/* scores -> P, and P (dP - row mean) scale into slope; the same row */
static void softmax_slopes(float *p, float *slope, int64_t seen, int64_t width, float scale)
{
    vf high = vf_set(-INFINITY), total = {0}, dot = {0};
    for (int64_t j = seen; j < width; j++) {
        p[j] = -1e30f;
        slope[j] = 0;
    }
    for (int64_t j = 0; j < width; j += VL) high = vf_max(high, *(vf *)(p + j));
    float top = vf_highest(high);
    for (int64_t j = 0; j < width; j += VL) {
        vf x = (*(vf *)(p + j) - top) * (scale * 1.44269504f); /* exactly 0 at the top */
        vf e = vf_exp2(x, false);
        *(vf *)(p + j) = e;
        total += e;
        dot += e * *(vf *)(slope + j);
    }
    float factor = 1.0f / vf_sum(total), mean = vf_sum(dot) * factor;
    for (int64_t j = 0; j < width; j += VL) {
        vf e = *(vf *)(p + j) * factor;
        *(vf *)(p + j) = e;
        *(vf *)(slope + j) = e * (*(vf *)(slope + j) - mean) * scale;
    }
}

static void head_task(void *context, int64_t head, int worker)
{
    const struct attention_grad *t = context;
    const struct attention_grad_args *g = t->g;
    const struct attention_args *a = &g->forward;
    int64_t n = head / a->heads, h = head % a->heads, lk = t->lk, d = t->d;
    float *at = (float *)(t->memory + t->memory_bytes * (size_t)worker);
    float *k = at, *v = k + lk * d;
    float *k_packed = v + lk * d, *kt_packed = k_packed + lk * d, *vt_packed = kt_packed + lk * d;
    float *dk = vt_packed + lk * d, *dv = dk + lk * d;
    float *q = dv + lk * d, *dy = q + BLOCK_Q * d, *q_packed = dy + BLOCK_Q * d;
    float *dy_packed = q_packed + BLOCK_Q * d, *dq = dy_packed + BLOCK_Q * d;
    float *p = dq + BLOCK_Q * d, *slope = p + BLOCK_Q * lk;
    char *panel = cpu_worker_memory(t->device, worker);
    int64_t keys = n * a->lk;
    load_head(k, d, a->k, a->dtype, keys * a->ldk + h * a->d, a->ldk, a->lk, a->d);
    load_head(v, d, a->v, a->dtype, keys * a->ldv + h * a->d, a->ldv, a->lk, a->d);
    pack_b(k_packed, k, d, a->lk, d);
    pack_b_transposed(kt_packed, k, d, a->d, lk, a->lk);
    pack_b_transposed(vt_packed, v, d, a->d, lk, a->lk);
    for (int64_t q0 = 0; q0 < a->lq; q0 += BLOCK_Q) {
        int64_t rows = a->lq - q0 < BLOCK_Q ? a->lq - q0 : BLOCK_Q;
        int64_t row = n * a->lq + q0;
        load_head(q, d, a->q, a->dtype, row * a->ldq + h * a->d, a->ldq, rows, a->d);
        load_head(dy, d, g->dy, a->dtype, row * a->ldy + h * a->d, a->ldy, rows, a->d);
        pack_b(q_packed, q, d, rows, d);
        pack_b(dy_packed, dy, d, rows, d);
        product(p, lk, q, d, false, kt_packed, rows, a->lk, a->d, false, panel);
        product(slope, lk, dy, d, false, vt_packed, rows, a->lk, a->d, false, panel);
        for (int64_t r = 0; r < rows; r++) {
            int64_t seen = a->causal && q0 + r + 1 < a->lk ? q0 + r + 1 : a->lk;
            softmax_slopes(p + r * lk, slope + r * lk, seen, lk, (float)a->scale);
        }
        product(dq, d, slope, lk, false, k_packed, rows, a->d, a->lk, false, panel);
        product(dk, d, slope, lk, true, q_packed, a->lk, a->d, rows, q0 > 0, panel);
        product(dv, d, p, lk, true, dy_packed, a->lk, a->d, rows, q0 > 0, panel);
        CPU_BY_DTYPE(a->dtype, add_rows, g->dq, row * a->ldq + h * a->d, a->ldq, dq, d, rows, a->d,
                     g->accumulate);
    }
    CPU_BY_DTYPE(a->dtype, add_rows, g->dk, keys * a->ldk + h * a->d, a->ldk, dk, d, a->lk, a->d,
                 g->accumulate);
    CPU_BY_DTYPE(a->dtype, add_rows, g->dv, keys * a->ldv + h * a->d, a->ldv, dv, d, a->lk, a->d,
                 g->accumulate);
}

int cpu_attention_grad(struct device *d, const struct attention_grad_args *g, struct error *err)
{
    const struct attention_args *a = &g->forward;
    CPU_CHECK_DTYPE(a->dtype, "attention_grad");
    struct attention_grad t = {.g = g,
                               .device = d,
                               .lk = div_up(a->lk, GEMM_NR) * GEMM_NR,
                               .d = div_up(a->d, GEMM_NR) * GEMM_NR};
    t.memory_bytes = (size_t)(7 * t.lk * t.d + BLOCK_Q * (5 * t.d + 2 * t.lk)) * 4 + 64;
    int threads = cpu_state(d)->threads;
    int rc = cpu_scratch_start(d, t.memory_bytes * (size_t)threads + 64, err);
    if (rc) return rc;
    cpu_state(d)->flops += 10.0 * (double)(a->n * a->heads * a->lq) * (double)(a->lk * a->d);
    t.memory = cpu_scratch_take(d, t.memory_bytes * (size_t)threads);
    pool_run(cpu_state(d)->pool, a->n * a->heads, head_task, &t);
    return 0;
}
