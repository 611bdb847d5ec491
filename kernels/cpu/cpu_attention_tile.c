#include "kernels/cpu/cpu_attention_tile.h"

#include "kernels/cpu/cpu_math.h"

/* acc = A . B: rows by two vectors in registers */
ALWAYS_INLINE void product(vf acc[GEMM_MR][2], const int rows, const char *restrict a,
                           const char *restrict b, int64_t steps, const enum dtype dt)
{
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (vf){0};
#pragma GCC unroll 1
    for (int64_t s = 0; s < steps; s++) {
        vf low = *(const vf *)b, high = *(const vf *)(b + VL * 4);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            if (dt == DTYPE_BF16) {
                vu word = (vu){0} + *(const uint32_t *)(a + i * 4);
                acc[i][0] = gemm_step_bf16(acc[i][0], word, (vu)low);
                acc[i][1] = gemm_step_bf16(acc[i][1], word, (vu)high);
            } else {
                vf word = vf_set(*(const float *)(a + i * 4));
                acc[i][0] += word * low;
                acc[i][1] += word * high;
            }
        }
        a += rows * 4;
        b += GEMM_NR * 4;
    }
}

ALWAYS_INLINE void product_tile(const int rows, float *restrict c, const char *restrict a,
                                const char *restrict b, int64_t steps, bool accumulate,
                                const enum dtype dt)
{
    vf acc[GEMM_MR][2];
    product(acc, rows, a, b, steps, dt);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            vf *to = (vf *)(c + i * GEMM_NR + v * VL);
            if (accumulate) acc[i][v] += *to;
            *to = acc[i][v];
        }
}

ALWAYS_INLINE void soft_tile(const int rows, struct soft *restrict s, char *restrict p,
                             const char *restrict a, const char *restrict b, int64_t steps,
                             const bool rough, const enum dtype dt)
{
    vf acc[GEMM_MR][2];
    product(acc, rows, a, b, steps, dt);
    if (s->odd) acc[rows - 1][0] = acc[rows - 1][1] = vf_set(ATTENTION_MASKED);
    if (s->find_top)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            vf top = acc[0][v];
#pragma GCC unroll 16
            for (int i = 1; i < rows; i++) top = vf_max(top, acc[i][v]);
            s->top[v] = top * s->factor;
        }
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vf top = s->top[v], sum = s->sum[v];
#pragma GCC unroll 16
        for (int i = 0; i < rows; i += 2) {
            vf e = vf_exp2(soft_power(s, acc[i][v], top, rough), rough);
            vf f = vf_exp2(soft_power(s, acc[i + 1][v], top, rough), rough);
            sum += e;
            sum += f;
            if (dt == DTYPE_BF16) {
                *(vu *)(p + (i / 2 * GEMM_NR + v * VL) * 4) = pair_words(e, f);
            } else {
                *(vf *)(p + (i * GEMM_NR + v * VL) * 4) = e;
                *(vf *)(p + ((i + 1) * GEMM_NR + v * VL) * 4) = f;
            }
        }
        s->sum[v] = sum;
    }
}

#define PRODUCT(rows)                                                                              \
    static void product_f32_##rows(float *c, const char *a, const char *b, int64_t steps,          \
                                   bool add)                                                       \
    {                                                                                              \
        product_tile(rows, c, a, b, steps, add, DTYPE_F32);                                        \
    }                                                                                              \
    static void product_bf16_##rows(float *c, const char *a, const char *b, int64_t steps,         \
                                    bool add)                                                      \
    {                                                                                              \
        product_tile(rows, c, a, b, steps, add, DTYPE_BF16);                                       \
    }
#define SOFT(rows)                                                                                 \
    static void soft_f32_##rows(struct soft *s, char *p, const char *a, const char *b,             \
                                int64_t steps)                                                     \
    {                                                                                              \
        soft_tile(rows, s, p, a, b, steps, false, DTYPE_F32);                                      \
    }                                                                                              \
    static void soft_bf16_##rows(struct soft *s, char *p, const char *a, const char *b,            \
                                 int64_t steps)                                                    \
    {                                                                                              \
        soft_tile(rows, s, p, a, b, steps, false, DTYPE_BF16);                                     \
    }                                                                                              \
    static void soft_rough_##rows(struct soft *s, char *p, const char *a, const char *b,           \
                                  int64_t steps)                                                   \
    {                                                                                              \
        soft_tile(rows, s, p, a, b, steps, true, DTYPE_BF16);                                      \
    }
PRODUCT(1)
PRODUCT(2)
PRODUCT(3)
PRODUCT(4)
PRODUCT(5)
PRODUCT(6)
SOFT(2)
SOFT(4)
SOFT(6)
#if GEMM_MR > 6
PRODUCT(7)
PRODUCT(8)
PRODUCT(9)
PRODUCT(10)
PRODUCT(11)
PRODUCT(12)
PRODUCT(13)
PRODUCT(14)
SOFT(8)
SOFT(10)
SOFT(12)
SOFT(14)
#endif

#define PRODUCTS(rows)                                                                             \
    {                                                                                              \
        product_f32_##rows, product_bf16_##rows                                                    \
    }
typedef void (*product_function)(float *, const char *, const char *, int64_t, bool);
static const product_function products[GEMM_MR][2] = {
    PRODUCTS(1),  PRODUCTS(2),  PRODUCTS(3), PRODUCTS(4),  PRODUCTS(5),  PRODUCTS(6),
#if GEMM_MR > 6
    PRODUCTS(7),  PRODUCTS(8),  PRODUCTS(9), PRODUCTS(10), PRODUCTS(11), PRODUCTS(12),
    PRODUCTS(13), PRODUCTS(14),
#endif
};

#define SOFTS(rows)                                                                                \
    {                                                                                              \
        soft_f32_##rows, soft_bf16_##rows, soft_rough_##rows                                       \
    }
typedef void (*soft_function)(struct soft *, char *, const char *, const char *, int64_t);
static const soft_function softs[GEMM_MR / 2][3] = {
    SOFTS(2), SOFTS(4),  SOFTS(6),
#if GEMM_MR > 6
    SOFTS(8), SOFTS(10), SOFTS(12), SOFTS(14),
#endif
};

void attention_product(float *c, const char *a, const char *b, int64_t rows, int64_t steps,
                       enum dtype dtype, bool accumulate)
{
    products[rows - 1][dtype == DTYPE_BF16](c, a, b, steps, accumulate);
}

void attention_soften(struct soft *s, char *p, const char *a, const char *b, int64_t rows,
                      int64_t steps)
{
    int kind = s->dtype == DTYPE_F32 ? 0 : s->rough ? 2 : 1;
    softs[rows / 2 - 1][kind](s, p, a, b, steps);
}
