#include "kernels/cpu/cpu_epilogue.h"

int epilogue_start(struct epilogue *e, struct device *d, const struct epilogue_args *a, int64_t n,
                   size_t extra, struct error *err)
{
    int rc = cpu_scratch_start(d, (a->bias ? (size_t)n * 4 : 0) + extra + 256, err);
    if (rc) return rc;
    e->n = n;
    e->row = a->row;
    e->rows_per_image = a->rows_per_image > 0 ? a->rows_per_image : 1;
    e->act = a->act;
    e->add = a->add;
    if (a->bias) {
        float *bias = cpu_scratch_take(d, (size_t)n * 4);
        dtype_convert(bias, DTYPE_F32, a->bias, a->bias_dtype, n);
        e->bias = bias;
    }
    return 0;
}

static int64_t place(const struct epilogue *e, int64_t m)
{
    if (!e->phase_w) return m;
    int64_t x = m % e->phase_w, line = m / e->phase_w;
    int64_t y = line % e->phase_h, image = line / e->phase_h;
    return ((image * e->phase_h + y) * 2 + e->phase_y) * 2 * e->phase_w + 2 * x + e->phase_x;
}

ALWAYS_INLINE vf finish(const struct epilogue *e, vf z, int64_t n, int64_t y_at, int64_t row_at,
                        const int lanes, const enum activation act, const enum dtype t)
{
    if (e->bias)
        z += lanes == VL ? vf_load(e->bias, n, DTYPE_F32) : vf_load_n(e->bias, n, DTYPE_F32, lanes);
    if (e->row) z += lanes == VL ? vf_load(e->row, row_at, t) : vf_load_n(e->row, row_at, t, lanes);
    z = vf_activate(z, act);
    if (e->add) z += lanes == VL ? vf_load(e->add, y_at, t) : vf_load_n(e->add, y_at, t, lanes);
    if (e->accumulate) z += lanes == VL ? vf_load(e->y, y_at, t) : vf_load_n(e->y, y_at, t, lanes);
    return z;
}

ALWAYS_INLINE void store(const struct epilogue *e, const float *tile, int64_t m0, int64_t rows,
                         int64_t n0, int64_t cols, const enum activation act, const enum dtype t)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t y_at = place(e, m0 + r) * e->ldy + n0;
        int64_t row_at = e->row ? (m0 + r) / e->rows_per_image * e->n + n0 : 0;
        const float *z = tile + r * GEMM_NR;
        FOR_VECTORS(
            i, cols,
            vf_store(e->y, y_at + i, t,
                     finish(e, vf_load(z, i, DTYPE_F32), n0 + i, y_at + i, row_at + i, VL, act, t)),
            vf_store_n(
                e->y, y_at + i, t,
                finish(e, vf_load(z, i, DTYPE_F32), n0 + i, y_at + i, row_at + i, lanes, act, t),
                lanes));
    }
}

void epilogue_store(const struct epilogue *e, const float *tile, int64_t m0, int64_t rows,
                    int64_t n0, int64_t cols)
{
    switch (e->act) {
    case ACT_NONE: CPU_BY_DTYPE(e->dtype, store, e, tile, m0, rows, n0, cols, ACT_NONE); break;
    case ACT_SILU: CPU_BY_DTYPE(e->dtype, store, e, tile, m0, rows, n0, cols, ACT_SILU); break;
    default: CPU_BY_DTYPE(e->dtype, store, e, tile, m0, rows, n0, cols, e->act);
    }
}

ALWAYS_INLINE void store_geglu(const struct epilogue *e, int64_t partner, const float *tile,
                               int64_t m0, int64_t rows, int64_t n0, int64_t cols,
                               const enum dtype t)
{
    for (int64_t i = 0; i < cols; i += VL) {
        int lanes = cols - i < VL ? (int)(cols - i) : VL;
        vf bias = {0}, gate_bias = {0};
        if (e->bias) {
            bias = vf_load_n(e->bias, n0 + i, DTYPE_F32, lanes);
            gate_bias = vf_load_n(e->bias, n0 + partner + i, DTYPE_F32, lanes);
        }
        for (int64_t r = 0; r < rows; r++) {
            const float *z = tile + r * 2 * GEMM_NR + i;
            vf value = vf_load(z, 0, DTYPE_F32) + bias;
            vf gate = vf_load(z, GEMM_NR, DTYPE_F32) + gate_bias;
            vf y = value * vf_gelu(gate, t == DTYPE_BF16);
            if (lanes == VL)
                vf_store(e->y, (m0 + r) * e->ldy + n0 + i, t, y);
            else
                vf_store_n(e->y, (m0 + r) * e->ldy + n0 + i, t, y, lanes);
        }
    }
}

void epilogue_store_geglu(const struct epilogue *e, int64_t partner, const float *tile, int64_t m0,
                          int64_t rows, int64_t n0, int64_t cols)
{
    CPU_BY_DTYPE(e->dtype, store_geglu, e, partner, tile, m0, rows, n0, cols);
}
