/* reduce.cu - sums over columns and over everything, in a fixed order, and what training does with
 * gradients. Contracts in kernels.h, launchers in pointwise.h. */
#include "kernels/cuda/pointwise_kernel.h"
#include "kernels/adamw8.h"

/* ---- column sums: 32 columns a block, 8 rows at a time, the eight added in order ---- */

template <class T> KERNEL(block_threads, 4) column_sum_kernel(const column_sum_args p)
{
    const shared_t sums = shared_base();
    const int x = thread_index() % 32, y = thread_index() / 32;
    const int64_t column = (int64_t)block_x() * 32 + x;
    const T *from = (const T *)p.x + block_y() * p.rows * p.cols + column;
    float sum = 0.0f;
    if (column < p.cols)
        for (int64_t r = y; r < p.rows; r += 8) sum += to_float(global_load<T>(from + r * p.cols));
    shared_store(sums + thread_index() * 4, sum);
    block_sync();
    if (y != 0 || column >= p.cols) return;
    for (int i = 1; i < 8; i++) sum += shared_load<float>(sums + (i * 32 + x) * 4);
    const int64_t at = block_y() * p.cols + column;
    if (p.sum_dtype == DTYPE_F32) {
        float *to = (float *)p.sum + at;
        global_store(to, global_load<float>(to) + sum);
    } else if constexpr (sizeof(T) == 2) {
        T *to = (T *)p.sum + at;
        global_store(to, to_storage<T>(to_float(global_load<T>(to)) + sum));
    }
}

extern "C" int pointwise_column_sum(const struct column_sum_args *a, void *stream)
{
    dim3 grid((unsigned)((a->cols + 31) / 32), (unsigned)a->groups);
    if (a->dtype == DTYPE_F32)
        return launch<column_sum_kernel<float>>("column_sum", grid, block_threads,
                                                block_threads * 4, stream, *a);
    if (a->dtype == DTYPE_F16)
        return launch<column_sum_kernel<f16>>("column_sum", grid, block_threads, block_threads * 4,
                                              stream, *a);
    return launch<column_sum_kernel<bf16>>("column_sum", grid, block_threads, block_threads * 4,
                                           stream, *a);
}

/* ---- sums over everything ---- */

/* Each thread adds 16 elements in double, the block adds its threads' sums as a tree in shared
 * memory: the same order every time. */
DEVICE void block_sum(double *to, double v)
{
    const shared_t sums = shared_base();
    const int t = thread_index();
    shared_store(sums + t * 8, v);
    for (int half = block_threads / 2; half; half /= 2) {
        block_sync();
        if (t < half)
            shared_store(sums + t * 8, shared_load<double>(sums + t * 8) +
                                           shared_load<double>(sums + (t + half) * 8));
    }
    if (t == 0) global_store(to, shared_load<double>(sums));
}

struct norm_params {
    norm_args a;
    double *partial;
};

template <class T> KERNEL(block_threads, 4) norm_kernel(const norm_params p)
{
    double sum = 0;
    for (int i = 0; i < POINTWISE_SUM_WIDTH / block_threads; i++) {
        int64_t at = (int64_t)block_x() * POINTWISE_SUM_WIDTH + i * block_threads + thread_index();
        if (at < p.a.count) {
            double v = to_float(global_load<T>((const T *)p.a.x + at));
            sum += v * v;
        }
    }
    block_sum(p.partial + block_x(), sum);
}

struct mse_params {
    mse_args a;
    double *partial;
    int sums;
};

template <class T> KERNEL(block_threads, 4) mse_kernel(const mse_params p)
{
    double sum = 0;
    for (int i = 0; i < POINTWISE_SUM_WIDTH / block_threads; i++) {
        int64_t at = (int64_t)block_x() * POINTWISE_SUM_WIDTH + i * block_threads + thread_index();
        if (at < p.a.count) {
            double off = (double)to_float(global_load<T>((const T *)p.a.y + at)) -
                         to_float(global_load<T>((const T *)p.a.target + at));
            double weight = p.a.weight ? global_load<float>((const float *)p.a.weight + at) : 1.0f;
            sum += weight * off * off;
        }
    }
    block_sum(p.partial + block_x(), sum);
}

KERNEL(block_threads, 1)
mse_end_kernel(const mse_params p)
{
    if (thread_index() != 0) return;
    double sum = 0;
    for (int i = 0; i < p.sums; i++) sum += global_load<double>(p.partial + i);
    global_store(p.a.loss, (float)(sum / (double)p.a.count));
}

template <class T> KERNEL(block_threads, 4) mse_grad_kernel(const mse_args p)
{
    const int64_t at = item();
    if (at >= p.count) return;
    float weight = p.weight ? global_load<float>((const float *)p.weight + at) : 1.0f;
    float off = to_float(global_load<T>((const T *)p.y + at)) -
                to_float(global_load<T>((const T *)p.target + at));
    global_store((T *)p.dy + at,
                 to_storage<T>((float)(2 * p.scale / (double)p.count) * weight * off));
}

template <class T> static int norm_launch(const norm_params &p, void *stream)
{
    unsigned sums = (unsigned)((p.a.count + POINTWISE_SUM_WIDTH - 1) / POINTWISE_SUM_WIDTH);
    return launch<norm_kernel<T>>("norm", dim3(sums), block_threads, block_threads * 8, stream, p);
}

extern "C" int pointwise_norm(const struct norm_args *a, double *partial, void *stream)
{
    norm_params p = {*a, partial};
    if (a->dtype == DTYPE_F32) return norm_launch<float>(p, stream);
    if (a->dtype == DTYPE_F16) return norm_launch<f16>(p, stream);
    return norm_launch<bf16>(p, stream);
}

template <class T> static int mse_launch(const mse_params &p, void *stream)
{
    return launch<mse_kernel<T>>("mse", dim3((unsigned)p.sums), block_threads, block_threads * 8,
                                 stream, p);
}

extern "C" int pointwise_mse(const struct mse_args *a, double *partial, void *stream)
{
    mse_params p = {*a, partial, (int)((a->count + POINTWISE_SUM_WIDTH - 1) / POINTWISE_SUM_WIDTH)};
    int rc = a->dtype == DTYPE_F32   ? mse_launch<float>(p, stream)
             : a->dtype == DTYPE_F16 ? mse_launch<f16>(p, stream)
                                     : mse_launch<bf16>(p, stream);
    if (rc) return rc;
    return launch<mse_end_kernel>("mse_end", dim3(1), block_threads, 0, stream, p);
}

extern "C" int pointwise_mse_grad(const struct mse_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, mse_grad_kernel, "mse_grad", blocks_for(a->count), stream, *a);
}

/* ---- AdamW ---- */

struct adamw_params {
    float *param, *m, *v;
    const float *grad;
    int64_t count;
    float lr, beta1, beta2, rest1, rest2, eps, weight_decay, grad_scale, m_unbias, v_unbias;
};

KERNEL(block_threads, 4)
adamw_kernel(const adamw_params p)
{
    const int64_t at = item();
    if (at >= p.count) return;
    const float g = global_load<float>(p.grad + at) * p.grad_scale;
    const float m = p.beta1 * global_load<float>(p.m + at) + p.rest1 * g;
    const float v = p.beta2 * global_load<float>(p.v + at) + p.rest2 * g * g;
    const float param = global_load<float>(p.param + at);
    const float step = m * p.m_unbias / (sqrtf(v * p.v_unbias) + p.eps);
    global_store(p.m + at, m);
    global_store(p.v + at, v);
    global_store(p.param + at, param - p.lr * (step + p.weight_decay * param));
}

static adamw_params adamw_fill(const struct adamw_args *a)
{
    return adamw_params{
        (float *)a->param,
        (float *)a->m,
        (float *)a->v,
        (const float *)a->grad,
        a->count,
        (float)a->lr,
        (float)a->beta1,
        (float)a->beta2,
        (float)(1 - a->beta1),
        (float)(1 - a->beta2),
        (float)a->eps,
        (float)a->weight_decay,
        (float)a->grad_scale,
        (float)(1 / (1 - pow(a->beta1, (double)a->step))),
        (float)(1 / (1 - pow(a->beta2, (double)a->step))),
    };
}

extern "C" int pointwise_adamw(const struct adamw_args *a, void *stream)
{
    return launch<adamw_kernel>("adamw", blocks_for(a->count), block_threads, 0, stream,
                                adamw_fill(a));
}

/* ---- AdamW with moments of 8 bits (adamw8.h): a thread block is a block of the moments ---- */

static_assert(block_threads == ADAMW8_BLOCK, "a thread a value");

struct adamw8_params {
    adamw_params p;
    uint8_t *m, *v;
    float *m_scale, *v_scale;
    float m_table[256], v_table[256];
};

/* The largest of the block's values; every thread gets it. `room` is block_threads floats. */
DEVICE float block_top(shared_t room, float v)
{
    const int t = thread_index();
    shared_store(room + t * 4, v);
    for (int half = block_threads / 2; half; half /= 2) {
        block_sync();
        if (t < half)
            shared_store(room + t * 4, fmaxf(shared_load<float>(room + t * 4),
                                             shared_load<float>(room + (t + half) * 4)));
    }
    block_sync();
    return shared_load<float>(room);
}

DEVICE uint8_t nearest_code(const float *table, float x)
{
    int at = 0;
    for (int half = 128; half; half /= 2)
        if (x > .5f * (table[at + half - 1] + table[at + half])) at += half;
    return (uint8_t)at;
}

KERNEL(block_threads, 4)
adamw8_kernel(const adamw8_params q)
{
    const adamw_params &p = q.p;
    const int64_t at = item();
    const bool inside = at < p.count;
    float m = 0, v = 0;
    if (inside) {
        const float g = global_load<float>(p.grad + at) * p.grad_scale;
        const int m_code = global_load<uint8_t>(q.m + at), v_code = global_load<uint8_t>(q.v + at);
        m = p.beta1 * (q.m_table[m_code] * global_load<float>(q.m_scale + block_x())) + p.rest1 * g;
        v = p.beta2 * (q.v_table[v_code] * global_load<float>(q.v_scale + block_x())) +
            p.rest2 * g * g;
        const float param = global_load<float>(p.param + at);
        const float step = m * p.m_unbias / (sqrtf(v * p.v_unbias) + p.eps);
        global_store(p.param + at, param - p.lr * (step + p.weight_decay * param));
    }
    const float m_top = block_top(shared_base(), fabsf(m));
    const float v_top = block_top(shared_base() + block_threads * 4, v);
    if (inside) {
        global_store(q.m + at, nearest_code(q.m_table, m_top > 0 ? m / m_top : 0));
        global_store(q.v + at, nearest_code(q.v_table, v_top > 0 ? v / v_top : 0));
    }
    if (thread_index() == 0) {
        global_store(q.m_scale + block_x(), m_top);
        global_store(q.v_scale + block_x(), v_top);
    }
}

extern "C" int pointwise_adamw8(const struct adamw8_args *a, void *stream)
{
    adamw8_params q = {adamw_fill(&a->base), (uint8_t *)a->base.m, (uint8_t *)a->base.v,
                       (float *)a->m_scale,  (float *)a->v_scale,  {},
                       {}};
    q.p.m = q.p.v = nullptr;
    adamw8_table table;
    adamw8_table_fill(&table, true);
    memcpy(q.m_table, table.value, sizeof q.m_table);
    adamw8_table_fill(&table, false);
    memcpy(q.v_table, table.value, sizeof q.v_table);
    return launch<adamw8_kernel>("adamw8", blocks_for(a->base.count), block_threads,
                                 2 * block_threads * 4, stream, q);
}
