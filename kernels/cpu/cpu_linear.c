#include "kernels/cpu/cpu_epilogue.h"
#include "kernels/cpu/cpu_fill.h"
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
    struct linear l = {.a = {a->x, a->ldx, a->dtype}};
    struct pack_b b;
    int rc =
        pack_get(&b, d, a->w, (struct pack_shape){a->out, a->k, 1, 1}, PACK_FORWARD, a->dtype, err);
    if (!rc) rc = epilogue_start(&l.epilogue, d, &a->epilogue, a->out, 0, err);
    if (rc) return rc;
    l.epilogue.y = a->y;
    l.epilogue.ldy = a->ldy;
    l.epilogue.dtype = a->dtype;
    struct gemm g = {.m = a->m,
                     .n = a->out,
                     .k = a->k,
                     .a_dtype = a->dtype,
                     .fill_a = fill_rows,
                     .b = b.packed,
                     .file = b.packed ? NULL : &b.file,
                     .store = store_epilogue,
                     .context = &l};
    gemm_run(d, &g);
    return 0;
}

int cpu_linear_dx(struct device *d, const struct linear_dx_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "linear_dx");
    struct linear l = {.a = {a->dy, a->ldy, a->dtype}};
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->k, 1, 1}, PACK_BACKWARD, a->dtype,
                      err);
    if (!rc) rc = epilogue_start(&l.epilogue, d, &(struct epilogue_args){0}, a->k, 0, err);
    if (rc) return rc;
    l.epilogue.y = a->dx;
    l.epilogue.ldy = a->ldx;
    l.epilogue.dtype = a->dtype;
    l.epilogue.accumulate = a->accumulate;
    struct gemm g = {.m = a->m,
                     .n = a->k,
                     .k = a->out,
                     .a_dtype = a->dtype,
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
