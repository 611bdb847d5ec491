#include "kernels/cpu/cpu_fill.h"

#include "kernels/cpu/cpu_transpose.h"

void fill_rows(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
               int64_t count)
{
    const struct matrix *x = g->context;
    int64_t bytes = x->dtype == DTYPE_F32 ? 4 : 2;
    for (int64_t r = 0; r < rows; r++) {
        char *to = (char *)panel + r * GEMM_PITCH;
        const char *from = (const char *)x->data + ((m0 + r) * x->ld + k0) * bytes;
        if (g->a_dtype == x->dtype)
            copy_elements(to, from, count * bytes);
        else
            widen_elements((float *)to, (const uint16_t *)from, count);
        if (g->a_dtype == DTYPE_BF16 && count % 2) ((uint16_t *)to)[count] = 0;
    }
}

/* bf16 columns are widened into a square of floats first */
static void transpose_half(const struct matrix *x, char *panel, int64_t m0, int64_t rows,
                           int64_t k0, int64_t count)
{
    float wide[VL * VL];
    for (int64_t k = 0; k < count; k += VL)
        for (int64_t r = 0; r < rows; r += VL) {
            int64_t height = count - k < VL ? count - k : VL, width = rows - r < VL ? rows - r : VL;
            for (int64_t i = 0; i < height; i++)
                *(vf *)(wide + i * VL) =
                    vf_load_n(x->data, (k0 + k + i) * x->ld + m0 + r, DTYPE_BF16, (int)width);
            transpose_words(panel + r * GEMM_PITCH + k * 4, GEMM_PITCH, wide, VL * 4, height, width,
                            false);
        }
}

void fill_transposed(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                     int64_t count)
{
    const struct matrix *x = g->context;
    if (x->dtype == DTYPE_F32)
        transpose_words(panel, GEMM_PITCH, (const float *)x->data + k0 * x->ld + m0, x->ld * 4,
                        count, rows, false);
    else
        transpose_half(x, panel, m0, rows, k0, count);
}

ALWAYS_INLINE void panels_of(const struct matrix *x, float *panels, int64_t k0, int64_t count,
                             int64_t n0, int64_t cols, const enum dtype t)
{
    for (int64_t k = 0; k < count; k++)
        panel_row(panels, count, k, at(x->data, (k0 + k) * x->ld + n0, t), cols, t);
}

void fill_panels(const struct matrix *x, float *panels, int64_t k0, int64_t count, int64_t n0,
                 int64_t cols)
{
    CPU_BY_DTYPE(x->dtype, panels_of, x, panels, k0, count, n0, cols);
}
