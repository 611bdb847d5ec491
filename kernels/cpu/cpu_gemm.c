#include "kernels/cpu/cpu_gemm.h"

#include "kernels/cpu/cpu_int8.h"

#define LINE_STEPS 16 /* of a row, in a cache line */

/* One k-step: c += a . b, a being the same 32 bits in every lane. */
ALWAYS_INLINE vf step_f32(vf c, vf a, vf b)
{
    return c + a * b;
}

/* The microkernel: MR rows by NV vectors in registers over `steps`. */
ALWAYS_INLINE void micro(const int mr, const int nv, float *restrict c, int64_t ldc,
                         const char *restrict a, const char *restrict b, int64_t steps,
                         const bool bf16, bool accumulate)
{
    vf acc[GEMM_MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[i][v] = (vf){0};
#pragma GCC unroll 1
    for (int64_t s = 0; s < steps; s++) {
        vf bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = *(const vf *)(b + (size_t)v * VL * 4);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            if (bf16) {
                vu av = (vu){0} + *(const uint32_t *)(a + (size_t)i * GEMM_PITCH);
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++) acc[i][v] = gemm_step_bf16(acc[i][v], av, (vu)bv[v]);
            } else {
                vf av = vf_set(*(const float *)(a + (size_t)i * GEMM_PITCH));
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++) acc[i][v] = step_f32(acc[i][v], av, bv[v]);
            }
        }
        a += 4;
        b += GEMM_NR * 4;
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            vf *to = (vf *)(c + i * ldc + v * VL);
            if (accumulate) acc[i][v] += *to;
            *to = acc[i][v];
        }
}

#define MICRO(mr, nv, name, bf16)                                                                  \
    static void micro_##mr##_##nv##_##name(float *c, int64_t ldc, const char *a, const char *b,    \
                                           int64_t steps, bool accumulate)                         \
    {                                                                                              \
        micro(mr, nv, c, ldc, a, b, steps, bf16, accumulate);                                      \
    }
#define MICRO_ROW(mr)                                                                              \
    MICRO(mr, 1, f32, false)                                                                       \
    MICRO(mr, 2, f32, false) MICRO(mr, 1, bf16, true) MICRO(mr, 2, bf16, true)
MICRO_ROW(1)
MICRO_ROW(2)
MICRO_ROW(3)
MICRO_ROW(4)
MICRO_ROW(5)
MICRO_ROW(6)
#if GEMM_MR > 6
MICRO_ROW(7)
MICRO_ROW(8)
MICRO_ROW(9)
MICRO_ROW(10)
MICRO_ROW(11)
MICRO_ROW(12)
MICRO_ROW(13)
MICRO_ROW(14)
#endif

typedef void (*micro_function)(float *, int64_t, const char *, const char *, int64_t, bool);

#define MICRO_ENTRY(mr)                                                                            \
    {                                                                                              \
        {micro_##mr##_1_f32, micro_##mr##_2_f32},                                                  \
        {                                                                                          \
            micro_##mr##_1_bf16, micro_##mr##_2_bf16                                               \
        }                                                                                          \
    }
static const micro_function micro_table[GEMM_MR][2][2] = {
    MICRO_ENTRY(1),  MICRO_ENTRY(2),  MICRO_ENTRY(3),  MICRO_ENTRY(4),
    MICRO_ENTRY(5),  MICRO_ENTRY(6),
#if GEMM_MR > 6
    MICRO_ENTRY(7),  MICRO_ENTRY(8),  MICRO_ENTRY(9),  MICRO_ENTRY(10),
    MICRO_ENTRY(11), MICRO_ENTRY(12), MICRO_ENTRY(13), MICRO_ENTRY(14),
#endif
};

void gemm_tile(float *c, int64_t ldc, const void *a, const void *b, int64_t steps, int64_t rows,
               int64_t cols, enum dtype dtype, bool accumulate)
{
    micro_table[rows - 1][dtype == DTYPE_BF16][cols > VL](c, ldc, a, b, steps, accumulate);
}

static int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t steps_of(int64_t k, enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? div_up(k, 2) : k;
}

/* Of B: bytes have a step of their own sums behind each slice. */
static int64_t b_steps(const struct gemm *g, int64_t slices)
{
    return g->eight ? g->k / 4 + slices : steps_of(g->k, g->a_dtype);
}

size_t gemm_packed_bytes(int64_t k, int64_t n, enum dtype dtype)
{
    return (size_t)(div_up(n, GEMM_NR) * GEMM_NR * steps_of(k, dtype)) * 4;
}

/* How columns [first, end) of the product are cut into tasks of mc rows by nc columns. */
struct cut {
    struct device *device;
    const struct gemm *g;
    const char *b;       /* packed, from column `first` on; NULL: fill_b */
    const char *partner; /* of those columns, likewise */
    int64_t first, end;
    int64_t mc, nc, m_tasks, n_tasks, slices, slice;
};

/* One slice of a task: tiles do not go past the end of a line. */
static void run_direct(const struct cut *cut, float *c, int64_t m0, int64_t rows, int64_t n0,
                       int64_t cols, int64_t s)
{
    const struct gemm *g = cut->g;
    const int64_t block = UNPACKED_RUN * 9, k_steps = steps_of(g->k, g->a_dtype);
    const int64_t first = s * cut->slice, blocks = min64(cut->slice, k_steps - first) / block;
    for (int64_t n = 0; n < cols; n += GEMM_NR) {
        int64_t width = min64(GEMM_NR, cols - n);
        const char *b = cut->b + ((n0 + n - cut->first) * k_steps + first * GEMM_NR) * 4;
        for (int64_t r = 0; r < rows;) {
            int64_t part = min64(rows - r, g->direct->line - (m0 + r) % g->direct->line);
            for (int64_t t = 0, tiles = div_up(part, GEMM_MR), at = 0; t < tiles; t++) {
                int64_t end = (t + 1) * part / tiles, height = end - at;
                float *tile = cut->slices > 1 ? c + (n * rows + (r + at) * GEMM_NR) : c;
                direct_tile(tile, GEMM_NR, g->direct, m0 + r + at, first / block, b, blocks, height,
                            width, s > 0);
                if (s + 1 == cut->slices) g->store(g, tile, m0 + r + at, height, n0 + n, width);
                at = end;
            }
            r += part;
        }
    }
}

static void run_task(void *context, int64_t task, int worker)
{
    const struct cut *cut = context;
    const struct gemm *g = cut->g;
    char *memory = cpu_worker_memory(cut->device, worker);
    char *a = memory;
    float *c = (float *)(memory + GEMM_A_BYTES);
    float *b_slice = (float *)(memory + GEMM_A_BYTES + GEMM_C_BYTES);
    int64_t m0 = task % cut->m_tasks * cut->mc;
    int64_t n0 = cut->first + task / cut->m_tasks * cut->nc;
    int64_t rows = min64(cut->mc, g->m - m0), cols = min64(cut->nc, cut->end - n0);
    int64_t tiles = div_up(rows, GEMM_MR); /* of nearly equal height */
    int64_t per_step = g->eight ? 4 : g->a_dtype == DTYPE_BF16 ? 2 : 1;
    int64_t slice = cut->slice * per_step, k_steps = b_steps(g, cut->slices);
    const int parts = g->partner ? 2 : 1;

    for (int64_t s = 0; s < cut->slices; s++) {
        int64_t k0 = s * slice, count = min64(slice, g->k - k0);
        int64_t steps = div_up(count, per_step);
        bool last = s + 1 == cut->slices;
        if (g->direct) {
            run_direct(cut, c, m0, rows, n0, cols, s);
            continue;
        }
        g->fill_a(g, a, m0, rows, k0, count);
        if (!cut->b) g->fill_b(g, b_slice, k0, count, n0, cols);
        for (int64_t n = 0; n < cols; n += GEMM_NR) {
            int64_t width = min64(GEMM_NR, cols - n);
            int64_t step = k0 / per_step + (g->eight ? s : 0);
            int64_t at = ((n0 + n - cut->first) * k_steps + step * GEMM_NR) * 4;
            for (int part = 0; part < parts; part++) {
                const char *b = part     ? cut->partner + at
                                : cut->b ? cut->b + at
                                         : (const char *)(b_slice + n * count);
                for (int64_t t = 0, r = 0; t < tiles; t++) {
                    int64_t end = (t + 1) * rows / tiles, height = end - r;
                    float *tile = cut->slices > 1 ? c + (n * rows + r * GEMM_NR) * parts
                                  : parts > 1     ? c + r * GEMM_NR * parts
                                                  : c;
                    if (g->eight)
                        int8_tile(tile + part * GEMM_NR, parts * GEMM_NR, a + r * GEMM_PITCH, b,
                                  steps, height, width, s > 0);
                    else
                        gemm_tile(tile + part * GEMM_NR, parts * GEMM_NR, a + r * GEMM_PITCH, b,
                                  steps, height, width, g->a_dtype, s > 0);
                    if (last && part + 1 == parts) g->store(g, tile, m0 + r, height, n0 + n, width);
                    r = end;
                }
            }
        }
    }
}

/* Tasks large enough to reuse B from the first cache, many enough to keep the workers level. */
static void choose_cut(struct cut *cut, const struct gemm *g, int threads)
{
    int64_t n_panels = div_up(cut->end - cut->first, GEMM_NR);
    int64_t mc_max = GEMM_MC_MAX / GEMM_MR * GEMM_MR, parts = g->partner ? 2 : 1;
    double best = 0;
    for (int64_t n_tasks = 1; n_tasks <= n_panels; n_tasks++) {
        int64_t panels = div_up(n_panels, n_tasks);
        int64_t nc = panels * GEMM_NR;
        if (n_tasks > 1 && div_up(n_panels, n_tasks - 1) == panels) continue;
        if (!cut->b && (size_t)(nc * GEMM_STEPS * 4) > GEMM_B_BYTES) continue;
        int64_t m_first = div_up(g->m, mc_max), m_last = m_first + 8 * threads;
        for (int64_t m_tasks = m_first; m_tasks <= m_last; m_tasks++) {
            int64_t mc = div_up(div_up(g->m, m_tasks), GEMM_MR) * GEMM_MR;
            if (mc > mc_max) continue;
            if (cut->slices > 1 && (size_t)(mc * nc * parts * 4) > GEMM_C_BYTES) continue;
            int64_t tasks = div_up(g->m, mc) * div_up(n_panels, panels);
            /* time in units of one A word times one B panel: products, gathering A, loading B */
            double task = (double)(mc * panels * parts) + (double)mc * 0.4 +
                          (double)(panels * parts) * (cut->b ? 6 : 12) + 4;
            double time = task * (double)div_up(tasks, threads);
            if (tasks > threads) time += 0.25 * task; /* the last one runs alone */
            if (best == 0 || time < best) {
                best = time;
                cut->mc = mc;
                cut->nc = nc;
            }
        }
    }
    cut->m_tasks = div_up(g->m, cut->mc);
    cut->n_tasks = div_up(cut->end - cut->first, cut->nc);
}

/* Packing columns [first, end) of a weight; a task is one panel's part_steps of K. */
struct packing {
    const struct unpacked *file;
    enum dtype dtype;
    char *to;
    int64_t first, end, k_steps, part_steps, parts;
};

static void pack_task(void *context, int64_t task, int worker)
{
    const struct packing *p = context;
    int64_t n0 = p->first + task / p->parts * GEMM_NR, step = task % p->parts * p->part_steps;
    unpacked_panel(p->file, p->to + ((n0 - p->first) * p->k_steps + step * GEMM_NR) * 4, p->dtype,
                   step, min64(p->part_steps, p->k_steps - step), n0, min64(GEMM_NR, p->end - n0));
}

static void pack_columns(struct device *d, struct packing *p, int64_t first, int64_t end)
{
    int64_t block = p->file->taps > 1 ? p->file->taps * UNPACKED_RUN : 1;
    p->part_steps = 4 * GEMM_STEPS / block * block;
    p->parts = div_up(p->k_steps, p->part_steps);
    p->first = first;
    p->end = end;
    pool_run(cpu_state(d)->pool, div_up(end - first, GEMM_NR) * p->parts, pack_task, p);
}

void gemm_pack(struct device *d, void *to, const struct unpacked *file, int64_t k, int64_t n,
               enum dtype dtype)
{
    struct packing p = {.file = file, .dtype = dtype, .to = to, .k_steps = steps_of(k, dtype)};
    pack_columns(d, &p, 0, n);
}

/* Columns whose panels stay in the last cache while they are used, enough of them to keep all
 * threads at work. */
static int64_t columns_at_once(int64_t k_steps, int64_t n, int threads)
{
    int64_t bytes = (int64_t)8 << 20, most = (int64_t)2 << 20;
    if (bytes < most * threads) bytes = most * threads;
    int64_t panels = bytes / (k_steps * GEMM_NR * 4), all = div_up(n, GEMM_NR);
    if (panels < 1) panels = 1;
    return div_up(all, div_up(all, panels)) * GEMM_NR;
}

int gemm_reserve(struct device *d, int64_t k, int64_t n, enum dtype dtype, struct error *err)
{
    int64_t columns = columns_at_once(steps_of(k, dtype), n, cpu_state(d)->threads);
    return cpu_panels_reserve(d, (size_t)(columns * steps_of(k, dtype)) * 4, err);
}

static void run_columns(struct cut *cut)
{
    const struct gemm *g = cut->g;
    struct cpu_state *s = cpu_state(cut->device);
    choose_cut(cut, g, s->threads);
    pool_run(s->pool, cut->m_tasks * cut->n_tasks, run_task, cut);
}

void gemm_run(struct device *d, const struct gemm *g)
{
    if (g->m <= 0 || g->n <= 0) return;
    struct cut cut = {.device = d, .g = g};
    const int64_t k_steps = g->eight ? g->k / 4 : steps_of(g->k, g->a_dtype);
    const int64_t parts = g->partner ? 2 : 1;
    cpu_state(d)->flops += 2.0 * (double)(g->m * parts) * (double)g->n * (double)g->k;
    cut.slice = g->slice;
    if (!cut.slice)
        cut.slice = div_up(div_up(k_steps, div_up(k_steps, GEMM_STEPS)), LINE_STEPS) * LINE_STEPS;
    cut.slices = div_up(k_steps, cut.slice);
    cut.end = g->n;
    cut.b = g->b;
    if (g->b && g->partner) cut.partner = cut.b + g->partner * b_steps(g, cut.slices) * 4;
    if (!g->file) {
        run_columns(&cut);
        return;
    }
    int64_t columns = columns_at_once(k_steps * parts, g->n, cpu_state(d)->threads);
    struct packing p = {.file = g->file, .dtype = g->a_dtype, .k_steps = k_steps};
    char *panels = cpu_state(d)->panels;
    cut.b = panels;
    if (g->partner) cut.partner = panels + columns * k_steps * 4;
    for (; cut.first < g->n; cut.first += columns) {
        cut.end = min64(cut.first + columns, g->n);
        for (int part = 0; part < parts; part++) {
            p.to = panels + part * columns * k_steps * 4;
            pack_columns(d, &p, cut.first + part * g->partner, cut.end + part * g->partner);
        }
        run_columns(&cut);
    }
}
