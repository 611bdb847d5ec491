/* pointwise.cu - activations, gates, sums and products: one 16-byte chunk a thread. Contracts in
 * kernels.h. */
#include "kernels/cuda/pointwise_kernel.h"

/* ---- activations ---- */

template <class T> KERNEL(block_threads, 4) activation_kernel(const activation_args a)
{
    span<T> s(a.count);
    if (s.live <= 0) return;
    const T *x = (const T *)a.x + s.at;
    T *y = (T *)a.y + s.at;
    chunk<T> v;
    v.load(x, s.live, s.full && is_aligned(x));
    for (int i = 0; i < chunk<T>::width; i++) v.v[i] = activate(a.act, v.v[i]);
    v.store(y, s.live, s.full && is_aligned(y));
}

template <class T> KERNEL(block_threads, 4) activation_grad_kernel(const activation_args a)
{
    span<T> s(a.count);
    if (s.live <= 0) return;
    const T *x = (const T *)a.x + s.at, *dy = (const T *)a.dy + s.at;
    T *dx = (T *)a.dx + s.at;
    chunk<T> v, slope, old;
    v.load(x, s.live, s.full && is_aligned(x));
    slope.load(dy, s.live, s.full && is_aligned(dy));
    if (a.accumulate) old.load(dx, s.live, s.full && is_aligned(dx));
    for (int i = 0; i < chunk<T>::width; i++) {
        v.v[i] = slope.v[i] * activate_slope(a.act, v.v[i]);
        if (a.accumulate) v.v[i] += old.v[i];
    }
    v.store(dx, s.live, s.full && is_aligned(dx));
}

extern "C" int pointwise_activation(const struct activation_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, activation_kernel, "activation",
                    blocks_for(chunks_of(a->count, a->dtype)), stream, *a);
}

extern "C" int pointwise_activation_grad(const struct activation_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, activation_grad_kernel, "activation_grad",
                    blocks_for(chunks_of(a->count, a->dtype)), stream, *a);
}

/* ---- GEGLU: a chunk of one row a thread ---- */

template <class T> struct geglu_place {
    int64_t row, value, gate, y;
    int live;
    bool full;

    DEVICE geglu_place(const geglu_args &a)
    {
        const int width = chunk<T>::width;
        int64_t per_row = (a.d + width - 1) / width, index = item();
        row = index / per_row;
        int64_t column = (index - row * per_row) * width;
        live = a.d - column < width ? (int)(a.d - column) : width;
        full = a.d % width == 0;
        value = row * 2 * a.d + column;
        gate = value + a.d;
        y = row * a.d + column;
    }
};

template <class T> KERNEL(block_threads, 4) geglu_kernel(const geglu_args a)
{
    geglu_place<T> p(a);
    if (p.row >= a.rows) return;
    const T *x = (const T *)a.x;
    T *y = (T *)a.y;
    chunk<T> value, gate;
    value.load(x + p.value, p.live, p.full && is_aligned(x));
    gate.load(x + p.gate, p.live, p.full && is_aligned(x));
    for (int i = 0; i < chunk<T>::width; i++) value.v[i] *= gelu(gate.v[i]);
    value.store(y + p.y, p.live, p.full && is_aligned(y));
}

template <class T> KERNEL(block_threads, 2) geglu_grad_kernel(const geglu_args a)
{
    geglu_place<T> p(a);
    if (p.row >= a.rows) return;
    const T *x = (const T *)a.x, *dy = (const T *)a.dy;
    T *dx = (T *)a.dx;
    const bool whole_x = p.full && is_aligned(x), whole_dx = p.full && is_aligned(dx);
    chunk<T> value, gate, slope, old_value, old_gate;
    value.load(x + p.value, p.live, whole_x);
    gate.load(x + p.gate, p.live, whole_x);
    slope.load(dy + p.y, p.live, p.full && is_aligned(dy));
    if (a.accumulate) {
        old_value.load(dx + p.value, p.live, whole_dx);
        old_gate.load(dx + p.gate, p.live, whole_dx);
    }
    for (int i = 0; i < chunk<T>::width; i++) {
        float dvalue = slope.v[i] * gelu(gate.v[i]);
        float dgate = slope.v[i] * value.v[i] * gelu_slope(gate.v[i]);
        value.v[i] = a.accumulate ? old_value.v[i] + dvalue : dvalue;
        gate.v[i] = a.accumulate ? old_gate.v[i] + dgate : dgate;
    }
    value.store(dx + p.value, p.live, whole_dx);
    gate.store(dx + p.gate, p.live, whole_dx);
}

static int64_t geglu_items(const struct geglu_args *a)
{
    return a->rows * chunks_of(a->d, a->dtype);
}

extern "C" int pointwise_geglu(const struct geglu_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, geglu_kernel, "geglu", blocks_for(geglu_items(a)), stream, *a);
}

extern "C" int pointwise_geglu_grad(const struct geglu_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, geglu_grad_kernel, "geglu_grad", blocks_for(geglu_items(a)), stream,
                    *a);
}

/* ---- sums and products ---- */

template <class T> KERNEL(block_threads, 4) add_kernel(const add_args p)
{
    span<T> s(p.count);
    if (s.live <= 0) return;
    const T *a = (const T *)p.a + s.at, *b = (const T *)p.b;
    T *y = (T *)p.y + s.at;
    const float alpha = (float)p.alpha, beta = (float)p.beta;
    chunk<T> va, vb;
    va.load(a, s.live, s.full && is_aligned(a));
    if (!b) {
        for (int i = 0; i < chunk<T>::width; i++) va.v[i] *= alpha;
    } else {
        if (p.b_count == p.count || p.b_count % chunk<T>::width == 0) {
            b += p.b_count == p.count ? s.at : s.at % p.b_count;
            vb.load(b, s.live, s.full && is_aligned(b));
        } else {
            for (int i = 0; i < chunk<T>::width; i++)
                vb.v[i] = i < s.live ? to_float(global_load<T>(b + (s.at + i) % p.b_count)) : 0.0f;
        }
        for (int i = 0; i < chunk<T>::width; i++) va.v[i] = alpha * va.v[i] + beta * vb.v[i];
    }
    va.store(y, s.live, s.full && is_aligned(y));
}

template <class T> KERNEL(block_threads, 4) mul_kernel(const mul_args p)
{
    span<T> s(p.count);
    if (s.live <= 0) return;
    const T *a = (const T *)p.a + s.at, *b = (const T *)p.b;
    T *y = (T *)p.y + s.at;
    chunk<T> va, vb, old;
    va.load(a, s.live, s.full && is_aligned(a));
    const int64_t b_count = p.b_count ? p.b_count : p.count;
    if (b_count == p.count || b_count % chunk<T>::width == 0) {
        b += s.at % b_count;
        vb.load(b, s.live, s.full && is_aligned(b));
    } else {
        for (int i = 0; i < chunk<T>::width; i++)
            vb.v[i] = i < s.live ? to_float(global_load<T>(b + (s.at + i) % b_count)) : 0.0f;
    }
    if (p.accumulate) old.load(y, s.live, s.full && is_aligned(y));
    for (int i = 0; i < chunk<T>::width; i++)
        va.v[i] = p.accumulate ? old.v[i] + va.v[i] * vb.v[i] : va.v[i] * vb.v[i];
    va.store(y, s.live, s.full && is_aligned(y));
}

extern "C" int pointwise_add(const struct add_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, add_kernel, "add", blocks_for(chunks_of(a->count, a->dtype)), stream,
                    *a);
}

extern "C" int pointwise_mul(const struct mul_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, mul_kernel, "mul", blocks_for(chunks_of(a->count, a->dtype)), stream,
                    *a);
}
