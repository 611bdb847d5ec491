/* Attention with a running maximum and sum (Dao, FlashAttention-2, algorithm 1), turned on its side:
 * scores are S^T = K Q^T, a row a key, a lane a query, so that maxima and sums run down the lanes and
 * P^T is the packed B of O^T = V^T P^T as it comes out. Rows of K and V^T are the A of the microkernel:
 * any head size and any number of keys fill its rows.
 * Scores, sums and the result are float; P is rounded to bfloat16 where the activations are. */
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_transpose.h"

#include <math.h>

#define BLOCK_K 256 /* keys whose scores are held at a time */
#define PANELS 2    /* of GEMM_NR queries that share a gathered block of keys */
#define BLOCK_Q (PANELS * GEMM_NR)
#define D_MAX 1024
#define MASKED -1e30f

struct attention {
    const struct attention_args *a;
    struct device *device;
    int64_t k_blocks, q_blocks, d_steps, d_slices;
    int64_t element;      /* bytes */
    size_t v_block_bytes; /* V^T of a block of keys: d rows of GEMM_PITCH */
    char *v;              /* [n,heads,k_blocks] */
};

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* V^T of one block of keys; an odd last key is paired with zeros */
ALWAYS_INLINE void turn_values(const struct attention *t, char *to, const char *v, int64_t keys,
                               char *memory, const enum dtype dt)
{
    const struct attention_args *a = t->a;
    if (dt == DTYPE_F32) {
        transpose_words(to, GEMM_PITCH, v, a->ldv * 4, keys, a->d, false);
        return;
    }
    int64_t pitch = div_up(a->d, VL) * VL * 4;
    for (int64_t s = 0; s < div_up(keys, 2); s++) {
        const char *low = v + 2 * s * a->ldv * 2, *high = low + a->ldv * 2;
        bool pair = 2 * s + 1 < keys;
        for (int64_t e = 0; e < a->d; e += VL) {
            int lanes = a->d - e < VL ? (int)(a->d - e) : VL;
            vu words = (vu)vf_load_n(low, e, dt, lanes) >> 16;
            if (pair) words |= (vu)vf_load_n(high, e, dt, lanes);
            *(vu *)(memory + s * pitch + e * 4) = words;
        }
    }
    transpose_words(to, GEMM_PITCH, memory, pitch, div_up(keys, 2), a->d, false);
}

static void values_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    const struct attention_args *a = t->a;
    int64_t head = task / t->k_blocks, k0 = task % t->k_blocks * BLOCK_K;
    int64_t n = head / a->heads, h = head % a->heads;
    int64_t keys = a->lk - k0 < BLOCK_K ? a->lk - k0 : BLOCK_K;
    const char *v = (const char *)a->v + ((n * a->lk + k0) * a->ldv + h * a->d) * t->element;
    CPU_BY_DTYPE(a->dtype, turn_values, t, t->v + t->v_block_bytes * (size_t)task, v, keys,
                 cpu_worker_memory(t->device, worker));
}

/* Worker memory of a task: BLOCK_Q queries of one head. */
struct block {
    char *k;                           /* [d_slices][BLOCK_K] rows of GEMM_PITCH */
    char *q;                           /* [PANELS][d_steps][GEMM_NR] words */
    float *o;                          /* [PANELS][d][GEMM_NR] */
    float *s;                          /* [BLOCK_K][GEMM_NR], becomes P in float */
    char *p;                           /* P as pairs of bfloat16 */
    vf top[PANELS][2], sum[PANELS][2]; /* of the scores times scale log2(e) */
    int64_t q0, queries;
    bool causal;
};

/* rows of `d` elements as A, cut into slices of GEMM_STEPS */
ALWAYS_INLINE void gather_keys(const struct attention *t, char *to, const char *k, int64_t keys,
                               const enum dtype dt)
{
    int64_t row_bytes = t->a->d * t->element, pitch = t->a->ldk * t->element;
    for (int64_t s = 0; s < t->d_slices; s++) {
        int64_t from = s * GEMM_STEPS * 4;
        int64_t bytes = row_bytes - from < GEMM_STEPS * 4 ? row_bytes - from : GEMM_STEPS * 4;
        for (int64_t r = 0; r < keys; r++) {
            char *row = to + (s * BLOCK_K + r) * GEMM_PITCH;
            copy_elements(row, k + r * pitch + from, bytes);
            if (dt == DTYPE_BF16 && bytes % 4) memset(row + bytes, 0, 2);
        }
    }
}

/* queries as B: words of d down, queries across */
ALWAYS_INLINE void pack_queries(const struct attention *t, char *to, const char *q, int64_t queries,
                                const enum dtype dt)
{
    int64_t pitch = t->a->ldq * t->element, whole = t->a->d * t->element / 4;
    for (int64_t p = 0; p < queries; p += GEMM_NR) {
        char *panel = to + p * t->d_steps * 4;
        int64_t count = queries - p < GEMM_NR ? queries - p : GEMM_NR;
        if (count < GEMM_NR) memset(panel, 0, (size_t)(t->d_steps * GEMM_NR) * 4);
        transpose_words(panel, GEMM_NR * 4, q + p * pitch, pitch, count, whole, false);
        if (dt == DTYPE_BF16 && whole < t->d_steps)
            for (int64_t i = 0; i < GEMM_NR; i++) {
                uint32_t word = 0;
                if (i < count) memcpy(&word, q + (p + i) * pitch + whole * 4, 2);
                memcpy(panel + (whole * GEMM_NR + i) * 4, &word, 4);
            }
    }
}

/* Two rows of P as pairs of bfloat16, the earlier key in the lower half; values lie in [0,1]. */
ALWAYS_INLINE vu pair_words(vf first, vf second)
{
#if VL == 16 && defined(__AVX512BF16__)
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (vu)_mm512_permutexvar_epi16(order, both);
#else
    return (((vu)first + 0x8000) >> 16) | (((vu)second + 0x8000) & 0xffff0000u);
#endif
}

/* Scores of `keys` keys from k0 on hide what a causal query may not see. */
static void hide_future(struct block *b, int panel, int64_t k0, int64_t keys)
{
    for (int64_t r = 0; r < keys; r++) {
        int64_t first = k0 + r - (b->q0 + panel * GEMM_NR); /* the first lane that sees the key */
        for (int64_t i = 0; i < first && i < GEMM_NR; i++) b->s[r * GEMM_NR + i] = MASKED;
    }
}

/* New maximum, P, its sum; older sums and results shrink. */
ALWAYS_INLINE void soften(const struct attention *t, struct block *b, int panel, int64_t keys,
                          bool first, const enum dtype dt)
{
    const float factor = (float)(t->a->scale * 1.4426950408889634);
    const bool rough = dt == DTYPE_BF16 && !t->a->lse; /* training wants the sum exact */
    float *s = b->s;
    vf high[2], low[2];
    high[0] = high[1] = low[0] = low[1] = vf_set(MASKED);
    for (int64_t r = 0; r < keys; r++)
        for (int v = 0; v < 2; v++) high[v] = vf_max(high[v], *(vf *)(s + r * GEMM_NR + v * VL));
    vf shrink[2], total[2] = {{0}, {0}};
    bool changed = false;
    for (int v = 0; v < 2; v++) {
        vf now = high[v] * factor;
        if (!first) {
            low[v] = b->top[panel][v];
            now = vf_max(now, low[v]);
            shrink[v] = vf_exp2(low[v] - now, false);
            changed = changed || memcmp(&now, &low[v], sizeof now) != 0;
        } else {
            shrink[v] = vf_set(0);
        }
        b->top[panel][v] = now;
        high[v] = now;
    }
    if (dt == DTYPE_F32) {
        for (int64_t r = 0; r < keys; r++)
            for (int v = 0; v < 2; v++) {
                vf *at = (vf *)(s + r * GEMM_NR + v * VL);
                vf e = vf_exp2(*at * factor - high[v], false);
                total[v] += e;
                *at = e;
            }
    } else {
        if (keys % 2) /* a partner for the last key */
            for (int v = 0; v < 2; v++) *(vf *)(s + keys * GEMM_NR + v * VL) = vf_set(MASKED);
        for (int64_t r = 0; r < keys; r += 2)
            for (int v = 0; v < 2; v++) {
                const float *at = s + r * GEMM_NR + v * VL;
                vf e = vf_exp2(*(const vf *)at * factor - high[v], rough);
                vf f = vf_exp2(*(const vf *)(at + GEMM_NR) * factor - high[v], rough);
                total[v] += e;
                total[v] += f;
                *(vu *)(b->p + (r / 2 * GEMM_NR + v * VL) * 4) = pair_words(e, f);
            }
    }
    for (int v = 0; v < 2; v++) {
        if (!first) total[v] += b->sum[panel][v] * shrink[v];
        b->sum[panel][v] = total[v];
    }
    float *o = b->o + panel * t->a->d * GEMM_NR;
    for (int64_t e = 0; changed && e < t->a->d; e++)
        for (int v = 0; v < 2; v++) *(vf *)(o + e * GEMM_NR + v * VL) *= shrink[v];
}

/* c[rows][GEMM_NR] (+)= A rows . B panel, in tiles of nearly equal height */
static void multiply(float *c, const char *a, const char *b, int64_t rows, int64_t steps,
                     enum dtype dt, bool accumulate)
{
    int64_t tiles = div_up(rows, GEMM_MR);
    for (int64_t t = 0, r = 0; t < tiles; t++) {
        int64_t end = (t + 1) * rows / tiles;
        gemm_tile(c + r * GEMM_NR, GEMM_NR, a + r * GEMM_PITCH, b, steps, end - r, GEMM_NR, dt,
                  accumulate);
        r = end;
    }
}

/* One panel of queries meets one block of keys. */
ALWAYS_INLINE void meet(const struct attention *t, struct block *b, int panel, const char *v,
                        int64_t k0, int64_t keys, const enum dtype dt)
{
    const int64_t d = t->a->d, steps = t->d_steps;
    const char *q = b->q + panel * steps * GEMM_NR * 4;
    for (int64_t s = 0; s < t->d_slices; s++)
        multiply(b->s, b->k + s * BLOCK_K * GEMM_PITCH, q + s * GEMM_STEPS * GEMM_NR * 4, keys,
                 steps - s * GEMM_STEPS < GEMM_STEPS ? steps - s * GEMM_STEPS : GEMM_STEPS, dt,
                 s > 0);
    if (b->causal && k0 + keys > b->q0 + panel * GEMM_NR + 1) hide_future(b, panel, k0, keys);
    soften(t, b, panel, keys, k0 == 0, dt);
    multiply(b->o + panel * d * GEMM_NR, v, dt == DTYPE_F32 ? (const char *)b->s : b->p, d,
             dt == DTYPE_F32 ? keys : div_up(keys, 2), dt, k0 > 0);
}

ALWAYS_INLINE void write_rows(const struct attention *t, struct block *b, int64_t head,
                              const enum dtype dt)
{
    const struct attention_args *a = t->a;
    int64_t n = head / a->heads, h = head % a->heads;
    float *row = b->s; /* free again: [GEMM_NR][d], at most D_MAX wide */
    int64_t pitch = div_up(a->d, VL) * VL;
    for (int64_t p = 0; p * GEMM_NR < b->queries; p++) {
        float *o = b->o + p * a->d * GEMM_NR, lse[GEMM_NR];
        for (int v = 0; v < 2; v++) {
            vf factor = 1.0f / b->sum[p][v];
            for (int64_t e = 0; e < a->d; e++) *(vf *)(o + e * GEMM_NR + v * VL) *= factor;
            for (int i = 0; i < VL && a->lse; i++)
                lse[v * VL + i] = (float)((double)b->top[p][v][i] * 0.69314718055994531 +
                                          log((double)b->sum[p][v][i]));
        }
        int64_t count = b->queries - p * GEMM_NR < GEMM_NR ? b->queries - p * GEMM_NR : GEMM_NR;
        for (int64_t e0 = 0; e0 < a->d; e0 += BLOCK_K - VL) {
            int64_t part = a->d - e0 < BLOCK_K - VL ? a->d - e0 : BLOCK_K - VL;
            int64_t ld = pitch < BLOCK_K ? pitch : BLOCK_K;
            transpose_words(row, ld * 4, o + e0 * GEMM_NR, GEMM_NR * 4, part, GEMM_NR, false);
            for (int64_t i = 0; i < count; i++) {
                int64_t y = (n * a->lq + b->q0 + p * GEMM_NR + i) * a->ldy + h * a->d + e0;
                FOR_VECTORS(e, part, vf_store(a->y, y + e, dt, vf_load(row, i * ld + e, DTYPE_F32)),
                            vf_store_n(a->y, y + e, dt,
                                       vf_load_n(row, i * ld + e, DTYPE_F32, lanes), lanes));
            }
        }
        for (int64_t i = 0; i < count && a->lse; i++)
            ((float *)a->lse)[head * a->lq + b->q0 + p * GEMM_NR + i] = lse[i];
    }
}

ALWAYS_INLINE void queries(const struct attention *t, int64_t head, struct block *b,
                           const enum dtype dt)
{
    const struct attention_args *a = t->a;
    int64_t n = head / a->heads, h = head % a->heads;
    const char *q = (const char *)a->q + ((n * a->lq + b->q0) * a->ldq + h * a->d) * t->element;
    const char *k = (const char *)a->k + (n * a->lk * a->ldk + h * a->d) * t->element;
    pack_queries(t, b->q, q, b->queries, dt);
    int64_t keys = a->lk;
    if (a->causal && b->q0 + b->queries < keys) keys = b->q0 + b->queries;
    for (int64_t k0 = 0; k0 < keys; k0 += BLOCK_K) {
        int64_t count = keys - k0 < BLOCK_K ? keys - k0 : BLOCK_K;
        gather_keys(t, b->k, k + k0 * a->ldk * t->element, count, dt);
        const char *v = t->v + t->v_block_bytes * (size_t)(head * t->k_blocks + k0 / BLOCK_K);
        for (int p = 0; p * GEMM_NR < b->queries; p++) meet(t, b, p, v, k0, count, dt);
    }
    write_rows(t, b, head, dt);
}

static void queries_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    const struct attention_args *a = t->a;
    char *memory = cpu_worker_memory(t->device, worker);
    struct block b = {.q0 = task % t->q_blocks * BLOCK_Q, .causal = a->causal};
    b.queries = a->lq - b.q0 < BLOCK_Q ? a->lq - b.q0 : BLOCK_Q;
    b.s = (float *)memory;
    b.p = (char *)(b.s + (BLOCK_K + 1) * GEMM_NR);
    b.o = (float *)(b.p + (BLOCK_K / 2 + 1) * GEMM_NR * 4);
    b.q = (char *)(b.o + PANELS * a->d * GEMM_NR);
    b.k = b.q + PANELS * t->d_steps * GEMM_NR * 4;
    CPU_BY_DTYPE(a->dtype, queries, t, task / t->q_blocks, &b);
}

int cpu_attention(struct device *d, const struct attention_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "attention");
    if (a->d > D_MAX || !(a->scale > 0))
        return error_set(err, ERR_UNSUPPORTED,
                         "attention heads of %lld scaled by %g: the CPU takes heads up to %d and "
                         "factors above 0",
                         (long long)a->d, a->scale, D_MAX);
    struct attention t = {.a = a,
                          .device = d,
                          .k_blocks = div_up(a->lk, BLOCK_K),
                          .q_blocks = div_up(a->lq, BLOCK_Q),
                          .element = a->dtype == DTYPE_F32 ? 4 : 2};
    t.d_steps = div_up(a->d * t.element, 4);
    t.d_slices = div_up(t.d_steps, GEMM_STEPS);
    t.v_block_bytes = (size_t)a->d * GEMM_PITCH;
    size_t blocks = (size_t)(a->n * a->heads * t.k_blocks);
    int rc = cpu_scratch_start(d, blocks * t.v_block_bytes + 128, err);
    if (rc) return rc;
    cpu_state(d)->flops += 4.0 * (double)(a->n * a->heads * a->lq) * (double)(a->lk * a->d);
    t.v = cpu_scratch_take(d, blocks * t.v_block_bytes);
    pool_run(cpu_state(d)->pool, (int64_t)blocks, values_task, &t);
    pool_run(cpu_state(d)->pool, a->n * a->heads * t.q_blocks, queries_task, &t);
    return 0;
}
