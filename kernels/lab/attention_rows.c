/*
 * attention_rows.c - attention the usual way round: a row of scores is a query.
 *
 * The first form of cpu_attention.c, kept beside its successor. Scores S = Q K^T with the keys packed across,
 * so each row needs its own maximum and sum across lanes, P is written as rows of A, and V is packed in
 * panels of GEMM_NR columns: a head of 40 fills 48 of them. Lanes that are queries (cpu_attention.c) need
 * neither the sums across nor the padding.
 *   usage: lab_attention_rows
 * Numbers and verdict: docs/performance.md.
 */
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"

#define BLOCK_Q (4 * GEMM_MR)
#define BLOCK_K 256

struct attention {
    const struct attention_args *a;
    struct device *device;
    int64_t k_panels, d_panels, d_steps, l_steps; /* of one packed head */
    size_t k_bytes, v_bytes;
    char *k, *v; /* packed, [n,heads] */
    int64_t q_blocks;
    int64_t element; /* bytes */
};

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* B of S = Q K^T: steps along d, columns are keys */
ALWAYS_INLINE void pack_keys(const struct attention *t, const char *k, char *to,
                             const enum dtype dt)
{
    const struct attention_args *a = t->a;
    for (int64_t j = 0; j < t->k_panels * GEMM_NR; j++) {
        char *panel = to + (size_t)(j / GEMM_NR * t->d_steps * GEMM_NR + j % GEMM_NR) * 4;
        const char *row = k + j * a->ldk * t->element;
        for (int64_t s = 0; s < t->d_steps; s++) {
            uint32_t word = 0;
            if (j < a->lk) {
                if (dt == DTYPE_F32)
                    memcpy(&word, row + s * 4, 4);
                else
                    memcpy(&word, row + s * 4, 2 * s + 1 < a->d ? 4 : 2);
            }
            memcpy(panel + s * GEMM_NR * 4, &word, 4);
        }
    }
}

/* B of O = P V: steps along keys, columns are d */
ALWAYS_INLINE void pack_values(const struct attention *t, const char *v, char *to,
                               const enum dtype dt)
{
    const struct attention_args *a = t->a;
    for (int64_t p = 0; p < t->d_panels; p++)
        for (int64_t s = 0; s < t->l_steps; s++) {
            uint32_t *row = (uint32_t *)to + (p * t->l_steps + s) * GEMM_NR;
            for (int64_t i = 0; i < GEMM_NR; i++) {
                int64_t e = p * GEMM_NR + i;
                uint32_t word = 0;
                if (e < a->d && dt == DTYPE_F32) {
                    memcpy(&word, v + (s * a->ldv + e) * 4, 4);
                } else if (e < a->d) {
                    const uint16_t *from = (const uint16_t *)v + 2 * s * a->ldv + e;
                    word = from[0] | (2 * s + 1 < a->lk ? (uint32_t)from[a->ldv] << 16 : 0);
                }
                row[i] = word;
            }
        }
}

static void pack_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    const struct attention_args *a = t->a;
    int64_t which = task % 2, head = task / 2, n = head / a->heads, h = head % a->heads;
    if (which == 0) {
        const char *k = (const char *)a->k + (n * a->lk * a->ldk + h * a->d) * t->element;
        CPU_BY_DTYPE(a->dtype, pack_keys, t, k, t->k + t->k_bytes * (size_t)head);
    } else {
        const char *v = (const char *)a->v + (n * a->lk * a->ldv + h * a->d) * t->element;
        CPU_BY_DTYPE(a->dtype, pack_values, t, v, t->v + t->v_bytes * (size_t)head);
    }
}

/* Worker memory of one block of queries. */
struct block {
    char *q;  /* panels of GEMM_STEPS steps, BLOCK_Q rows each */
    char *p;  /* one panel */
    float *s; /* [BLOCK_Q][BLOCK_K] */
    float *o; /* [BLOCK_Q][d_panels * GEMM_NR] */
    float top[BLOCK_Q], sum[BLOCK_Q];
    int64_t rows;
};

/* One row of scores: new maximum, P into the panel, and the factor by which older sums shrink. */
ALWAYS_INLINE float softmax_row(float *s, char *p, float *top, float *sum, int64_t seen,
                                int64_t padded, float scale, const enum dtype dt)
{
    vf high = vf_set(-INFINITY);
    for (int64_t j = seen; j < padded; j++) s[j] = -INFINITY;
    int64_t width = div_up(seen, VL) * VL;
    for (int64_t j = 0; j < width; j += VL) high = vf_max(high, vf_load(s, j, DTYPE_F32));
    float now = vf_highest(high);
    if (*top > now) now = *top;
    float shrink = *top == -INFINITY ? 0.0f : expf((*top - now) * scale);
    vf total = {0};
    for (int64_t j = 0; j < width; j += VL) {
        vf x = (vf_load(s, j, DTYPE_F32) - now) * scale; /* exactly 0 at the top */
        vf e = vf_where_less(x, vf_set(-87.0f), vf_set(0.0f), vf_exp(x));
        total += e;
        vf_store(p, j, dt, e);
    }
    for (int64_t j = width; j < padded; j++) f_store(p, j, dt, 0);
    *top = now;
    *sum = *sum * shrink + vf_sum(total);
    return shrink;
}

ALWAYS_INLINE void queries(const struct attention *t, int64_t head, int64_t q0, struct block *b,
                           const enum dtype dt)
{
    const struct attention_args *a = t->a;
    int64_t n = head / a->heads, h = head % a->heads;
    const int64_t ldo = t->d_panels * GEMM_NR, per_step = dt == DTYPE_F32 ? 1 : 2;
    const char *kp = t->k + t->k_bytes * (size_t)head, *vp = t->v + t->v_bytes * (size_t)head;
    const char *q = (const char *)a->q + ((n * a->lq + q0) * a->ldq + h * a->d) * t->element;
    int64_t slices = div_up(t->d_steps, GEMM_STEPS);
    for (int64_t s = 0; s < slices; s++)
        for (int64_t r = 0; r < b->rows; r++) {
            char *to = b->q + (s * BLOCK_Q + r) * GEMM_PITCH;
            int64_t e0 = s * GEMM_STEPS * per_step, e1 = e0 + GEMM_STEPS * per_step;
            if (e1 > a->d) e1 = a->d;
            copy_elements(to, q + (r * a->ldq + e0) * t->element, (e1 - e0) * t->element);
            if (dt == DTYPE_BF16 && (e1 - e0) % 2) ((uint16_t *)to)[e1 - e0] = 0;
        }
    for (int64_t r = 0; r < b->rows; r++) {
        b->top[r] = -INFINITY;
        b->sum[r] = 0;
    }
    int64_t keys = a->lk;
    if (a->causal && q0 + b->rows < keys) keys = q0 + b->rows;
    for (int64_t k0 = 0; k0 < keys; k0 += BLOCK_K) {
        int64_t count = keys - k0 < BLOCK_K ? keys - k0 : BLOCK_K;
        int64_t padded = div_up(count, GEMM_NR) * GEMM_NR;
        for (int64_t j = 0; j < padded; j += GEMM_NR)
            for (int64_t r = 0; r < b->rows; r += GEMM_MR)
                for (int64_t s = 0; s < slices; s++) {
                    int64_t steps = t->d_steps - s * GEMM_STEPS;
                    gemm_tile(b->s + r * BLOCK_K + j, BLOCK_K,
                              b->q + (s * BLOCK_Q + r) * GEMM_PITCH,
                              kp + ((k0 + j) * t->d_steps + s * GEMM_STEPS * GEMM_NR) * 4,
                              steps < GEMM_STEPS ? steps : GEMM_STEPS,
                              b->rows - r < GEMM_MR ? b->rows - r : GEMM_MR, GEMM_NR, dt, s > 0);
                }
        for (int64_t r = 0; r < b->rows; r++) {
            int64_t seen = count;
            if (a->causal && q0 + r + 1 - k0 < seen) seen = q0 + r + 1 - k0;
            char *p = b->p + r * GEMM_PITCH;
            if (seen <= 0) {
                memset(p, 0, (size_t)(padded * t->element));
                continue;
            }
            float shrink = softmax_row(b->s + r * BLOCK_K, p, &b->top[r], &b->sum[r], seen, padded,
                                       (float)a->scale, dt);
            float *o = b->o + r * ldo;
            for (int64_t e = 0; k0 > 0 && shrink != 1.0f && e < ldo; e += VL)
                *(vf *)(o + e) *= shrink;
        }
        for (int64_t e = 0; e < t->d_panels; e++)
            for (int64_t r = 0; r < b->rows; r += GEMM_MR)
                gemm_tile(b->o + r * ldo + e * GEMM_NR, ldo, b->p + r * GEMM_PITCH,
                          vp + (e * t->l_steps + k0 / per_step) * GEMM_NR * 4,
                          div_up(count, per_step), b->rows - r < GEMM_MR ? b->rows - r : GEMM_MR,
                          a->d - e * GEMM_NR < GEMM_NR ? a->d - e * GEMM_NR : GEMM_NR, dt, k0 > 0);
    }
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t y = (n * a->lq + q0 + r) * a->ldy + h * a->d;
        const float *o = b->o + r * ldo;
        float factor = 1.0f / b->sum[r];
        FOR_VECTORS(e, a->d, vf_store(a->y, y + e, dt, vf_load(o, e, DTYPE_F32) * factor),
                    vf_store_n(a->y, y + e, dt, vf_load(o, e, DTYPE_F32) * factor, lanes));
        if (a->lse)
            ((float *)a->lse)[head * a->lq + q0 + r] =
                b->top[r] * (float)a->scale + logf(b->sum[r]);
    }
}

static void queries_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    const struct attention_args *a = t->a;
    int64_t head = task / t->q_blocks, q0 = task % t->q_blocks * BLOCK_Q;
    struct block b;
    char *memory = cpu_worker_memory(t->device, worker);
    b.p = memory;
    b.s = (float *)(b.p + BLOCK_Q * GEMM_PITCH);
    b.o = b.s + BLOCK_Q * BLOCK_K;
    b.q = (char *)(b.o + BLOCK_Q * t->d_panels * GEMM_NR);
    b.rows = a->lq - q0 < BLOCK_Q ? a->lq - q0 : BLOCK_Q;
    CPU_BY_DTYPE(a->dtype, queries, t, head, q0, &b);
}

static int attention_rows(struct device *d, const struct attention_args *a, struct error *err)
{
    if (a->d > 2048)
        return error_set(err, ERR_UNSUPPORTED, "attention heads of %lld: the CPU takes up to 2048",
                         (long long)a->d);
    int64_t per_step = a->dtype == DTYPE_F32 ? 1 : 2;
    struct attention t = {
        .a = a,
        .device = d,
        .k_panels = div_up(a->lk, GEMM_NR),
        .d_panels = div_up(a->d, GEMM_NR),
        .d_steps = div_up(a->d, per_step),
        .l_steps = div_up(a->lk, per_step),
        .q_blocks = div_up(a->lq, BLOCK_Q),
        .element = a->dtype == DTYPE_F32 ? 4 : 2,
    };
    t.k_bytes = (size_t)(t.k_panels * t.d_steps * GEMM_NR) * 4;
    t.v_bytes = (size_t)(t.d_panels * t.l_steps * GEMM_NR) * 4;
    size_t heads = (size_t)(a->n * a->heads);
    int rc = cpu_scratch_start(d, heads * (t.k_bytes + t.v_bytes) + 128, err);
    if (rc) return rc;
    t.k = cpu_scratch_take(d, heads * t.k_bytes);
    t.v = cpu_scratch_take(d, heads * t.v_bytes);
    pool_run(cpu_state(d)->pool, 2 * (int64_t)heads, pack_task, &t);
    pool_run(cpu_state(d)->pool, (int64_t)heads * t.q_blocks, queries_task, &t);
    return 0;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(void)
{
    static const int64_t shapes[][3] = {
        {4096, 4096, 40}, {1024, 1024, 80}, {256, 256, 160}, {4096, 77, 40}};
    struct device *d;
    struct error err = {0};
    if (device_open(&d, "cpu:1", &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        int64_t lq = shapes[i][0], lk = shapes[i][1], e = shapes[i][2], ld = 8 * e;
        int64_t longest = 2 * (lq > lk ? lq : lk) * ld;
        uint16_t *q = alloc_zero((size_t)longest, 2), *y = alloc_zero((size_t)longest, 2);
        uint32_t seed = 1;
        for (int64_t k = 0; k < longest; k++) {
            seed = seed * 1664525 + 1013904223;
            q[k] = f32_to_bf16((float)(seed >> 8) * 0x1p-24f * 4 - 2);
        }
        struct attention_args a = {.y = y,
                                   .q = q,
                                   .k = q,
                                   .v = q,
                                   .n = 2,
                                   .heads = 8,
                                   .lq = lq,
                                   .lk = lk,
                                   .d = e,
                                   .ldq = ld,
                                   .ldk = ld,
                                   .ldv = ld,
                                   .ldy = ld,
                                   .scale = 1 / sqrt((double)e),
                                   .dtype = DTYPE_BF16};
        double best[2] = {1e9, 1e9};
        for (int r = 0; r < 10; r++) {
            double t = cpu_seconds();
            int rc = r % 2 ? d->kernels->attention(d, &a, &err) : attention_rows(d, &a, &err);
            t = cpu_seconds() - t;
            if (!rc && t < best[r % 2]) best[r % 2] = t;
        }
        double gflop = 4.0 * 16 * (double)(lq * lk * e) * 1e-9;
        printf("%lldx%lld d%lld: rows %.2f ms %.0f GFLOP/s, lanes %.2f ms %.0f GFLOP/s\n",
               (long long)lq, (long long)lk, (long long)e, best[0] * 1e3, gflop / best[0],
               best[1] * 1e3, gflop / best[1]);
        free(q);
        free(y);
    }
    device_close(d);
    return 0;
}
