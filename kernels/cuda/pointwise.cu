/* pointwise.cu - kernels bound by memory: one 16-byte chunk a thread. Contracts in kernels.h. */
#include "kernels/cuda/pointwise.h"

#include "kernels/adamw8.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/chunk.h"
#include "kernels/cuda/wrap.h"

static constexpr int block_threads = 256;

static dim3 blocks_for(int64_t items)
{
    return dim3((unsigned)((items + block_threads - 1) / block_threads));
}

DEVICE int64_t item()
{
    return (int64_t)block_x() * block_threads + thread_index();
}

/* launch<kernel<T>>(...) for the storage type of `dtype` */
#define BY_DTYPE(dtype, kernel, name, grid, stream, args)                                          \
    ((dtype) == DTYPE_F32   ? launch<kernel<float>>(name, grid, block_threads, 0, stream, args)    \
     : (dtype) == DTYPE_F16 ? launch<kernel<f16>>(name, grid, block_threads, 0, stream, args)      \
                            : launch<kernel<bf16>>(name, grid, block_threads, 0, stream, args))

static int64_t chunks_of(int64_t count, enum dtype dtype)
{
    int width = dtype == DTYPE_F32 ? 4 : 8;
    return (count + width - 1) / width;
}

/* Where a thread's chunk lies in an array of `count` elements. */
template <class T> struct span {
    int64_t at;
    int live;
    bool full;

    DEVICE span(int64_t count)
    {
        at = item() * chunk<T>::width;
        int64_t left = count - at;
        live = left < chunk<T>::width ? (int)left : chunk<T>::width;
        full = live == chunk<T>::width;
    }
};

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

/* ---- copies ---- */

/* 16 bytes a thread, same dtype; cols and pitches are whole chunks */
template <class T> KERNEL(block_threads, 4) copy_chunks_kernel(const copy_args p)
{
    const int64_t per_row = p.cols / chunk<T>::width, index = item();
    const int64_t row = index / per_row, column = (index - row * per_row) * chunk<T>::width;
    if (row >= p.rows) return;
    global_store((T *)p.y + row * p.ldy + column,
                 global_load<word16>((const T *)p.x + row * p.ldx + column));
}

template <class TY, class TX> KERNEL(block_threads, 4) copy_kernel(const copy_args p)
{
    const int64_t index = item(), row = index / p.cols, column = index - row * p.cols;
    if (row >= p.rows) return;
    TY *y = (TY *)p.y + row * p.ldy + column;
    float v = to_float(global_load<TX>((const TX *)p.x + row * p.ldx + column));
    if (p.accumulate) v += to_float(global_load<TY>(y));
    global_store(y, to_storage<TY>(v));
}

template <class TY> static int copy_to(const struct copy_args *a, void *stream)
{
    dim3 grid = blocks_for(a->rows * a->cols);
    if (a->x_dtype == DTYPE_F32)
        return launch<copy_kernel<TY, float>>("copy", grid, block_threads, 0, stream, *a);
    if (a->x_dtype == DTYPE_F16)
        return launch<copy_kernel<TY, f16>>("copy", grid, block_threads, 0, stream, *a);
    return launch<copy_kernel<TY, bf16>>("copy", grid, block_threads, 0, stream, *a);
}

extern "C" int pointwise_copy(const struct copy_args *a, void *stream)
{
    int64_t width = a->y_dtype == DTYPE_F32 ? 4 : 8;
    if (a->y_dtype == a->x_dtype && !a->accumulate && (a->cols | a->ldx | a->ldy) % width == 0 &&
        (((uintptr_t)a->x | (uintptr_t)a->y) & 15) == 0)
        return BY_DTYPE(a->y_dtype, copy_chunks_kernel, "copy_chunks",
                        blocks_for(a->rows * a->cols / width), stream, *a);
    if (a->y_dtype == DTYPE_F32) return copy_to<float>(a, stream);
    if (a->y_dtype == DTYPE_F16) return copy_to<f16>(a, stream);
    return copy_to<bf16>(a, stream);
}

/* y[n,b,a] = x[n,a,b] through 32 x 32 tiles in shared memory; one column more, so that neither side
 * meets a bank twice. Grid: a tiles, b tiles, n, in
 * x and y as they fit (the longer side in x). */
static constexpr int turn_tile = 32, turn_pitch = (turn_tile + 1) * 4;

template <class T> KERNEL(block_threads, 4) transpose_kernel(const transpose_args p)
{
    const shared_t tile = shared_base();
    const int x = thread_index() % turn_tile, y = thread_index() / turn_tile;
    const bool a_in_x = p.a > p.b;
    const int64_t a0 = (int64_t)(a_in_x ? block_x() : block_y()) * turn_tile;
    const int64_t b0 = (int64_t)(a_in_x ? block_y() : block_x()) * turn_tile;
    const T *from = (const T *)p.x + block_z() * p.a * p.b;
    T *to = (T *)p.y + block_z() * p.a * p.b;
    for (int i = y; i < turn_tile; i += block_threads / turn_tile) {
        if (a0 + i < p.a && b0 + x < p.b)
            shared_store(tile + i * turn_pitch + x * 4,
                         to_float(global_load<T>(from + (a0 + i) * p.b + b0 + x)));
    }
    block_sync();
    for (int i = y; i < turn_tile; i += block_threads / turn_tile) {
        if (a0 + x < p.a && b0 + i < p.b)
            global_store(to + (b0 + i) * p.a + a0 + x,
                         to_storage<T>(shared_load<float>(tile + x * turn_pitch + i * 4)));
    }
}

extern "C" int pointwise_transpose(const struct transpose_args *a, void *stream)
{
    transpose_args part = *a;
    size_t bytes = a->dtype == DTYPE_F32 ? 4 : 2, image = (size_t)(a->a * a->b) * bytes;
    for (int64_t n = 0; n < a->n; n += 65535) {
        part.n = a->n - n < 65535 ? a->n - n : 65535;
        part.x = (const char *)a->x + (size_t)n * image;
        part.y = (char *)a->y + (size_t)n * image;
        int64_t a_tiles = (a->a + turn_tile - 1) / turn_tile,
                b_tiles = (a->b + turn_tile - 1) / turn_tile;
        dim3 grid((unsigned)(a->a > a->b ? a_tiles : b_tiles),
                  (unsigned)(a->a > a->b ? b_tiles : a_tiles), (unsigned)part.n);
        int rc;
        if (a->dtype == DTYPE_F32)
            rc = launch<transpose_kernel<float>>("transpose", grid, block_threads,
                                                 turn_tile * turn_pitch, stream, part);
        else if (a->dtype == DTYPE_F16)
            rc = launch<transpose_kernel<f16>>("transpose", grid, block_threads,
                                               turn_tile * turn_pitch, stream, part);
        else
            rc = launch<transpose_kernel<bf16>>("transpose", grid, block_threads,
                                                turn_tile * turn_pitch, stream, part);
        if (rc) return rc;
    }
    return 0;
}

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

/* ---- nearest enlargement ---- */

template <class T> KERNEL(block_threads, 4) upsample_kernel(const upsample_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int64_t source = (n * p.h + oy * p.h / p.oh) * p.w + ox * p.w / p.ow;
    const T *x = (const T *)p.x + source * p.c + c;
    T *y = (T *)p.y + pixel * p.c + c;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    chunk<T> v;
    v.load(x, live, p.c % width == 0 && is_aligned(p.x));
    v.store(y, live, p.c % width == 0 && is_aligned(p.y));
}

/* first output line or column that shows input `i`, of `small` -> `large` */
DEVICE int64_t first_shown(int64_t i, int64_t small, int64_t large)
{
    return (i * large + small - 1) / small;
}

template <class T> KERNEL(block_threads, 4) upsample_grad_kernel(const upsample_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.h * p.w) return;
    const int64_t x = pixel % p.w, y = pixel / p.w % p.h, n = pixel / p.w / p.h;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    T *dx = (T *)p.dx + pixel * p.c + c;
    chunk<T> sum, v;
    for (int i = 0; i < width; i++) sum.v[i] = 0.0f;
    if (p.accumulate) sum.load(dx, live, whole && is_aligned(p.dx));
    for (int64_t oy = first_shown(y, p.h, p.oh); oy < first_shown(y + 1, p.h, p.oh); oy++) {
        for (int64_t ox = first_shown(x, p.w, p.ow); ox < first_shown(x + 1, p.w, p.ow); ox++) {
            v.load((const T *)p.dy + ((n * p.oh + oy) * p.ow + ox) * p.c + c, live,
                   whole && is_aligned(p.dy));
            for (int i = 0; i < width; i++) sum.v[i] += v.v[i];
        }
    }
    sum.store(dx, live, whole && is_aligned(p.dx));
}

extern "C" int pointwise_upsample(const struct upsample_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, upsample_kernel, "upsample",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

extern "C" int pointwise_upsample_grad(const struct upsample_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, upsample_grad_kernel, "upsample_grad",
                    blocks_for(a->n * a->h * a->w * chunks_of(a->c, a->dtype)), stream, *a);
}

/* ---- the largest of a window, and the value between pixels ---- */

template <class T> KERNEL(block_threads, 4) max_pool_kernel(const max_pool_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    bool any = false;
    chunk<T> most, v;
    for (int i = 0; i < width; i++) most.v[i] = 0.0f;
    for (int k = 0; k < p.kernel * p.kernel; k++) {
        const int64_t row = oy * p.stride - p.pad + k / p.kernel;
        const int64_t column = ox * p.stride - p.pad + k % p.kernel;
        if (row < 0 || row >= p.h || column < 0 || column >= p.w) continue;
        v.load((const T *)p.x + ((n * p.h + row) * p.w + column) * p.c + c, live,
               whole && is_aligned(p.x));
        for (int i = 0; i < width; i++)
            if (!any || v.v[i] > most.v[i]) most.v[i] = v.v[i];
        any = true;
    }
    most.store((T *)p.y + pixel * p.c + c, live, whole && is_aligned(p.y));
}

extern "C" int pointwise_max_pool(const struct max_pool_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, max_pool_kernel, "max_pool",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

/* the pixel before output i of `to`, and how far behind it lies */
DEVICE int64_t pixel_before(int64_t i, int64_t from, int64_t to, float *part)
{
    float at = ((float)i + 0.5f) * (float)from / (float)to - 0.5f;
    if (at < 0.0f) at = 0.0f;
    int64_t pixel = (int64_t)at;
    if (pixel > from - 1) pixel = from - 1;
    *part = at - (float)pixel;
    return pixel;
}

template <class T> KERNEL(block_threads, 4) bilinear_kernel(const bilinear_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    float down, right;
    const int64_t y0 = pixel_before(oy, p.h, p.oh, &down);
    const int64_t x0 = pixel_before(ox, p.w, p.ow, &right);
    const int64_t y1 = y0 + 1 < p.h ? y0 + 1 : y0, x1 = x0 + 1 < p.w ? x0 + 1 : x0;
    chunk<T> sum, v;
    for (int i = 0; i < width; i++) sum.v[i] = 0.0f;
    for (int k = 0; k < 4; k++) {
        const int64_t row = k / 2 ? y1 : y0, column = k % 2 ? x1 : x0;
        const float share = (k / 2 ? down : 1.0f - down) * (k % 2 ? right : 1.0f - right);
        v.load((const T *)p.x + ((n * p.h + row) * p.w + column) * p.c + c, live,
               whole && is_aligned(p.x));
        for (int i = 0; i < width; i++) sum.v[i] += share * v.v[i];
    }
    sum.store((T *)p.y + pixel * p.c + c, live, whole && is_aligned(p.y));
}

extern "C" int pointwise_bilinear(const struct bilinear_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, bilinear_kernel, "bilinear",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

/* ---- embeddings ---- */

template <class T> KERNEL(block_threads, 4) embedding_kernel(const struct pointwise_embedding p)
{
    const int64_t index = item(), row = index / p.d, column = index - row * p.d;
    if (row >= p.count) return;
    const int64_t id = global_load<int32_t>(p.id + row);
    global_store((T *)p.y + index, global_load<T>((const T *)p.table + id * p.d + column));
}

/* one thread a column: rows that name the same id add up in order */
template <class T>
KERNEL(block_threads, 4)
embedding_grad_kernel(const struct pointwise_embedding p)
{
    const int64_t column = item();
    if (column >= p.d) return;
    for (int64_t row = 0; row < p.count; row++) {
        float *to = p.dtable + (int64_t)global_load<int32_t>(p.id + row) * p.d + column;
        float v = to_float(global_load<T>((const T *)p.dy + row * p.d + column));
        global_store(to, global_load<float>(to) + v);
    }
}

extern "C" int pointwise_embedding(const struct pointwise_embedding *a, void *stream)
{
    return BY_DTYPE(a->dtype, embedding_kernel, "embedding", blocks_for(a->count * a->d), stream,
                    *a);
}

extern "C" int pointwise_embedding_grad(const struct pointwise_embedding *a, void *stream)
{
    return BY_DTYPE(a->dtype, embedding_grad_kernel, "embedding_grad", blocks_for(a->d), stream,
                    *a);
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

/* ---- packing weights ---- */

DEVICE float pack_source(const struct pointwise_pack &p, int64_t at)
{
    if (p.from_dtype == DTYPE_F32) return global_load<float>((const float *)p.from + at);
    if (p.from_dtype == DTYPE_F16) return to_float(global_load<f16>((const f16 *)p.from + at));
    return to_float(global_load<bf16>((const bf16 *)p.from + at));
}

/* Which of the three taps fall on source line `line` (0 or 1) of phase `phase`: the first and one
 * past the last. Phase 0 reads lines i-1 (tap 0) and i (1, 2), phase 1 lines i (0, 1), i+1 (2). */
DEVICE int phase_first(int phase, int line)
{
    return line == 0 ? 0 : phase == 0 ? 1 : 2;
}
DEVICE int phase_end(int phase, int line)
{
    return line == 1 ? 3 : phase == 0 ? 1 : 2;
}

template <class T> KERNEL(block_threads, 4) pack_kernel(const struct pointwise_pack p)
{
    const int taps = p.phases ? 4 : p.taps;
    const int64_t each = p.out * taps * p.c, index = item();
    if (index >= each * (p.phases ? 4 : 1)) return;
    const int phase = (int)(index / each);
    const int64_t c = index % p.c, tap = index / p.c % taps, to_row = index % each / p.c / taps;
    int64_t o = to_row;
    if (p.geglu) o = to_row / 16 * 8 + to_row % 8 + (to_row % 16 >= 8 ? p.out / 2 : 0);
    const int64_t from = (o * p.c + c) * p.taps;
    float v = 0.0f;
    if (p.phases) {
        const int py = phase >> 1, px = phase & 1, line = (int)tap >> 1, column = (int)tap & 1;
        for (int y = phase_first(py, line); y < phase_end(py, line); y++)
            for (int x = phase_first(px, column); x < phase_end(px, column); x++)
                v += pack_source(p, from + y * 3 + x);
    } else {
        v = pack_source(p, from + tap);
    }
    global_store((T *)p.to + index, to_storage<T>(v));
}

extern "C" int pointwise_pack(const struct pointwise_pack *a, void *stream)
{
    int64_t items = a->out * a->c * (a->phases ? 16 : a->taps);
    return BY_DTYPE(a->to_dtype, pack_kernel, "pack", blocks_for(items), stream, *a);
}
