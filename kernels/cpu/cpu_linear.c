#include "kernels/cpu/cpu_epilogue.h"
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_int8.h"
#include "kernels/cpu/cpu_pack.h"
#include "kernels/cpu/cpu_table.h"

struct linear {
    struct matrix a; /* first: fill_rows and fill_transposed read it */
    struct matrix b;
    struct epilogue epilogue;
    float *dw;
    int64_t k;
};

static void store_epilogue(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                           int64_t n0, int64_t cols)
{
    const struct linear *l = g->context;
    epilogue_store(&l->epilogue, tile, m0, rows, n0, cols);
}

int cpu_linear(struct device *d, const struct linear_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "linear");
    if (int8_suits(a->w, a->k)) return int8_linear(d, a, err);
    struct linear l = {.a = {a->x, a->ldx, a->dtype}};
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->k, 1, 1}, PACK_FORWARD,
                      panel_dtype(a->dtype), err);
    if (!rc) rc = epilogue_start(&l.epilogue, d, &a->epilogue, a->out, 0, err);
    if (rc) return rc;
    l.epilogue.y = a->y;
    l.epilogue.ldy = a->ldy;
    l.epilogue.dtype = a->dtype;
    struct gemm g = {.m = a->m,
                     .n = a->out,
                     .k = a->k,
                     .a_dtype = panel_dtype(a->dtype),
                     .fill_a = fill_rows,
                     .b = b.packed,
                     .file = b.packed ? NULL : &b.file,
                     .store = store_epilogue,
                     .context = &l};
    gemm_run(d, &g);
    return 0;
}

static void store_geglu(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                        int64_t n0, int64_t cols)
{
    const struct linear *l = g->context;
    epilogue_store_geglu(&l->epilogue, g->partner, tile, m0, rows, n0, cols);
}

/* Gates of a whole packed weight may begin inside a panel: then both are summed first. */
struct apart {
    const struct linear_args *a;
    const float *z; /* [m,out] */
};

ALWAYS_INLINE void geglu_row(const struct apart *p, int64_t row, const enum dtype t)
{
    const int64_t half = p->a->out / 2;
    const float *z = p->z + row * p->a->out;
    for (int64_t i = 0; i < half; i += VL) {
        int lanes = half - i < VL ? (int)(half - i) : VL;
        vf gate = vf_load_n(z, half + i, DTYPE_F32, lanes);
        vf_store_n(p->a->y, row * p->a->ldy + i, t,
                   vf_load_n(z, i, DTYPE_F32, lanes) * vf_gelu(gate, t == DTYPE_BF16), lanes);
    }
}

static void geglu_task(void *context, int64_t task, int worker)
{
    const struct apart *p = context;
    CPU_BY_DTYPE(p->a->dtype, geglu_row, p, task);
}

int cpu_linear_geglu(struct device *d, const struct linear_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "linear_geglu");
    const int64_t half = a->out / 2;
    if (int8_suits(a->w, a->k) && half % GEMM_NR == 0) return int8_linear_geglu(d, a, err);
    struct linear l = {.a = {a->x, a->ldx, a->dtype}};
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->k, 1, 1}, PACK_FORWARD,
                      panel_dtype(a->dtype), err);
    if (!rc && !b.packed)
        rc = gemm_reserve(d, 2 * a->k, half, panel_dtype(a->dtype), err); /* two of each */
    const bool apart = b.packed && half % GEMM_NR;
    const size_t wide = apart ? (size_t)(a->m * a->out) * 4 : 0;
    if (!rc) rc = epilogue_start(&l.epilogue, d, &a->epilogue, a->out, wide, err);
    if (rc) return rc;
    l.epilogue.y = apart ? cpu_scratch_take(d, wide) : a->y;
    l.epilogue.ldy = apart ? a->out : a->ldy;
    l.epilogue.dtype = apart ? DTYPE_F32 : a->dtype;
    struct gemm g = {.m = a->m,
                     .n = apart ? a->out : half,
                     .k = a->k,
                     .a_dtype = panel_dtype(a->dtype),
                     .fill_a = fill_rows,
                     .b = b.packed,
                     .file = b.packed ? NULL : &b.file,
                     .partner = apart ? 0 : half,
                     .store = apart ? store_epilogue : store_geglu,
                     .context = &l};
    gemm_run(d, &g);
    struct apart rows = {a, l.epilogue.y};
    if (apart) pool_run(cpu_state(d)->pool, a->m, geglu_task, &rows);
    return 0;
}

int cpu_linear_dx(struct device *d, const struct linear_dx_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "linear_dx");
    struct linear l = {.a = {a->dy, a->ldy, a->dtype}};
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->k, 1, 1}, PACK_BACKWARD,
                      panel_dtype(a->dtype), err);
    if (!rc) rc = epilogue_start(&l.epilogue, d, &(struct epilogue_args){0}, a->k, 0, err);
    if (rc) return rc;
    l.epilogue.y = a->dx;
    l.epilogue.ldy = a->ldx;
    l.epilogue.dtype = a->dtype;
    l.epilogue.accumulate = a->accumulate;
    struct gemm g = {.m = a->m,
                     .n = a->k,
                     .k = a->out,
                     .a_dtype = panel_dtype(a->dtype),
                     .fill_a = fill_rows,
                     .b = b.packed,
                     .file = b.packed ? NULL : &b.file,
                     .store = store_epilogue,
                     .context = &l};
    gemm_run(d, &g);
    return 0;
}

static void fill_x(const struct gemm *g, float *panels, int64_t k0, int64_t count, int64_t n0,
                   int64_t cols)
{
    const struct linear *l = g->context;
    fill_panels(&l->b, panels, k0, count, n0, cols);
}

static void store_dw(const struct gemm *g, const float *tile, int64_t m0, int64_t rows, int64_t n0,
                     int64_t cols)
{
    const struct linear *l = g->context;
    for (int64_t r = 0; r < rows; r++) {
        float *to = l->dw + (m0 + r) * l->k + n0;
        for (int64_t i = 0; i < cols; i++) to[i] += tile[r * GEMM_NR + i];
    }
}

int cpu_linear_dw(struct device *d, const struct linear_dw_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "linear_dw");
    struct linear l = {
        .a = {a->dy, a->ldy, a->dtype}, .b = {a->x, a->ldx, a->dtype}, .dw = a->dw, .k = a->k};
    struct gemm g = {.m = a->out,
                     .n = a->k,
                     .k = a->m,
                     .a_dtype = DTYPE_F32,
                     .fill_a = fill_transposed,
                     .fill_b = fill_x,
                     .store = store_dw,
                     .context = &l};
    gemm_run(d, &g);
    return 0;
}
