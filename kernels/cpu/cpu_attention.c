/* Attention with a running sum (Dao, FlashAttention-2, algorithm 1), turned on its side: scores are
 * S^T = K Q^T, a row a key, a lane a query, so that sums run down the lanes and P^T is the packed B of
 * O^T = V^T P^T as it comes out. Rows of K and V^T are the A of the microkernels: any head size and any
 * number of keys fill their rows.
 *
 * What is taken off a score before 2^x need not be the maximum, only near it: float and bfloat16 hold 2^100 as
 * well as 1. So the first tile of keys tells it for its queries, and a tile's scores become P in the
 * registers that summed them. Where a later block shows that it was not near enough, its sums having grown
 * past a limit, the block is done again with its maximum, and what was summed before shrinks.
 * Scores, sums and the result are float; P is rounded to bfloat16 where the activations are. */
#include "kernels/cpu/cpu_attention_tile.h"
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_transpose.h"

#include <math.h>

#define BLOCK_PAIRS 140 /* pairs of keys whose P is held at a time, at most */
#define BLOCK_K (2 * BLOCK_PAIRS)
#define PANELS 2 /* of GEMM_NR queries that meet a block of keys while it is near */
#define BLOCK_Q (PANELS * GEMM_NR)
#define D_MAX 1024
/* Sums of P past this say that `top` was too far below the maximum. In float what is left of the
 * score's precision after the subtraction counts; bfloat16 has lost more already. */
#define NEAR_F32 0x1p14f
#define NEAR_BF16 0x1p60f

struct attention {
    const struct attention_args *a;
    struct device *device;
    int64_t pairs, blocks, block_pairs; /* of keys, of one head */
    int64_t q_blocks, d_steps, v_tiles;
    int64_t element;         /* bytes */
    int64_t pair_steps;      /* of V^T: 1 or, in float, 2 */
    size_t k_bytes, v_bytes; /* packed, of one head */
    char *k,
        *v; /* [n,heads] of [tile of keys][d_steps][rows], of [block][tile of d][steps][rows] */
};

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Where part `i` of `parts` nearly equal ones of `whole` begins. */
static int64_t part_at(int64_t whole, int64_t parts, int64_t i)
{
    return i * whole / parts;
}

/* A block of one head's keys. */
struct keys {
    int64_t first, pairs, tiles; /* pairs */
    bool odd;                    /* the last pair is one key */
};

static struct keys keys_of(const struct attention *t, int64_t block)
{
    struct keys k = {.first = block * t->block_pairs};
    k.pairs = least(t->block_pairs, t->pairs - k.first);
    k.tiles = div_up(k.pairs, GEMM_MR / 2);
    k.odd = t->a->lk % 2 && k.first + k.pairs == t->pairs;
    return k;
}

/* ---- packing ---- */

/* Rows of d elements as tiles of A, an even number in each; an odd last row is followed by zeros. */
ALWAYS_INLINE void pack_keys(const struct attention *t, char *to, const char *k,
                             const struct keys *block, const enum dtype dt)
{
    const int64_t pitch = t->a->ldk * t->element, whole = t->a->d * t->element / 4;
    for (int64_t i = 0; i < block->tiles; i++) {
        int64_t p0 = part_at(block->pairs, block->tiles, i);
        int64_t rows = 2 * (part_at(block->pairs, block->tiles, i + 1) - p0);
        int64_t real = block->odd && i + 1 == block->tiles ? rows - 1 : rows;
        const char *from = k + 2 * p0 * pitch;
        if (real < rows) memset(to, 0, (size_t)(rows * t->d_steps) * 4);
        transpose_words(to, rows * 4, from, pitch, real, whole, false);
        if (dt == DTYPE_BF16 && whole < t->d_steps)
            for (int64_t r = 0; r < real; r++) {
                uint32_t word = 0;
                memcpy(&word, from + r * pitch + whole * 4, 2);
                memcpy(to + (whole * rows + r) * 4, &word, 4);
            }
        to += rows * t->d_steps * 4;
    }
}

/* V^T as tiles of A: d down, keys (pairs of them) along */
ALWAYS_INLINE void pack_values(const struct attention *t, char *to, const char *v,
                               const struct keys *block, const enum dtype dt)
{
    const int64_t d = t->a->d, pitch = t->a->ldv * t->element, per = dt == DTYPE_BF16 ? 2 : 1;
    const int64_t steps = block->pairs * t->pair_steps, keys = 2 * block->pairs - block->odd;
    for (int64_t i = 0; i < t->v_tiles; i++) {
        int64_t e0 = part_at(d, t->v_tiles, i), e1 = part_at(d, t->v_tiles, i + 1);
        for (int64_t s = 0; s < steps; s++, to += (e1 - e0) * 4)
            for (int64_t e = e0; e < e1; e += VL) {
                int lanes = (int)least(e1 - e, VL);
                const char *low = v + s * per * pitch;
                vu words = {0};
                if (dt == DTYPE_F32) {
                    if (s < keys) words = (vu)vf_load_n(low, e, dt, lanes);
                } else {
                    words = (vu)vf_load_n(low, e, dt, lanes) >> 16;
                    if (2 * s + 1 < keys) words |= (vu)vf_load_n(low + pitch, e, dt, lanes);
                }
                vf_store_n(to, e - e0, DTYPE_F32, (vf)words, lanes);
            }
    }
}

ALWAYS_INLINE void pack_block(const struct attention *t, int64_t head, int64_t index,
                              const enum dtype dt)
{
    const struct attention_args *a = t->a;
    const struct keys block = keys_of(t, index);
    int64_t n = head / a->heads, h = head % a->heads, row = n * a->lk + 2 * block.first;
    pack_keys(t, t->k + t->k_bytes * (size_t)head + 2 * block.first * t->d_steps * 4,
              (const char *)a->k + (row * a->ldk + h * a->d) * t->element, &block, dt);
    pack_values(t, t->v + t->v_bytes * (size_t)head + block.first * t->pair_steps * a->d * 4,
                (const char *)a->v + (row * a->ldv + h * a->d) * t->element, &block, dt);
}

static void pack_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    CPU_BY_DTYPE(t->a->dtype, pack_block, t, task / t->blocks, task % t->blocks);
}

/* queries as B: words of d down, queries across */
ALWAYS_INLINE void pack_queries(const struct attention *t, char *to, const char *q, int64_t queries,
                                const enum dtype dt)
{
    int64_t pitch = t->a->ldq * t->element, whole = t->a->d * t->element / 4;
    for (int64_t p = 0; p < queries; p += GEMM_NR) {
        char *panel = to + p * t->d_steps * 4;
        int64_t count = least(queries - p, GEMM_NR);
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

/* ---- products ---- */

/* Worker memory of a task: BLOCK_Q queries of one head. */
struct block {
    char *q;  /* [PANELS][d_steps][GEMM_NR] words */
    float *o; /* [PANELS][d][GEMM_NR] */
    float *s; /* [BLOCK_K][GEMM_NR], scores where they are wanted before P */
    char *p;  /* P of one panel as B: floats or pairs of bfloat16 */
    struct soft soft[PANELS];
    int64_t q0, queries;
};

/* Queries see the keys before them and their own. */
static void hide_future(const struct block *b, int panel, int64_t k0, int64_t keys)
{
    for (int64_t r = 0; r < keys; r++) {
        int64_t first = k0 + r - (b->q0 + panel * GEMM_NR); /* the first lane that sees the key */
        for (int64_t i = 0; i < first && i < GEMM_NR; i++) b->s[r * GEMM_NR + i] = ATTENTION_MASKED;
    }
}

/* P of a block with its maximum, or the one before if that was higher. */
ALWAYS_INLINE void soften_exactly(const struct attention *t, struct block *b, int panel,
                                  const char *k, const struct keys *block, const enum dtype dt)
{
    struct soft *soft = &b->soft[panel];
    const char *q = b->q + panel * t->d_steps * GEMM_NR * 4;
    const int64_t rows = 2 * block->pairs, d = t->a->d;
    float *s = b->s, *o = b->o + panel * d * GEMM_NR;
    for (int64_t i = 0; i < block->tiles; i++) {
        int64_t r0 = 2 * part_at(block->pairs, block->tiles, i);
        int64_t r1 = 2 * part_at(block->pairs, block->tiles, i + 1);
        attention_product(s + r0 * GEMM_NR, k + r0 * t->d_steps * 4, q, r1 - r0, t->d_steps, dt,
                          false);
    }
    if (t->a->causal) hide_future(b, panel, 2 * block->first, rows - block->odd);
    for (int v = 0; v < 2; v++) {
        if (block->odd) *(vf *)(s + (rows - 1) * GEMM_NR + v * VL) = vf_set(ATTENTION_MASKED);
        vf high = vf_set(ATTENTION_MASKED);
        for (int64_t r = 0; r < rows; r++) high = vf_max(high, *(vf *)(s + r * GEMM_NR + v * VL));
        high *= soft->factor;
        if (block->first > 0) {
            vf shrink;
            high = vf_max(high, soft->top[v]);
            shrink = vf_exp2(soft->top[v] - high, false);
            soft->sum[v] *= shrink;
            for (int64_t e = 0; e < d; e++) *(vf *)(o + e * GEMM_NR + v * VL) *= shrink;
        }
        soft->top[v] = high;
        vf sum = {0};
        for (int64_t r = 0; r < rows; r += 2) {
            const float *at = s + r * GEMM_NR + v * VL;
            vf e = vf_exp2(soft_power(soft, *(const vf *)at, high, false), false);
            vf f = vf_exp2(soft_power(soft, *(const vf *)(at + GEMM_NR), high, false), false);
            sum += e;
            sum += f;
            char *p = b->p + (r / 2 * t->pair_steps * GEMM_NR + v * VL) * 4;
            if (dt == DTYPE_BF16) {
                *(vu *)p = pair_words(e, f);
            } else {
                *(vf *)p = e;
                *(vf *)(p + GEMM_NR * 4) = f;
            }
        }
        soft->sum[v] += sum;
    }
}

/* P of a block without a look at all of its scores first; false: they were too far above `top`. */
ALWAYS_INLINE bool soften_quickly(const struct attention *t, struct block *b, int panel,
                                  const char *k, const struct keys *block, const enum dtype dt)
{
    struct soft *soft = &b->soft[panel];
    const vf top[2] = {soft->top[0], soft->top[1]}, sum[2] = {soft->sum[0], soft->sum[1]};
    const char *q = b->q + panel * t->d_steps * GEMM_NR * 4;
    soft->sum[0] = soft->sum[1] = (vf){0};
    soft->find_top = block->first == 0;
    for (int64_t i = 0; i < block->tiles; i++) {
        int64_t p0 = part_at(block->pairs, block->tiles, i);
        int64_t p1 = part_at(block->pairs, block->tiles, i + 1);
        soft->odd = block->odd && i + 1 == block->tiles;
        attention_soften(soft, b->p + p0 * t->pair_steps * GEMM_NR * 4, k + 2 * p0 * t->d_steps * 4,
                         q, 2 * (p1 - p0), t->d_steps);
        soft->find_top = false;
    }
    vf limit = vf_set(dt == DTYPE_F32 ? NEAR_F32 : NEAR_BF16);
    if (!vf_all_below(vf_max(soft->sum[0], soft->sum[1]), limit)) {
        memcpy(soft->top, top, sizeof top);
        memcpy(soft->sum, sum, sizeof sum);
        return false;
    }
    for (int v = 0; v < 2; v++) soft->sum[v] += sum[v];
    return true;
}

/* One panel of queries meets one block of keys. */
ALWAYS_INLINE void meet(const struct attention *t, struct block *b, int panel, const char *k,
                        const char *v, const struct keys *block, const enum dtype dt)
{
    const int64_t d = t->a->d, steps = block->pairs * t->pair_steps;
    float *o = b->o + panel * d * GEMM_NR;
    if (t->a->causal || !soften_quickly(t, b, panel, k, block, dt))
        soften_exactly(t, b, panel, k, block, dt);
    for (int64_t i = 0; i < t->v_tiles; i++) {
        int64_t e0 = part_at(d, t->v_tiles, i), e1 = part_at(d, t->v_tiles, i + 1);
        attention_product(o + e0 * GEMM_NR, v + e0 * steps * 4, b->p, e1 - e0, steps, dt,
                          block->first > 0);
    }
}

/* Rows e, e + 1 of O times `factor` as pairs of bfloat16, rounded to nearest even. */
ALWAYS_INLINE vu output_pair(vf first, vf second)
{
#if VL == 16 && defined(__AVX512BF16__)
    return pair_words(first, second);
#else
    return (vu)vf_from_bf16(vf_to_bf16(first)) >> 16 | (vu)vf_from_bf16(vf_to_bf16(second));
#endif
}

/* O / sum turned over into rows of y */
ALWAYS_INLINE void write_panel(const struct attention *t, struct block *b, int panel, char *y,
                               int64_t count, const enum dtype dt)
{
    const int64_t d = t->a->d, pitch = t->a->ldy * t->element;
    const struct soft *soft = &b->soft[panel];
    float *o = b->o + panel * d * GEMM_NR;
    for (int v = 0; v < 2; v++) {
        const vf factor = 1.0f / soft->sum[v];
        for (int64_t e = 0; e + 1 < d; e += 2) {
            vf *low = (vf *)(o + e * GEMM_NR + v * VL), *high = (vf *)((float *)low + GEMM_NR);
            if (dt == DTYPE_BF16)
                *(vu *)(o + e / 2 * GEMM_NR + v * VL) = output_pair(*low * factor, *high * factor);
            else
                *low *= factor, *high *= factor;
        }
        if (d % 2) *(vf *)(o + (d - 1) * GEMM_NR + v * VL) *= factor;
    }
    if (dt == DTYPE_F32) {
        transpose_words(y, pitch, o, GEMM_NR * 4, d, count, false);
        return;
    }
    transpose_words(y, pitch, o, GEMM_NR * 4, d / 2, count, false);
    for (int64_t i = 0; d % 2 && i < count; i++)
        f_store(y + i * pitch, d - 1, dt, o[(d - 1) * GEMM_NR + i]);
}

ALWAYS_INLINE void write_rows(const struct attention *t, struct block *b, int64_t head,
                              const enum dtype dt)
{
    const struct attention_args *a = t->a;
    int64_t n = head / a->heads, h = head % a->heads;
    for (int p = 0; p * GEMM_NR < b->queries; p++) {
        int64_t row = b->q0 + p * GEMM_NR, count = least(b->queries - p * GEMM_NR, GEMM_NR);
        char *y = (char *)a->y + ((n * a->lq + row) * a->ldy + h * a->d) * t->element;
        write_panel(t, b, p, y, count, dt);
        float top[GEMM_NR], sum[GEMM_NR];
        memcpy(top, b->soft[p].top, sizeof top);
        memcpy(sum, b->soft[p].sum, sizeof sum);
        for (int64_t i = 0; i < count && a->lse; i++)
            ((float *)a->lse)[head * a->lq + row + i] =
                (float)((double)top[i] * 0.69314718055994531 + log((double)sum[i]));
    }
}

/* Field by field: two panels' vectors need not be cleared first. */
static void start_soft(struct soft *s, const struct attention_args *a)
{
    const double factor = a->scale * 1.4426950408889634;
    s->factor = (float)factor;
    s->rest = (float)(factor - (double)s->factor);
    s->sum[0] = s->sum[1] = (vf){0};
    s->dtype = a->dtype;
    s->rough = a->dtype == DTYPE_BF16 && !a->lse;
}

ALWAYS_INLINE void queries(const struct attention *t, int64_t head, struct block *b,
                           const enum dtype dt)
{
    const struct attention_args *a = t->a;
    int64_t n = head / a->heads, h = head % a->heads;
    const char *q = (const char *)a->q + ((n * a->lq + b->q0) * a->ldq + h * a->d) * t->element;
    const char *k = t->k + t->k_bytes * (size_t)head, *v = t->v + t->v_bytes * (size_t)head;
    pack_queries(t, b->q, q, b->queries, dt);
    for (int p = 0; p < PANELS; p++) start_soft(&b->soft[p], a);
    for (int64_t i = 0; i < t->blocks; i++) {
        const struct keys block = keys_of(t, i);
        if (a->causal && 2 * block.first >= b->q0 + b->queries) break;
        for (int p = 0; p * GEMM_NR < b->queries; p++) meet(t, b, p, k, v, &block, dt);
        k += 2 * block.pairs * t->d_steps * 4;
        v += block.pairs * t->pair_steps * a->d * 4;
    }
    write_rows(t, b, head, dt);
}

static void queries_task(void *context, int64_t task, int worker)
{
    const struct attention *t = context;
    const struct attention_args *a = t->a;
    struct block b;
    b.q0 = task % t->q_blocks * BLOCK_Q;
    b.queries = least(a->lq - b.q0, BLOCK_Q);
    b.s = (float *)cpu_worker_memory(t->device, worker);
    b.p = (char *)(b.s + BLOCK_K * GEMM_NR);
    b.o = (float *)(b.p + BLOCK_K * GEMM_NR * 4);
    b.q = (char *)(b.o + PANELS * a->d * GEMM_NR);
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
                          .pairs = div_up(a->lk, 2),
                          .q_blocks = div_up(a->lq, BLOCK_Q),
                          .v_tiles = div_up(a->d, GEMM_MR),
                          .element = a->dtype == DTYPE_F32 ? 4 : 2,
                          .pair_steps = a->dtype == DTYPE_F32 ? 2 : 1};
    t.d_steps = div_up(a->d * t.element, 4);
    const int64_t most = BLOCK_PAIRS / t.pair_steps; /* P of a block stays in the first cache */
    t.block_pairs = div_up(t.pairs, div_up(t.pairs, most));
    t.blocks = div_up(t.pairs, t.block_pairs);
    t.k_bytes = (size_t)(2 * t.pairs * t.d_steps) * 4;
    t.v_bytes = (size_t)(t.pairs * t.pair_steps * a->d) * 4;
    size_t heads = (size_t)(a->n * a->heads);
    int rc = cpu_scratch_start(d, heads * (t.k_bytes + t.v_bytes) + 256, err);
    if (rc) return rc;
    cpu_state(d)->flops += 4.0 * (double)(a->n * a->heads * a->lq) * (double)(a->lk * a->d);
    t.k = cpu_scratch_take(d, heads * t.k_bytes);
    t.v = cpu_scratch_take(d, heads * t.v_bytes);
    pool_run(cpu_state(d)->pool, (int64_t)heads * t.blocks, pack_task, &t);
    pool_run(cpu_state(d)->pool, (int64_t)heads * t.q_blocks, queries_task, &t);
    return 0;
}
