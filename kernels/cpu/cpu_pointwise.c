/* One element in, one out: activations, GEGLU, sums and products. */
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/cpu_table.h"

#define SPAN 16384 /* elements of one task */

/* Runs `body` (an always-inline function of args, first element, lanes, dtype) over a span. */
#define SPAN_TASK(name, args, body)                                                                \
    ALWAYS_INLINE void name##_span(const struct args *a, int64_t from, int64_t to,                 \
                                   const enum dtype t)                                             \
    {                                                                                              \
        int64_t i = from;                                                                          \
        for (; i + VL <= to; i += VL) body(a, i, VL, t);                                           \
        if (i < to) body(a, i, (int)(to - i), t);                                                  \
    }                                                                                              \
    static void name##_task(void *context, int64_t task, int worker)                               \
    {                                                                                              \
        const struct args *a = context;                                                            \
        int64_t from = task * SPAN, to = from + SPAN < a->count ? from + SPAN : a->count;          \
        CPU_BY_DTYPE(a->dtype, name##_span, a, from, to);                                          \
    }                                                                                              \
    static void name##_all(struct device *d, const struct args *a)                                 \
    {                                                                                              \
        pool_run(cpu_state(d)->pool, (a->count + SPAN - 1) / SPAN, name##_task, (void *)a);        \
    }

ALWAYS_INLINE vf some(const void *x, int64_t i, const enum dtype t, int lanes)
{
    return lanes == VL ? vf_load(x, i, t) : vf_load_n(x, i, t, lanes);
}

ALWAYS_INLINE void put(void *y, int64_t i, const enum dtype t, vf value, int lanes)
{
    if (lanes == VL)
        vf_store(y, i, t, value);
    else
        vf_store_n(y, i, t, value, lanes);
}

ALWAYS_INLINE void activation_body(const struct activation_args *a, int64_t i, int lanes,
                                   const enum dtype t)
{
    put(a->y, i, t, vf_activate(some(a->x, i, t, lanes), a->act), lanes);
}
SPAN_TASK(activation, activation_args, activation_body)

int cpu_activation(struct device *d, const struct activation_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "activation");
    activation_all(d, a);
    return 0;
}

ALWAYS_INLINE void activation_grad_body(const struct activation_args *a, int64_t i, int lanes,
                                        const enum dtype t)
{
    vf dx = some(a->dy, i, t, lanes) * vf_slope(some(a->x, i, t, lanes), a->act);
    if (a->accumulate) dx += some(a->dx, i, t, lanes);
    put(a->dx, i, t, dx, lanes);
}
SPAN_TASK(activation_grad, activation_args, activation_grad_body)

int cpu_activation_grad(struct device *d, const struct activation_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "activation_grad");
    activation_grad_all(d, a);
    return 0;
}

ALWAYS_INLINE void mul_body(const struct mul_args *a, int64_t i, int lanes, const enum dtype t)
{
    vf y = some(a->a, i, t, lanes) * some(a->b, i, t, lanes);
    if (a->accumulate) y += some(a->y, i, t, lanes);
    put(a->y, i, t, y, lanes);
}
SPAN_TASK(mul, mul_args, mul_body)

/* b repeats: rows of b_count */
ALWAYS_INLINE void mul_row(const struct mul_args *a, int64_t row, const enum dtype t)
{
    int64_t base = row * a->b_count;
    int64_t count = a->count - base < a->b_count ? a->count - base : a->b_count;
    for (int64_t i = 0; i < count; i += VL) {
        int lanes = count - i < VL ? (int)(count - i) : VL;
        vf y = some(a->a, base + i, t, lanes) * some(a->b, i, t, lanes);
        if (a->accumulate) y += some(a->y, base + i, t, lanes);
        put(a->y, base + i, t, y, lanes);
    }
}

static void mul_row_task(void *context, int64_t task, int worker)
{
    const struct mul_args *a = context;
    int64_t rows = (a->count + a->b_count - 1) / a->b_count;
    int64_t block = a->b_count < SPAN ? SPAN / a->b_count : 1;
    for (int64_t r = task * block; r < (task + 1) * block && r < rows; r++)
        CPU_BY_DTYPE(a->dtype, mul_row, a, r);
}

int cpu_mul(struct device *d, const struct mul_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "mul");
    if (!a->b_count || a->b_count >= a->count) {
        mul_all(d, a);
        return 0;
    }
    int64_t rows = (a->count + a->b_count - 1) / a->b_count;
    int64_t block = a->b_count < SPAN ? SPAN / a->b_count : 1;
    pool_run(cpu_state(d)->pool, (rows + block - 1) / block, mul_row_task, (void *)a);
    return 0;
}

ALWAYS_INLINE void add_body(const struct add_args *a, int64_t i, int lanes, const enum dtype t)
{
    vf y = (float)a->alpha * some(a->a, i, t, lanes);
    if (a->b) y += (float)a->beta * some(a->b, i, t, lanes);
    put(a->y, i, t, y, lanes);
}
SPAN_TASK(add, add_args, add_body)

/* b repeats: rows of b_count */
ALWAYS_INLINE void add_row(const struct add_args *a, int64_t row, const enum dtype t)
{
    int64_t base = row * a->b_count;
    int64_t count = a->count - base < a->b_count ? a->count - base : a->b_count;
    for (int64_t i = 0; i < count; i += VL) {
        int lanes = count - i < VL ? (int)(count - i) : VL;
        vf y = (float)a->alpha * some(a->a, base + i, t, lanes) +
               (float)a->beta * some(a->b, i, t, lanes);
        put(a->y, base + i, t, y, lanes);
    }
}

static void add_row_task(void *context, int64_t task, int worker)
{
    const struct add_args *a = context;
    int64_t rows = (a->count + a->b_count - 1) / a->b_count;
    int64_t block = a->b_count < SPAN ? SPAN / a->b_count : 1;
    for (int64_t r = task * block; r < (task + 1) * block && r < rows; r++)
        CPU_BY_DTYPE(a->dtype, add_row, a, r);
}

int cpu_add(struct device *d, const struct add_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "add");
    if (!a->b || a->b_count >= a->count) {
        add_all(d, a);
        return 0;
    }
    int64_t rows = (a->count + a->b_count - 1) / a->b_count;
    int64_t block = a->b_count < SPAN ? SPAN / a->b_count : 1;
    pool_run(cpu_state(d)->pool, (rows + block - 1) / block, add_row_task, (void *)a);
    return 0;
}

static int64_t geglu_block(const struct geglu_args *a)
{
    return a->d < SPAN ? SPAN / a->d : 1;
}

ALWAYS_INLINE void geglu_row(const struct geglu_args *a, int64_t row, const enum dtype t)
{
    int64_t x = row * 2 * a->d, y = row * a->d;
    for (int64_t i = 0; i < a->d; i += VL) {
        int lanes = a->d - i < VL ? (int)(a->d - i) : VL;
        vf gate = some(a->x, x + a->d + i, t, lanes);
        put(a->y, y + i, t, some(a->x, x + i, t, lanes) * vf_gelu(gate, t == DTYPE_BF16), lanes);
    }
}

static void geglu_task(void *context, int64_t task, int worker)
{
    const struct geglu_args *a = context;
    int64_t block = geglu_block(a);
    for (int64_t r = task * block; r < (task + 1) * block && r < a->rows; r++)
        CPU_BY_DTYPE(a->dtype, geglu_row, a, r);
}

int cpu_geglu(struct device *d, const struct geglu_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "geglu");
    int64_t block = geglu_block(a);
    pool_run(cpu_state(d)->pool, (a->rows + block - 1) / block, geglu_task, (void *)a);
    return 0;
}

ALWAYS_INLINE void geglu_grad_row(const struct geglu_args *a, int64_t row, const enum dtype t)
{
    int64_t x = row * 2 * a->d, y = row * a->d;
    for (int64_t i = 0; i < a->d; i += VL) {
        int lanes = a->d - i < VL ? (int)(a->d - i) : VL;
        vf dy = some(a->dy, y + i, t, lanes);
        vf value = some(a->x, x + i, t, lanes), gate = some(a->x, x + a->d + i, t, lanes);
        vf dvalue = dy * vf_activate(gate, ACT_GELU);
        vf dgate = dy * value * vf_slope(gate, ACT_GELU);
        if (a->accumulate) {
            dvalue += some(a->dx, x + i, t, lanes);
            dgate += some(a->dx, x + a->d + i, t, lanes);
        }
        put(a->dx, x + i, t, dvalue, lanes);
        put(a->dx, x + a->d + i, t, dgate, lanes);
    }
}

static void geglu_grad_task(void *context, int64_t task, int worker)
{
    const struct geglu_args *a = context;
    int64_t block = geglu_block(a);
    for (int64_t r = task * block; r < (task + 1) * block && r < a->rows; r++)
        CPU_BY_DTYPE(a->dtype, geglu_grad_row, a, r);
}

int cpu_geglu_grad(struct device *d, const struct geglu_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "geglu_grad");
    int64_t block = geglu_block(a);
    pool_run(cpu_state(d)->pool, (a->rows + block - 1) / block, geglu_grad_task, (void *)a);
    return 0;
}
