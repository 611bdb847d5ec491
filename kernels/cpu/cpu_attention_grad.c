/* Derivative of attention (Dao, FlashAttention-2, algorithm 2), turned on its side as cpu_attention.c is:
 * a row a key, a lane a query, so that the log-sum-exp of the forward and D = dy . y are vectors and what
 * comes out of one product is the operand of the next.
 *   S^T = K Q^T   P^T = exp(scale S^T - lse)   dP^T = V dy^T   dS^T = scale P^T (dP^T - D)
 *   dv += P^T dy   dk += dS^T q   dq^T += K^T dS^T
 * Sums are float; P and dS are rounded to bfloat16 where the activations are. Where there are so few that a
 * single one may stand out of its row (and speed does not matter) a second bfloat16 holds the rest. */
#include "kernels/cpu/cpu_attention_tile.h"
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_transpose.h"

#include <math.h>

#define BLOCK_K (8 * GEMM_MR) /* keys of one block; even */
#define BLOCK_Q_WORDS 128     /* queries of one block as words of A: rows of P^T */
#define PART_KEYS 1024        /* keys of one task */
#define FINE_SCORES 65536     /* of a head: a 16x16 latent with itself */
#define LOG2_E 1.44269504f

struct attention_grad {
    const struct attention_grad_args *g;
    struct device *device;
    int64_t element;           /* bytes */
    int64_t block_q, q_blocks; /* a multiple of GEMM_NR */
    int64_t parts;             /* of the keys */
    int64_t d_steps, d_slices, d_pitch;
    bool few;          /* scores: sums are taken again, for lse is rounded once and P with it */
    bool fine;         /* few, in bfloat16: what rounding takes from P and dS is multiplied too */
    float slope_scale; /* 0 where a single key has all the weight whatever the query says */
    char *memory;      /* of all workers */
    size_t memory_bytes;
    float *dq;   /* [n,heads,parts,q_blocks] of [d][block_q] */
    float *dot;  /* [n,heads,lq] scale dy . y */
    float *rest; /* [n,heads,lq] what lse lacks, in powers of two; zero unless few */
};

/* What a worker holds while it walks over its keys and all queries of a head. */
struct walk {
    char *k, *v;               /* [d_slices][BLOCK_K] rows of GEMM_PITCH: A */
    char *k_turned;            /* [d] rows of GEMM_PITCH, keys across: A */
    char *q, *dy;              /* [panels][d_steps][GEMM_NR]: B, queries across */
    char *q_down, *dy_down;    /* [d panels][words of queries][GEMM_NR]: B, queries down */
    float *s, *slope;          /* [BLOCK_K + 1][GEMM_NR] */
    char *p_rows, *slope_rows; /* [BLOCK_K] rows of GEMM_PITCH, queries across: A */
    char *slope_words;         /* [panels][words of keys][GEMM_NR]: B */
    char *p_rest, *slope_rest, *slope_rest_words; /* the same of what rounding took; fine only */
    float *dk, *dv;                               /* [PART_KEYS][d_pitch] */
    float *lse, *dot, *rest;                      /* [block_q]; times scale; in powers of two */
    float *total;                                 /* [block_q] sums of P */
};

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- operands ---- */

/* rows of d elements as A, cut into slices of GEMM_STEPS */
static void gather_rows(const struct attention_grad *t, char *to, const char *from, int64_t pitch,
                        int64_t rows)
{
    const int64_t row_bytes = t->g->forward.d * t->element;
    for (int64_t s = 0; s < t->d_slices; s++) {
        int64_t at = s * GEMM_STEPS * 4, bytes = least(row_bytes - at, GEMM_STEPS * 4);
        for (int64_t r = 0; r < rows; r++) {
            char *row = to + (s * BLOCK_K + r) * GEMM_PITCH;
            copy_elements(row, from + r * pitch + at, bytes);
            if (bytes % 4) memset(row + bytes, 0, 2);
        }
    }
}

/* rows as B: words of d down, rows across; zero past the last row */
static void pack_across(const struct attention_grad *t, char *to, const char *from, int64_t pitch,
                        int64_t rows)
{
    const int64_t whole = t->g->forward.d * t->element / 4;
    for (int64_t p = 0; p < rows; p += GEMM_NR) {
        char *panel = to + p * t->d_steps * 4;
        int64_t count = least(rows - p, GEMM_NR);
        if (count < GEMM_NR) memset(panel, 0, (size_t)(t->d_steps * GEMM_NR) * 4);
        transpose_words(panel, GEMM_NR * 4, from + p * pitch, pitch, count, whole, false);
        for (int64_t i = 0; whole < t->d_steps && i < GEMM_NR; i++) {
            uint32_t word = 0;
            if (i < count) memcpy(&word, from + (p + i) * pitch + whole * 4, 2);
            memcpy(panel + (whole * GEMM_NR + i) * 4, &word, 4);
        }
    }
}

/* Two rows as pairs, the earlier in the lower half; an absent second is zero. */
ALWAYS_INLINE vu row_pair(const char *low, const char *high, int64_t e, int lanes)
{
    vu words = (vu)vf_load_n(low, e, DTYPE_BF16, lanes) >> 16;
    if (high) words |= (vu)vf_load_n(high, e, DTYPE_BF16, lanes);
    return words;
}

/* rows as B: words of rows down, d across; `words` of them, zero past the last row */
ALWAYS_INLINE void pack_down(const struct attention_grad *t, char *to, const char *from,
                             int64_t pitch, int64_t rows, int64_t words, const enum dtype dt)
{
    const int64_t d = t->g->forward.d, per = dt == DTYPE_BF16 ? 2 : 1;
    for (int64_t p = 0; p < d; p += GEMM_NR)
        for (int64_t w = 0; w < words; w++) {
            char *row = to + (p * words + w * GEMM_NR) * 4;
            const char *low = from + w * per * pitch;
            const char *high = w * per + 1 < rows ? low + pitch : NULL;
            for (int64_t e = p; e < p + GEMM_NR; e += VL, row += VL * 4) {
                int lanes = (int)(d - e < 0 ? 0 : least(d - e, VL));
                vu value = {0};
                if (lanes && w * per < rows)
                    value = dt == DTYPE_BF16 ? row_pair(low, high, e, lanes)
                                             : (vu)vf_load_n(low, e, dt, lanes);
                *(vu *)row = value;
            }
        }
}

/* K^T of a block of keys as A: d rows, words of keys across */
ALWAYS_INLINE void turn_keys(const struct attention_grad *t, char *to, const char *from,
                             int64_t pitch, int64_t keys, char *memory, const enum dtype dt)
{
    const int64_t d = t->g->forward.d, row = div_up(d, VL) * VL * 4;
    if (dt == DTYPE_F32) {
        transpose_words(to, GEMM_PITCH, from, pitch, keys, d, false);
        return;
    }
    for (int64_t w = 0; w < div_up(keys, 2); w++) {
        const char *low = from + 2 * w * pitch, *high = 2 * w + 1 < keys ? low + pitch : NULL;
        for (int64_t e = 0; e < d; e += VL)
            *(vu *)(memory + w * row + e * 4) = row_pair(low, high, e, (int)least(d - e, VL));
    }
    transpose_words(to, GEMM_PITCH, memory, row, div_up(keys, 2), d, false);
}

/* ---- products ---- */

/* c[rows][GEMM_NR] (+)= A rows . B panel, in tiles of nearly equal height */
static void multiply(float *c, int64_t ldc, const char *a, const char *b, int64_t rows,
                     int64_t steps, int64_t cols, enum dtype dt, bool accumulate)
{
    int64_t tiles = div_up(rows, GEMM_MR);
    for (int64_t i = 0, r = 0; i < tiles; i++) {
        int64_t end = (i + 1) * rows / tiles;
        gemm_tile(c + r * ldc, ldc, a + r * GEMM_PITCH, b, steps, end - r, cols, dt, accumulate);
        r = end;
    }
}

/* a block of keys times one panel of queries, or the same of values and dy */
static void scores(const struct attention_grad *t, float *s, const char *rows, const char *panel,
                   int64_t keys, enum dtype dt)
{
    for (int64_t i = 0; i < t->d_slices; i++)
        multiply(s, GEMM_NR, rows + i * BLOCK_K * GEMM_PITCH, panel + i * GEMM_STEPS * GEMM_NR * 4,
                 keys, least(t->d_steps - i * GEMM_STEPS, GEMM_STEPS), GEMM_NR, dt, i > 0);
}

/* Queries see the keys before them and their own. */
static void hide_future(struct walk *w, int64_t first_query, int64_t k0, int64_t keys)
{
    for (int64_t r = 0; r < keys; r++)
        for (int64_t i = 0; i < k0 + r - first_query && i < GEMM_NR; i++)
            w->s[r * GEMM_NR + i] = -1e30f;
}

/* exp(scale s - lse) 2^-rest. The difference first: lse is rounded once, where it is large. */
ALWAYS_INLINE vf probability(vf s, float scale, vf lse, vf rest, const bool rough)
{
    return vf_exp2((s * scale - lse) * LOG2_E - rest, rough);
}

ALWAYS_INLINE vf rest_of(vf x)
{
    return x - vf_from_bf16(vf_to_bf16(x));
}

/* S^T and dP^T become P^T and dS^T, in the forms that the products want. */
ALWAYS_INLINE void soften(const struct attention_grad *t, struct walk *w, int64_t q, int64_t keys,
                          char *words, char *rest, const enum dtype dt)
{
    const float factor = (float)t->g->forward.scale, scale = t->slope_scale;
    const bool rough = dt == DTYPE_BF16 && !t->fine;
    if (keys % 2 && dt == DTYPE_BF16) /* a partner for the last key */
        for (int v = 0; v < GEMM_NR; v += VL) {
            *(vf *)(w->s + keys * GEMM_NR + v) = vf_set(-1e30f);
            *(vf *)(w->slope + keys * GEMM_NR + v) = vf_set(0);
        }
    for (int64_t v = 0; v < GEMM_NR; v += VL) {
        const vf lse = *(const vf *)(w->lse + q + v), dot = *(const vf *)(w->dot + q + v);
        const vf lacking = *(const vf *)(w->rest + q + v);
        for (int64_t r = 0; r < keys; r += dt == DTYPE_BF16 ? 2 : 1) {
            vf p[2] = {{0}}, slope[2] = {{0}};
            for (int i = 0; i < (dt == DTYPE_BF16 ? 2 : 1); i++) {
                int64_t at = (r + i) * GEMM_NR + v;
                p[i] = probability(*(const vf *)(w->s + at), factor, lse, lacking, rough);
                slope[i] = p[i] * (*(const vf *)(w->slope + at) * scale - dot);
                vf_store(w->p_rows + (r + i) * GEMM_PITCH, q + v, dt, p[i]);
                vf_store(w->slope_rows + (r + i) * GEMM_PITCH, q + v, dt, slope[i]);
                if (!t->fine) continue;
                vf_store(w->p_rest + (r + i) * GEMM_PITCH, q + v, dt, rest_of(p[i]));
                vf_store(w->slope_rest + (r + i) * GEMM_PITCH, q + v, dt, rest_of(slope[i]));
            }
            if (t->fine)
                *(vu *)(rest + (r / 2 * GEMM_NR + v) * 4) =
                    pair_words(rest_of(slope[0]), rest_of(slope[1]));
            if (dt == DTYPE_BF16)
                *(vu *)(words + (r / 2 * GEMM_NR + v) * 4) = pair_words(slope[0], slope[1]);
            else
                *(vf *)(words + (r * GEMM_NR + v) * 4) = slope[0];
        }
    }
}

/* ---- the walk ---- */

/* A block of keys meets a block of queries. */
ALWAYS_INLINE void meet(const struct attention_grad *t, struct walk *w, float *dq, int64_t q0,
                        int64_t queries, int64_t k0, int64_t keys, int64_t part_from,
                        const enum dtype dt)
{
    const struct attention_args *a = &t->g->forward;
    const int64_t d = a->d, q_words = div_up(queries, GEMM_NR) * GEMM_NR * t->element / 4;
    const int64_t k_words = div_up(keys * t->element, 4);
    for (int64_t q = 0; q < queries; q += GEMM_NR) {
        char *words = w->slope_words + q * k_words * 4, *rest = w->slope_rest_words;
        scores(t, w->s, w->k, w->q + q * t->d_steps * 4, keys, dt);
        scores(t, w->slope, w->v, w->dy + q * t->d_steps * 4, keys, dt);
        if (a->causal && k0 + keys > q0 + q + 1) hide_future(w, q0 + q, k0, keys);
        soften(t, w, q, keys, words, rest, dt);
        multiply(dq + q, t->block_q, w->k_turned, words, d, k_words, GEMM_NR, dt, k0 > part_from);
        if (t->fine) multiply(dq + q, t->block_q, w->k_turned, rest, d, k_words, GEMM_NR, dt, true);
    }
    for (int64_t e = 0; e < d; e += GEMM_NR) {
        int64_t at = (k0 - part_from) * t->d_pitch + e, cols = least(d - e, GEMM_NR);
        multiply(w->dv + at, t->d_pitch, w->p_rows, w->dy_down + e * q_words * 4, keys, q_words,
                 cols, dt, true);
        multiply(w->dk + at, t->d_pitch, w->slope_rows, w->q_down + e * q_words * 4, keys, q_words,
                 cols, dt, true);
        if (!t->fine) continue;
        multiply(w->dv + at, t->d_pitch, w->p_rest, w->dy_down + e * q_words * 4, keys, q_words,
                 cols, dt, true);
        multiply(w->dk + at, t->d_pitch, w->slope_rest, w->q_down + e * q_words * 4, keys, q_words,
                 cols, dt, true);
    }
}

/* What a block of queries brings to every block of keys. */
ALWAYS_INLINE void take_queries(const struct attention_grad *t, struct walk *w, int64_t head,
                                int64_t q0, int64_t queries, const enum dtype dt)
{
    const struct attention_args *a = &t->g->forward;
    int64_t row = head / a->heads * a->lq + q0, h = head % a->heads * a->d;
    const char *q = (const char *)a->q + (row * a->ldq + h) * t->element;
    const char *dy = (const char *)t->g->dy + (row * a->ldy + h) * t->element;
    const int64_t q_pitch = a->ldq * t->element, dy_pitch = a->ldy * t->element;
    const int64_t words = div_up(queries, GEMM_NR) * GEMM_NR * t->element / 4;
    pack_across(t, w->q, q, q_pitch, queries);
    pack_across(t, w->dy, dy, dy_pitch, queries);
    pack_down(t, w->q_down, q, q_pitch, queries, words, dt);
    pack_down(t, w->dy_down, dy, dy_pitch, queries, words, dt);
    const float *lse = (const float *)a->lse + head * a->lq + q0;
    const float *dot = t->dot + head * a->lq + q0, *rest = t->rest + head * a->lq + q0;
    for (int64_t i = 0; i < div_up(queries, GEMM_NR) * GEMM_NR; i++) {
        w->lse[i] = i < queries ? lse[i] : 1e30f; /* P of nobody is zero */
        w->dot[i] = i < queries ? dot[i] : 0;
        w->rest[i] = i < queries ? rest[i] : 0;
    }
}

ALWAYS_INLINE void walk_part(const struct attention_grad *t, struct walk *w, int64_t task,
                             const enum dtype dt)
{
    const struct attention_grad_args *g = t->g;
    const struct attention_args *a = &g->forward;
    const int64_t head = task / t->parts, from = task % t->parts * PART_KEYS;
    const int64_t to = least(from + PART_KEYS, a->lk), keys0 = head / a->heads * a->lk;
    const int64_t h = head % a->heads * a->d, bytes = t->element;
    float *dq = t->dq + task * t->q_blocks * a->d * t->block_q;
    memset(w->dk, 0, (size_t)((to - from) * t->d_pitch) * 4);
    memset(w->dv, 0, (size_t)((to - from) * t->d_pitch) * 4);
    for (int64_t b = 0; b < t->q_blocks; b++, dq += a->d * t->block_q) {
        int64_t q0 = b * t->block_q, queries = least(a->lq - q0, t->block_q);
        bool seen = !a->causal || from < q0 + queries;
        if (!seen) {
            memset(dq, 0, (size_t)(a->d * t->block_q) * 4);
            continue;
        }
        take_queries(t, w, head, q0, queries, dt);
        for (int64_t k0 = from; k0 < to; k0 += BLOCK_K) {
            int64_t keys = least(to - k0, BLOCK_K);
            if (a->causal && k0 >= q0 + queries) break;
            const char *k = (const char *)a->k + ((keys0 + k0) * a->ldk + h) * bytes;
            const char *v = (const char *)a->v + ((keys0 + k0) * a->ldv + h) * bytes;
            gather_rows(t, w->k, k, a->ldk * bytes, keys);
            gather_rows(t, w->v, v, a->ldv * bytes, keys);
            turn_keys(t, w->k_turned, k, a->ldk * bytes, keys, (char *)w->p_rows, dt);
            meet(t, w, dq, q0, queries, k0, keys, from, dt);
        }
    }
    for (int64_t r = 0; r < to - from; r++)
        for (int64_t e = 0; e < a->d; e += VL) {
            int lanes = (int)least(a->d - e, VL);
            int64_t dk = (keys0 + from + r) * a->ldk + h + e,
                    dv = (keys0 + from + r) * a->ldv + h + e;
            vf k = *(const vf *)(w->dk + r * t->d_pitch + e);
            vf v = *(const vf *)(w->dv + r * t->d_pitch + e);
            if (g->accumulate) {
                k += vf_load_n(g->dk, dk, dt, lanes);
                v += vf_load_n(g->dv, dv, dt, lanes);
            }
            vf_store_n(g->dk, dk, dt, k, lanes);
            vf_store_n(g->dv, dv, dt, v, lanes);
        }
}

/* The pieces of a worker's memory, or how much they take (memory NULL). */
static size_t lay_out(const struct attention_grad *t, struct walk *w, char *memory)
{
    const size_t d = (size_t)t->g->forward.d, q = (size_t)t->block_q, pitch = (size_t)t->d_pitch;
    const size_t q_words = q * (size_t)t->element / 4;
    const struct {
        void **to;
        size_t bytes;
    } pieces[] = {
        {(void **)&w->k, (size_t)t->d_slices * BLOCK_K * GEMM_PITCH},
        {(void **)&w->v, (size_t)t->d_slices * BLOCK_K * GEMM_PITCH},
        {(void **)&w->k_turned, d * GEMM_PITCH},
        {(void **)&w->q, (size_t)t->d_steps * q * 4},
        {(void **)&w->dy, (size_t)t->d_steps * q * 4},
        {(void **)&w->q_down, q_words * pitch * 4},
        {(void **)&w->dy_down, q_words * pitch * 4},
        {(void **)&w->s, (BLOCK_K + 1) * GEMM_NR * 4},
        {(void **)&w->slope, (BLOCK_K + 1) * GEMM_NR * 4},
        /* also what turn_keys turns: half a block of words as wide as a head */
        {(void **)&w->p_rows,
         (BLOCK_K + 1) * (GEMM_PITCH > pitch * 2 + 64 ? GEMM_PITCH : pitch * 2 + 64)},
        {(void **)&w->slope_rows, (BLOCK_K + 1) * GEMM_PITCH},
        {(void **)&w->slope_words, (BLOCK_K + 1) * q * 4},
        {(void **)&w->p_rest, t->fine ? (BLOCK_K + 1) * GEMM_PITCH : 0},
        {(void **)&w->slope_rest, t->fine ? (BLOCK_K + 1) * GEMM_PITCH : 0},
        {(void **)&w->slope_rest_words, t->fine ? (BLOCK_K + 1) * GEMM_NR * 4 : 0},
        {(void **)&w->dk, PART_KEYS * pitch * 4},
        {(void **)&w->dv, PART_KEYS * pitch * 4},
        {(void **)&w->lse, q * 4},
        {(void **)&w->dot, q * 4},
        {(void **)&w->rest, q * 4},
        {(void **)&w->total, q * 4},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        if (memory) *pieces[i].to = memory + used;
        used += (pieces[i].bytes + 127) / 64 * 64;
    }
    return used;
}

static void part_task(void *context, int64_t task, int worker)
{
    const struct attention_grad *t = context;
    struct walk w;
    lay_out(t, &w, t->memory + t->memory_bytes * (size_t)worker);
    CPU_BY_DTYPE(t->g->forward.dtype, walk_part, t, &w, task);
}

/* ---- before and after ---- */

/* D of rows whose result is exact enough: floats. */
static void dots_of_results(const struct attention_grad *t, int64_t head, int64_t q0,
                            int64_t queries)
{
    const struct attention_args *a = &t->g->forward;
    for (int64_t i = q0; i < q0 + queries; i++) {
        int64_t at = (head / a->heads * a->lq + i) * a->ldy + head % a->heads * a->d;
        vf sum = {0};
        for (int64_t e = 0; e < a->d; e += VL) {
            int lanes = (int)least(a->d - e, VL);
            sum += vf_load_n(a->y, at + e, DTYPE_F32, lanes) *
                   vf_load_n(t->g->dy, at + e, DTYPE_F32, lanes);
        }
        t->dot[head * a->lq + i] = t->slope_scale * vf_sum(sum);
        t->rest[head * a->lq + i] = 0;
    }
}

/* D as the sum of P dP, and of few scores the sums of P, which would be 1 had lse not been rounded: of
 * scores in the tens a float's last place is seen in P. A result rounded to bfloat16 would shift all slopes of its row the same way, by
 * as much as they are where one key has nearly all the weight (twice a plain sum's error). */
static void dots_of_scores(const struct attention_grad *t, struct walk *w, int64_t head, int64_t q0,
                           int64_t queries)
{
    const struct attention_args *a = &t->g->forward;
    const float factor = (float)a->scale;
    const int64_t row = head / a->heads * a->lq + q0, keys0 = head / a->heads * a->lk;
    const int64_t h = head % a->heads * a->d, bytes = t->element;
    const int64_t seen = a->causal ? least(a->lk, q0 + queries) : a->lk;
    pack_across(t, w->q, (const char *)a->q + (row * a->ldq + h) * bytes, a->ldq * bytes, queries);
    pack_across(t, w->dy, (const char *)t->g->dy + (row * a->ldy + h) * bytes, a->ldy * bytes,
                queries);
    const float *lse = (const float *)a->lse + head * a->lq + q0;
    for (int64_t i = 0; i < div_up(queries, GEMM_NR) * GEMM_NR; i++) {
        w->lse[i] = i < queries ? lse[i] : 1e30f;
        w->dot[i] = w->total[i] = 0;
    }
    for (int64_t k0 = 0; k0 < seen; k0 += BLOCK_K) {
        int64_t keys = least(seen - k0, BLOCK_K);
        gather_rows(t, w->k, (const char *)a->k + ((keys0 + k0) * a->ldk + h) * bytes,
                    a->ldk * bytes, keys);
        gather_rows(t, w->v, (const char *)a->v + ((keys0 + k0) * a->ldv + h) * bytes,
                    a->ldv * bytes, keys);
        for (int64_t q = 0; q < queries; q += GEMM_NR) {
            scores(t, w->s, w->k, w->q + q * t->d_steps * 4, keys, a->dtype);
            scores(t, w->slope, w->v, w->dy + q * t->d_steps * 4, keys, a->dtype);
            if (a->causal && k0 + keys > q0 + q + 1) hide_future(w, q0 + q, k0, keys);
            for (int64_t v = 0; v < GEMM_NR; v += VL) {
                const vf top = *(const vf *)(w->lse + q + v);
                vf sum = *(const vf *)(w->dot + q + v), total = *(const vf *)(w->total + q + v);
                for (int64_t r = 0; r < keys; r++) {
                    int64_t at = r * GEMM_NR + v;
                    vf p = probability(*(const vf *)(w->s + at), factor, top, (vf){0}, !t->few);
                    total += p;
                    sum += p * *(const vf *)(w->slope + at);
                }
                *(vf *)(w->dot + q + v) = sum;
                *(vf *)(w->total + q + v) = total;
            }
        }
    }
    for (int64_t i = 0; i < queries; i++) {
        float total = t->few ? w->total[i] : 1;
        t->dot[head * a->lq + q0 + i] = t->slope_scale * w->dot[i] / total;
        t->rest[head * a->lq + q0 + i] = t->few ? log2f(total) : 0;
    }
}

static void dots_task(void *context, int64_t task, int worker)
{
    const struct attention_grad *t = context;
    const struct attention_args *a = &t->g->forward;
    struct walk w;
    int64_t head = task / t->q_blocks, q0 = task % t->q_blocks * t->block_q;
    int64_t queries = least(a->lq - q0, t->block_q);
    lay_out(t, &w, t->memory + t->memory_bytes * (size_t)worker);
    if (a->dtype == DTYPE_F32 && !t->few)
        dots_of_results(t, head, q0, queries);
    else
        dots_of_scores(t, &w, head, q0, queries);
}

/* dq^T of all parts of the keys, added in their order, as rows */
ALWAYS_INLINE void write_queries(const struct attention_grad *t, int64_t task, float *rows,
                                 const enum dtype dt)
{
    const struct attention_grad_args *g = t->g;
    const struct attention_args *a = &g->forward;
    const int64_t head = task / t->q_blocks, q0 = task % t->q_blocks * t->block_q;
    const int64_t queries = least(a->lq - q0, t->block_q), size = a->d * t->block_q;
    float *sum = t->dq + (head * t->parts * t->q_blocks + task % t->q_blocks) * size;
    for (int64_t part = 1; part < t->parts; part++) {
        const float *more = sum + part * t->q_blocks * size;
        for (int64_t i = 0; i < size; i += VL) *(vf *)(sum + i) += *(const vf *)(more + i);
    }
    transpose_words(rows, t->d_pitch * 4, sum, t->block_q * 4, a->d, queries, false);
    for (int64_t r = 0; r < queries; r++)
        for (int64_t e = 0; e < a->d; e += VL) {
            int lanes = (int)least(a->d - e, VL);
            int64_t at = (head / a->heads * a->lq + q0 + r) * a->ldq + head % a->heads * a->d + e;
            vf value = vf_load_n(rows, r * t->d_pitch + e, DTYPE_F32, lanes);
            if (g->accumulate) value += vf_load_n(g->dq, at, dt, lanes);
            vf_store_n(g->dq, at, dt, value, lanes);
        }
}

static void write_task(void *context, int64_t task, int worker)
{
    const struct attention_grad *t = context;
    float *rows = (float *)(t->memory + t->memory_bytes * (size_t)worker);
    CPU_BY_DTYPE(t->g->forward.dtype, write_queries, t, task, rows);
}

int cpu_attention_grad(struct device *d, const struct attention_grad_args *g, struct error *err)
{
    const struct attention_args *a = &g->forward;
    CPU_CHECK_DTYPE(a->dtype, "attention_grad");
    if (!a->lse || !a->y)
        return error_set(err, ERR_UNSUPPORTED,
                         "the derivative of attention needs its result and log-sum-exp");
    struct attention_grad t = {.g = g,
                               .device = d,
                               .element = a->dtype == DTYPE_F32 ? 4 : 2,
                               .parts = div_up(a->lk, PART_KEYS),
                               .slope_scale = a->lk > 1 ? (float)a->scale : 0,
                               .d_pitch = div_up(a->d, GEMM_NR) * GEMM_NR};
    t.few = a->lq * a->lk <= FINE_SCORES;
    t.fine = t.few && a->dtype == DTYPE_BF16;
    t.block_q = BLOCK_Q_WORDS * 4 / t.element;
    if (t.block_q > div_up(a->lq, GEMM_NR) * GEMM_NR) t.block_q = div_up(a->lq, GEMM_NR) * GEMM_NR;
    t.q_blocks = div_up(a->lq, t.block_q);
    t.d_steps = div_up(a->d * t.element, 4);
    t.d_slices = div_up(t.d_steps, GEMM_STEPS);
    struct walk none;
    int64_t heads = a->n * a->heads;
    int threads = cpu_state(d)->threads;
    size_t dq_bytes = (size_t)(heads * t.parts * t.q_blocks * a->d * t.block_q) * 4;
    size_t dot_bytes = (size_t)(heads * a->lq) * 4;
    size_t rows_bytes = (size_t)(t.block_q * t.d_pitch) * 4;
    t.memory_bytes = lay_out(&t, &none, NULL);
    if (t.memory_bytes < rows_bytes) t.memory_bytes = rows_bytes;
    size_t all = t.memory_bytes * (size_t)threads;
    int rc = cpu_scratch_start(d, all + dq_bytes + 2 * dot_bytes + 4 * 64, err);
    if (rc) return rc;
    cpu_state(d)->flops += 10.0 * (double)(heads * a->lq) * (double)(a->lk * a->d);
    t.memory = cpu_scratch_take(d, all);
    t.dq = cpu_scratch_take(d, dq_bytes);
    t.dot = cpu_scratch_take(d, dot_bytes);
    t.rest = cpu_scratch_take(d, dot_bytes);
    struct pool *pool = cpu_state(d)->pool;
    pool_run(pool, heads * t.q_blocks, dots_task, &t);
    pool_run(pool, heads * t.parts, part_task, &t);
    pool_run(pool, heads * t.q_blocks, write_task, &t);
    return 0;
}
