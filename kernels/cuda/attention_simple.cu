/* attention_simple.cu - attention one row a warp, any storage and head size up to 512; the softmax
 * of the slab form; and the row sums of the backward. Contract in attention.h. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/chunk.h"
#include "kernels/cuda/wrap.h"

static constexpr int rows_threads = 128, rows_warps = rows_threads / 32;

/* Lane l of a warp holds elements l, l + 32, ... of a head's row. */
template <int HELD> struct held {
    float v[HELD];

    DEVICE void clear()
    {
        UNROLL
        for (int i = 0; i < HELD; i++) v[i] = 0.0f;
    }
    template <class T> DEVICE void load(const T *p, int d)
    {
        UNROLL
        for (int i = 0; i < HELD; i++) {
            int at = i * 32 + thread_index() % 32;
            v[i] = at < d ? to_float(global_load<T>(p + at)) : 0.0f;
        }
    }
    template <class T> DEVICE void store(T *p, int d, float factor, bool accumulate) const
    {
        UNROLL
        for (int i = 0; i < HELD; i++) {
            int at = i * 32 + thread_index() % 32;
            if (at >= d) continue;
            float x = v[i] * factor;
            if (accumulate) x += to_float(global_load<T>(p + at));
            global_store(p + at, to_storage<T>(x));
        }
    }
    DEVICE float dot(const held &o) const
    {
        float sum = 0.0f;
        UNROLL
        for (int i = 0; i < HELD; i++) sum += v[i] * o.v[i];
        return warp_sum(sum);
    }
    DEVICE void add(float factor, const held &o)
    {
        UNROLL
        for (int i = 0; i < HELD; i++) v[i] += factor * o.v[i];
    }
    DEVICE void scale(float factor)
    {
        UNROLL
        for (int i = 0; i < HELD; i++) v[i] *= factor;
    }
};

/* Row `index` of [n][heads][rows]; false beyond the end (for the whole warp). */
struct row_place {
    int64_t image, head, row, index;

    DEVICE bool start(int64_t n, int64_t heads, int64_t rows)
    {
        index = (int64_t)block_x() * rows_warps + thread_index() / 32;
        row = index % rows;
        head = index / rows % heads;
        image = index / rows / heads;
        return image < n;
    }
};

template <class T> DEVICE const T *head_row(const void *p, int64_t token, int64_t ld, int64_t at)
{
    return (const T *)p + token * ld + at;
}

template <class T, int HELD> KERNEL(rows_threads, 2) attention_rows_kernel(const attention_args p)
{
    row_place r;
    if (!r.start(p.n, p.heads, p.lq)) return;
    const int d = (int)p.d;
    const int64_t at = r.head * p.d;
    held<HELD> q, k, v, y;
    q.load(head_row<T>(p.q, r.image * p.lq + r.row, p.ldq, at), d);
    y.clear();
    float top = -INFINITY, sum = 0.0f;
    const int64_t keys = p.causal && r.row + 1 < p.lk ? r.row + 1 : p.lk;
    for (int64_t j = 0; j < keys; j++) {
        k.load(head_row<T>(p.k, r.image * p.lk + j, p.ldk, at), d);
        v.load(head_row<T>(p.v, r.image * p.lk + j, p.ldv, at), d);
        const float s = q.dot(k) * (float)p.scale, most = fmaxf(top, s);
        const float shrink = expf(top - most), weight = expf(s - most);
        top = most;
        sum = sum * shrink + weight;
        y.scale(shrink);
        y.add(weight, v);
    }
    y.store((T *)p.y + (r.image * p.lq + r.row) * p.ldy + at, d, 1.0f / sum, false);
    if (p.lse && thread_index() % 32 == 0) global_store((float *)p.lse + r.index, top + logf(sum));
}

/* launch<kernel<T, HELD>> for the storage type and head size */
#define BY_SIZE(T, d, kernel, name, rows, stream, args)                                            \
    ((d) <= 64    ? launch<kernel<T, 2>>(name, grid_of(rows), rows_threads, 0, stream, args)       \
     : (d) <= 160 ? launch<kernel<T, 5>>(name, grid_of(rows), rows_threads, 0, stream, args)       \
                  : launch<kernel<T, 16>>(name, grid_of(rows), rows_threads, 0, stream, args))
#define BY_DTYPE_SIZE(dtype, d, kernel, name, rows, stream, args)                                  \
    ((dtype) == DTYPE_F32   ? BY_SIZE(float, d, kernel, name, rows, stream, args)                  \
     : (dtype) == DTYPE_F16 ? BY_SIZE(f16, d, kernel, name, rows, stream, args)                    \
                            : BY_SIZE(bf16, d, kernel, name, rows, stream, args))

static dim3 grid_of(int64_t rows)
{
    return dim3((unsigned)((rows + rows_warps - 1) / rows_warps));
}

extern "C" int attention_simple(const struct attention_args *a, void *stream)
{
    return BY_DTYPE_SIZE(a->dtype, a->d, attention_rows_kernel, "attention_rows",
                         a->n * a->heads * a->lq, stream, *a);
}

/* ---- the softmax of the slab form: one block a row, three passes over fp32 scores ---- */

static constexpr int softmax_threads = 256;

template <bool MAX> DEVICE float block_reduce(float v)
{
    const shared_t cells = shared_base();
    const int warp = thread_index() / 32;
    v = MAX ? warp_max(v) : warp_sum(v);
    block_sync(); /* the cells' former use is over */
    if (thread_index() % 32 == 0) shared_store(cells + 4 * warp, v);
    block_sync();
    v = shared_load<float>(cells);
    for (int i = 1; i < softmax_threads / 32; i++) {
        float other = shared_load<float>(cells + 4 * i);
        v = MAX ? fmaxf(v, other) : v + other;
    }
    return v;
}

template <class T> KERNEL(softmax_threads, 2) softmax_kernel(const struct attention_softmax p)
{
    const int64_t row = block_x();
    const float *s = p.s + row * p.s_pitch;
    T *to = (T *)p.p + row * p.p_pitch;
    int64_t keys = p.keys;
    if (p.causal && p.first_row + row + 1 < keys) keys = p.first_row + row + 1;
    float top = -INFINITY, sum = 0.0f;
    for (int64_t j = thread_index(); j < keys; j += softmax_threads)
        top = fmaxf(top, global_load<float>(s + j));
    top = block_reduce<true>(top);
    for (int64_t j = thread_index(); j < p.p_pitch; j += softmax_threads) {
        float v = j < keys ? expf((global_load<float>(s + j) - top) * p.scale) : 0.0f;
        sum += v;
        global_store(to + j, to_storage<T>(v));
    }
    sum = block_reduce<false>(sum);
    if (thread_index() != 0) return;
    global_store(p.over + row, 1.0f / sum);
    if (p.lse) global_store(p.lse + row, top * p.scale + logf(sum));
}

extern "C" int attention_softmax(const struct attention_softmax *a, void *stream)
{
    dim3 grid((unsigned)a->rows);
    const size_t shared = softmax_threads / 32 * 4;
    if (a->dtype == DTYPE_F16)
        return launch<softmax_kernel<f16>>("softmax", grid, softmax_threads, shared, stream, *a);
    return launch<softmax_kernel<bf16>>("softmax", grid, softmax_threads, shared, stream, *a);
}

/* ---- backward: delta_i = dy_i . y_i, then (docs/kernels/attention.md), with p the softmax,
 *      dv_j = sum_i p_ij dy_i,  ds_ij = p_ij (dy_i . v_j - delta_i),
 *      dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i ---- */

struct grad_params {
    attention_args a;
    const void *dy;
    void *dq, *dk, *dv;
    int accumulate;
    float *delta;
};

static grad_params params_of(const struct attention_grad_args *g, const float *delta)
{
    return {g->forward, g->dy, g->dq, g->dk, g->dv, g->accumulate, (float *)delta};
}

template <class T, int HELD> KERNEL(rows_threads, 2) delta_kernel(const grad_params p)
{
    row_place r;
    if (!r.start(p.a.n, p.a.heads, p.a.lq)) return;
    const int64_t token = r.image * p.a.lq + r.row, at = r.head * p.a.d;
    held<HELD> y, dy;
    y.load(head_row<T>(p.a.y, token, p.a.ldy, at), (int)p.a.d);
    dy.load(head_row<T>(p.dy, token, p.a.ldy, at), (int)p.a.d);
    const float sum = y.dot(dy);
    if (thread_index() % 32 == 0) global_store(p.delta + r.index, sum);
}

extern "C" int attention_delta(const struct attention_grad_args *g, float *delta, void *stream)
{
    const struct attention_args *a = &g->forward;
    return BY_DTYPE_SIZE(a->dtype, a->d, delta_kernel, "attention_delta", a->n * a->heads * a->lq,
                         stream, params_of(g, delta));
}

template <class T, int HELD> KERNEL(rows_threads, 1) attention_rows_dq_kernel(const grad_params p)
{
    row_place r;
    if (!r.start(p.a.n, p.a.heads, p.a.lq)) return;
    const int d = (int)p.a.d;
    const int64_t token = r.image * p.a.lq + r.row, at = r.head * p.a.d;
    held<HELD> q, dy, k, v, dq;
    q.load(head_row<T>(p.a.q, token, p.a.ldq, at), d);
    dy.load(head_row<T>(p.dy, token, p.a.ldy, at), d);
    dq.clear();
    const float lse = global_load<float>((const float *)p.a.lse + r.index);
    const float delta = global_load<float>(p.delta + r.index);
    const int64_t keys = p.a.causal && r.row + 1 < p.a.lk ? r.row + 1 : p.a.lk;
    for (int64_t j = 0; j < keys; j++) {
        k.load(head_row<T>(p.a.k, r.image * p.a.lk + j, p.a.ldk, at), d);
        v.load(head_row<T>(p.a.v, r.image * p.a.lk + j, p.a.ldv, at), d);
        const float weight = expf(q.dot(k) * (float)p.a.scale - lse);
        dq.add(weight * (dy.dot(v) - delta), k);
    }
    dq.store((T *)p.dq + token * p.a.ldq + at, d, (float)p.a.scale, p.accumulate);
}

template <class T, int HELD> KERNEL(rows_threads, 1) attention_rows_dkv_kernel(const grad_params p)
{
    row_place r;
    if (!r.start(p.a.n, p.a.heads, p.a.lk)) return;
    const int d = (int)p.a.d;
    const int64_t token = r.image * p.a.lk + r.row, at = r.head * p.a.d;
    held<HELD> k, v, q, dy, dk, dv;
    k.load(head_row<T>(p.a.k, token, p.a.ldk, at), d);
    v.load(head_row<T>(p.a.v, token, p.a.ldv, at), d);
    dk.clear();
    dv.clear();
    for (int64_t i = p.a.causal ? r.row : 0; i < p.a.lq; i++) {
        q.load(head_row<T>(p.a.q, r.image * p.a.lq + i, p.a.ldq, at), d);
        dy.load(head_row<T>(p.dy, r.image * p.a.lq + i, p.a.ldy, at), d);
        const int64_t row = (r.image * p.a.heads + r.head) * p.a.lq + i;
        const float lse = global_load<float>((const float *)p.a.lse + row);
        const float weight = expf(q.dot(k) * (float)p.a.scale - lse);
        const float slope = weight * (dy.dot(v) - global_load<float>(p.delta + row));
        dv.add(weight, dy);
        dk.add(slope, q);
    }
    if (p.dk) dk.store((T *)p.dk + token * p.a.ldk + at, d, (float)p.a.scale, p.accumulate);
    if (p.dv) dv.store((T *)p.dv + token * p.a.ldv + at, d, 1.0f, p.accumulate);
}

extern "C" int attention_grad_simple(const struct attention_grad_args *g, const float *delta,
                                     void *stream)
{
    const struct attention_args *a = &g->forward;
    int rc = 0;
    if (g->dq)
        rc = BY_DTYPE_SIZE(a->dtype, a->d, attention_rows_dq_kernel, "attention_rows_dq",
                           a->n * a->heads * a->lq, stream, params_of(g, delta));
    if (!rc && (g->dk || g->dv))
        rc = BY_DTYPE_SIZE(a->dtype, a->d, attention_rows_dkv_kernel, "attention_rows_dkv",
                           a->n * a->heads * a->lk, stream, params_of(g, delta));
    return rc;
}
