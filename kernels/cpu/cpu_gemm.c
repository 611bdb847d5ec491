#include "kernels/cpu/cpu_gemm.h"

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

size_t gemm_packed_bytes(int64_t k, int64_t n, enum dtype dtype)
{
    return (size_t)(div_up(n, GEMM_NR) * GEMM_NR * steps_of(k, dtype)) * 4;
}

/* How the product is cut into tasks of mc rows by nc columns. */
struct cut {
    struct device *device;
    const struct gemm *g;
    int64_t mc, nc, m_tasks, n_tasks, slices;
};

static void run_task(void *context, int64_t task, int worker)
{
    const struct cut *cut = context;
    const struct gemm *g = cut->g;
    char *memory = cpu_worker_memory(cut->device, worker);
    char *a = memory;
    float *c = (float *)(memory + GEMM_A_BYTES);
    float *b_slice = (float *)(memory + GEMM_A_BYTES + GEMM_C_BYTES);
    int64_t m0 = task % cut->m_tasks * cut->mc, n0 = task / cut->m_tasks * cut->nc;
    int64_t rows = min64(cut->mc, g->m - m0), cols = min64(cut->nc, g->n - n0);
    int64_t tiles = div_up(rows, GEMM_MR); /* of nearly equal height */
    int64_t per_step = g->a_dtype == DTYPE_BF16 ? 2 : 1;
    int64_t slice = GEMM_STEPS * per_step, k_steps = steps_of(g->k, g->a_dtype);

    for (int64_t s = 0; s < cut->slices; s++) {
        int64_t k0 = s * slice, count = min64(slice, g->k - k0);
        int64_t steps = div_up(count, per_step);
        bool last = s + 1 == cut->slices;
        g->fill_a(g, a, m0, rows, k0, count);
        if (!g->b) g->fill_b(g, b_slice, k0, count, n0, cols);
        for (int64_t n = 0; n < cols; n += GEMM_NR) {
            int64_t width = min64(GEMM_NR, cols - n);
            const char *b =
                g->b ? (const char *)g->b + ((n0 + n) * k_steps + k0 / per_step * GEMM_NR) * 4
                     : (const char *)(b_slice + n * count);
            for (int64_t t = 0, r = 0; t < tiles; t++) {
                int64_t end = (t + 1) * rows / tiles, height = end - r;
                float *tile = cut->slices == 1 ? c : c + (n * rows + r * GEMM_NR);
                gemm_tile(tile, GEMM_NR, a + r * GEMM_PITCH, b, steps, height, width, g->a_dtype,
                          s > 0);
                if (last) g->store(g, tile, m0 + r, height, n0 + n, width);
                r = end;
            }
        }
    }
}

/* Tasks large enough to reuse B from the first cache, many enough to keep the workers level. */
static void choose_cut(struct cut *cut, const struct gemm *g, int threads)
{
    int64_t n_panels = div_up(g->n, GEMM_NR);
    int64_t mc_max = GEMM_MC_MAX / GEMM_MR * GEMM_MR;
    double best = 0;
    for (int64_t n_tasks = 1; n_tasks <= n_panels; n_tasks++) {
        int64_t panels = div_up(n_panels, n_tasks);
        int64_t nc = panels * GEMM_NR;
        if (n_tasks > 1 && div_up(n_panels, n_tasks - 1) == panels) continue;
        if (!g->b && (size_t)(nc * GEMM_STEPS * 4) > GEMM_B_BYTES) continue;
        int64_t m_first = div_up(g->m, mc_max), m_last = m_first + 8 * threads;
        for (int64_t m_tasks = m_first; m_tasks <= m_last; m_tasks++) {
            int64_t mc = div_up(div_up(g->m, m_tasks), GEMM_MR) * GEMM_MR;
            if (mc > mc_max) continue;
            if (cut->slices > 1 && (size_t)(mc * nc * 4) > GEMM_C_BYTES) continue;
            int64_t tasks = div_up(g->m, mc) * div_up(n_panels, panels);
            /* time in units of one A word times one B panel: products, gathering A, loading B */
            double task = (double)mc * (double)panels + (double)mc * 0.4 +
                          (double)panels * (g->b ? 6 : 12) + 4;
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
    cut->n_tasks = div_up(g->n, cut->nc);
}

void gemm_run(struct device *d, const struct gemm *g)
{
    if (g->m <= 0 || g->n <= 0) return;
    cpu_state(d)->flops += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    struct cut cut = {.device = d, .g = g};
    cut.slices = div_up(g->k, g->a_dtype == DTYPE_BF16 ? 2 * GEMM_STEPS : GEMM_STEPS);
    choose_cut(&cut, g, cpu_state(d)->threads);
    pool_run(cpu_state(d)->pool, cut.m_tasks * cut.n_tasks, run_task, &cut);
}
