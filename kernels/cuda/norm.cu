/* norm.cu - group and layer norm. Contract in norm.h and kernels.h, derivation of the backward in
 * docs/kernels/norm.md. Statistics and sums in fp32, fixed order. */
#include "kernels/cuda/norm.h"

#include "kernels/cuda/activation.h"
#include "kernels/cuda/chunk.h"
#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/wrap.h"

static constexpr int norm_threads = 256;
static constexpr int slab_chunks = 8, slab_lanes = norm_threads / slab_chunks;

/* (count, mean, m2) of two disjoint sets together */
struct moments {
    float count, mean, m2;

    DEVICE void join(float other_count, float other_mean, float other_m2)
    {
        if (other_count == 0.0f) return;
        float whole = count + other_count, apart = other_mean - mean;
        mean += apart * (other_count / whole);
        m2 += other_m2 + apart * apart * (count * other_count / whole);
        count = whole;
    }
};

struct group_params {
    group_norm_args a;
    norm_plan plan;
    const void *dy;
    void *dx;
    float *dgamma, *dbeta;
    int accumulate;
};

/* What one thread reads of a slab: one chunk of channels, every slab_lanes-th row of its range. */
template <class T> struct slab {
    static constexpr int width = chunk<T>::width;
    int column, lane; /* chunk of the slab, row lane */
    int64_t c, image, range;
    int live;
    bool whole;
    int64_t row_from, row_to;

    DEVICE slab(const group_params &p)
    {
        column = thread_index() % slab_chunks;
        lane = thread_index() / slab_chunks;
        c = ((int64_t)block_x() * slab_chunks + column) * width;
        range = block_y(), image = block_z();
        int64_t left = p.a.c - c;
        live = left >= width ? width : left > 0 ? (int)left : 0;
        whole = live == width && p.a.c % width == 0 && is_aligned(p.a.x) && is_aligned(p.dy);
        row_from = range * p.plan.rows_per_range;
        row_to = row_from + p.plan.rows_per_range;
        if (row_to > p.a.rows) row_to = p.a.rows;
    }
    DEVICE int64_t at(const group_params &p, int64_t row) const
    {
        return (image * p.a.rows + row) * p.a.c + c;
    }
    /* rows that lane `l` has read */
    DEVICE int64_t rows_of(int l) const
    {
        int64_t rows = row_to - row_from - l;
        return rows <= 0 ? 0 : (rows + slab_lanes - 1) / slab_lanes;
    }
};

/* shared: [lane][channel of the slab] pairs of floats */
template <class T> DEVICE shared_t slab_cell(int lane, int channel)
{
    return shared_base() + (shared_t)(lane * (slab_chunks * chunk<T>::width) + channel) * 8;
}
template <class T> static constexpr int slab_shared = slab_lanes *slab_chunks *chunk<T>::width * 8;

template <class T> KERNEL(norm_threads, 2) group_statistics_kernel(const group_params p)
{
    const slab<T> s(p);
    const T *x = (const T *)p.a.x;
    float first[slab<T>::width], sum[slab<T>::width], squares[slab<T>::width];
    UNROLL
    for (int i = 0; i < slab<T>::width; i++) first[i] = sum[i] = squares[i] = 0.0f;
    bool fresh = true;
    for (int64_t row = s.row_from + s.lane; row < s.row_to; row += slab_lanes) {
        chunk<T> v;
        v.load(x + s.at(p, row), s.live, s.whole);
        UNROLL
        for (int i = 0; i < slab<T>::width; i++) {
            if (fresh) first[i] = v.v[i];
            float off = v.v[i] - first[i]; /* distances to the first value: no cancellation */
            sum[i] += off;
            squares[i] += off * off;
        }
        fresh = false;
    }
    const float count = (float)s.rows_of(s.lane);
    UNROLL
    for (int i = 0; i < slab<T>::width; i++) {
        float mean = count > 0.0f ? sum[i] / count : 0.0f;
        word8 pair = {{float_to_bits(first[i] + mean), float_to_bits(squares[i] - sum[i] * mean)}};
        shared_store(slab_cell<T>(s.lane, s.column * slab<T>::width + i), pair);
    }
    block_sync();
    const int channel = thread_index();
    const int64_t c = (int64_t)block_x() * slab_chunks * slab<T>::width + channel;
    if (channel >= slab_chunks * slab<T>::width || c >= p.a.c) return;
    /* means are joined as distances to the first one: far from zero they would lose bits each time */
    const float pivot = bits_to_float(shared_load<word8>(slab_cell<T>(0, channel)).word[0]);
    moments m = {0.0f, 0.0f, 0.0f};
    for (int lane = 0; lane < slab_lanes; lane++) {
        word8 pair = shared_load<word8>(slab_cell<T>(lane, channel));
        m.join((float)s.rows_of(lane), bits_to_float(pair.word[0]) - pivot,
               bits_to_float(pair.word[1]));
    }
    global_store(p.plan.partial + ((s.image * p.plan.ranges + s.range) * p.a.c + c) * 2,
                 word8{{float_to_bits(pivot + m.mean), float_to_bits(m.m2)}});
}

static constexpr int combine_threads = 128;

/* One block a group of an image. */
KERNEL(combine_threads, 4)
group_combine_kernel(const group_params p)
{
    const int t = thread_index();
    const int64_t image = block_y(), group = block_x(), width = p.a.c / p.a.groups;
    const int64_t items = p.plan.ranges * width;
    const float pivot =
        global_load<float>(p.plan.partial + (image * p.plan.ranges * p.a.c + group * width) * 2);
    moments m = {0.0f, 0.0f, 0.0f};
    for (int64_t i = t; i < items; i += combine_threads) {
        int64_t range = i / width, c = group * width + i % width;
        int64_t rows = p.a.rows - range * p.plan.rows_per_range;
        if (rows > p.plan.rows_per_range) rows = p.plan.rows_per_range;
        word8 pair =
            global_load<word8>(p.plan.partial + ((image * p.plan.ranges + range) * p.a.c + c) * 2);
        m.join((float)rows, bits_to_float(pair.word[0]) - pivot, bits_to_float(pair.word[1]));
    }
    const shared_t cells = shared_base();
    shared_store(cells + t * 16,
                 word16{{float_to_bits(m.count), float_to_bits(m.mean), float_to_bits(m.m2), 0}});
    for (int half = combine_threads / 2; half; half /= 2) {
        block_sync();
        if (t < half) {
            word16 o = shared_load<word16>(cells + (t + half) * 16);
            m.join(bits_to_float(o.word[0]), bits_to_float(o.word[1]), bits_to_float(o.word[2]));
            shared_store(cells + t * 16, word16{{float_to_bits(m.count), float_to_bits(m.mean),
                                                 float_to_bits(m.m2), 0}});
        }
    }
    if (t != 0) return;
    global_store(p.plan.mean + image * p.a.groups + group, pivot + m.mean);
    global_store(p.plan.rstd + image * p.a.groups + group,
                 1.0f / sqrtf(m.m2 / m.count + (float)p.a.eps));
}

/* gamma and beta of a chunk of channels (1 and 0 where there are none) */
template <int WIDTH>
DEVICE void load_scale(float *gamma, float *beta, const void *g, const void *b, int dtype,
                       int64_t c, int live)
{
    UNROLL
    for (int i = 0; i < WIDTH; i++) {
        gamma[i] = g && i < live ? load_as(g, dtype, c + i) : 1.0f;
        beta[i] = b && i < live ? load_as(b, dtype, c + i) : 0.0f;
    }
}

/* A chunk of a row [n * rows][c] a thread. */
template <class T> struct place {
    int64_t row, c, at;
    int live;
    bool whole;

    DEVICE place(int64_t width_c, bool aligned)
    {
        const int width = chunk<T>::width;
        int64_t per_row = (width_c + width - 1) / width;
        int64_t index = (int64_t)block_x() * norm_threads + thread_index();
        row = index / per_row;
        c = (index - row * per_row) * width;
        at = row * width_c + c;
        live = width_c - c < width ? (int)(width_c - c) : width;
        whole = aligned && width_c % width == 0;
    }
};

template <class T> KERNEL(norm_threads, 3) group_apply_kernel(const group_params p)
{
    const int width = chunk<T>::width;
    const place<T> at(p.a.c, is_aligned(p.a.x) && is_aligned(p.a.y));
    if (at.row >= p.a.n * p.a.rows) return;
    const int64_t image = at.row / p.a.rows, group_width = p.a.c / p.a.groups;
    chunk<T> v;
    float gamma[width], beta[width];
    v.load((const T *)p.a.x + at.at, at.live, at.whole);
    load_scale<width>(gamma, beta, p.a.gamma, p.a.beta, p.a.weight_dtype, at.c, at.live);
    UNROLL
    for (int i = 0; i < width; i++) {
        if (i >= at.live) break;
        int64_t g = image * p.a.groups + (at.c + i) / group_width;
        float unit =
            (v.v[i] - global_load<float>(p.plan.mean + g)) * global_load<float>(p.plan.rstd + g);
        v.v[i] = activate(p.a.act, gamma[i] * unit + beta[i]);
    }
    v.store((T *)p.a.y + at.at, at.live, at.whole);
}

/* ---- backward: with xhat = (x - mean) rstd, z = gamma xhat + beta, dz = dy act'(z), u = gamma dz:
 *      dx = rstd (u - mean(u) - xhat mean(u xhat)) over the group ---- */

template <class T> KERNEL(norm_threads, 2) group_grad_sums_kernel(const group_params p)
{
    const int width = slab<T>::width;
    const slab<T> s(p);
    const int64_t group_width = p.a.c / p.a.groups;
    float gamma[width], beta[width], mean[width], rstd[width], sum[width], sum_xhat[width];
    load_scale<width>(gamma, beta, p.a.gamma, p.a.beta, p.a.weight_dtype, s.c, s.live);
    UNROLL
    for (int i = 0; i < width; i++) {
        int64_t g = s.image * p.a.groups + (s.c + i) / group_width;
        mean[i] = i < s.live ? global_load<float>(p.plan.mean + g) : 0.0f;
        rstd[i] = i < s.live ? global_load<float>(p.plan.rstd + g) : 0.0f;
        sum[i] = sum_xhat[i] = 0.0f;
    }
    for (int64_t row = s.row_from + s.lane; row < s.row_to; row += slab_lanes) {
        chunk<T> x, dy;
        x.load((const T *)p.a.x + s.at(p, row), s.live, s.whole);
        dy.load((const T *)p.dy + s.at(p, row), s.live, s.whole);
        UNROLL
        for (int i = 0; i < width; i++) {
            float xhat = (x.v[i] - mean[i]) * rstd[i];
            float dz = dy.v[i] * activate_slope(p.a.act, gamma[i] * xhat + beta[i]);
            sum[i] += dz;
            sum_xhat[i] += dz * xhat;
        }
    }
    UNROLL
    for (int i = 0; i < width; i++)
        shared_store(slab_cell<T>(s.lane, s.column * width + i),
                     word8{{float_to_bits(sum[i]), float_to_bits(sum_xhat[i])}});
    block_sync();
    const int channel = thread_index();
    const int64_t c = (int64_t)block_x() * slab_chunks * width + channel;
    if (channel >= slab_chunks * width || c >= p.a.c) return;
    float a = 0.0f, b = 0.0f;
    for (int lane = 0; lane < slab_lanes; lane++) {
        word8 pair = shared_load<word8>(slab_cell<T>(lane, channel));
        a += bits_to_float(pair.word[0]);
        b += bits_to_float(pair.word[1]);
    }
    global_store(p.plan.partial + ((s.image * p.plan.ranges + s.range) * p.a.c + c) * 2,
                 word8{{float_to_bits(a), float_to_bits(b)}});
}

/* One warp a group of an image: mean(u) and mean(u xhat). */
KERNEL(32, 16)
group_grad_combine_kernel(const group_params p)
{
    const int64_t image = block_y(), group = block_x(), width = p.a.c / p.a.groups;
    float a = 0.0f, b = 0.0f;
    for (int64_t i = thread_index(); i < p.plan.ranges * width; i += 32) {
        int64_t range = i / width, c = group * width + i % width;
        float gamma = p.a.gamma ? load_as(p.a.gamma, p.a.weight_dtype, c) : 1.0f;
        word8 pair =
            global_load<word8>(p.plan.partial + ((image * p.plan.ranges + range) * p.a.c + c) * 2);
        a += gamma * bits_to_float(pair.word[0]);
        b += gamma * bits_to_float(pair.word[1]);
    }
    a = warp_sum(a);
    b = warp_sum(b);
    const float count = (float)(p.a.rows * width);
    if (thread_index() == 0)
        global_store(p.plan.sums + (image * p.a.groups + group) * 2,
                     word8{{float_to_bits(a / count), float_to_bits(b / count)}});
}

template <class T> KERNEL(norm_threads, 2) group_grad_apply_kernel(const group_params p)
{
    const int width = chunk<T>::width;
    const place<T> at(p.a.c, is_aligned(p.a.x) && is_aligned(p.dy) && is_aligned(p.dx));
    if (at.row >= p.a.n * p.a.rows) return;
    const int64_t image = at.row / p.a.rows, group_width = p.a.c / p.a.groups;
    chunk<T> x, dy, old;
    float gamma[width], beta[width];
    x.load((const T *)p.a.x + at.at, at.live, at.whole);
    dy.load((const T *)p.dy + at.at, at.live, at.whole);
    if (p.accumulate) old.load((const T *)p.dx + at.at, at.live, at.whole);
    load_scale<width>(gamma, beta, p.a.gamma, p.a.beta, p.a.weight_dtype, at.c, at.live);
    UNROLL
    for (int i = 0; i < width; i++) {
        if (i >= at.live) break;
        int64_t g = image * p.a.groups + (at.c + i) / group_width;
        float rstd = global_load<float>(p.plan.rstd + g);
        float xhat = (x.v[i] - global_load<float>(p.plan.mean + g)) * rstd;
        float u = gamma[i] * dy.v[i] * activate_slope(p.a.act, gamma[i] * xhat + beta[i]);
        word8 sums = global_load<word8>(p.plan.sums + 2 * g);
        float slope = rstd * (u - bits_to_float(sums.word[0]) - xhat * bits_to_float(sums.word[1]));
        x.v[i] = p.accumulate ? old.v[i] + slope : slope;
    }
    x.store((T *)p.dx + at.at, at.live, at.whole);
}

/* dgamma, dbeta of a channel: its sums over images and ranges, in order */
KERNEL(norm_threads, 4)
group_grad_weights_kernel(const group_params p)
{
    const int64_t c = (int64_t)block_x() * norm_threads + thread_index();
    if (c >= p.a.c) return;
    float a = 0.0f, b = 0.0f;
    for (int64_t i = 0; i < p.a.n * p.plan.ranges; i++) {
        word8 pair = global_load<word8>(p.plan.partial + (i * p.a.c + c) * 2);
        a += bits_to_float(pair.word[0]);
        b += bits_to_float(pair.word[1]);
    }
    if (p.dbeta) global_store(p.dbeta + c, global_load<float>(p.dbeta + c) + a);
    if (p.dgamma) global_store(p.dgamma + c, global_load<float>(p.dgamma + c) + b);
}

template <class T> static dim3 slab_grid(const group_params &p)
{
    const int64_t channels = slab_chunks * chunk<T>::width;
    return dim3((unsigned)((p.a.c + channels - 1) / channels), (unsigned)p.plan.ranges,
                (unsigned)p.a.n);
}

template <class T> static dim3 place_grid(int64_t rows, int64_t c)
{
    int64_t chunks = rows * ((c + chunk<T>::width - 1) / chunk<T>::width);
    return dim3((unsigned)((chunks + norm_threads - 1) / norm_threads));
}

template <class T> static int group_measure(const group_params &p, void *stream)
{
    int rc = launch<group_statistics_kernel<T>>("group_statistics", slab_grid<T>(p), norm_threads,
                                                slab_shared<T>, stream, p);
    if (!rc)
        rc = launch<group_combine_kernel>("group_combine",
                                          dim3((unsigned)p.a.groups, (unsigned)p.a.n),
                                          combine_threads, combine_threads * 16, stream, p);
    return rc;
}

template <class T> static int group_apply(const group_params &p, void *stream)
{
    return launch<group_apply_kernel<T>>("group_apply", place_grid<T>(p.a.n * p.a.rows, p.a.c),
                                         norm_threads, 0, stream, p);
}

extern "C" int norm_group_measure(const struct group_norm_args *a, const struct norm_plan *plan,
                                  void *stream)
{
    group_params p = {*a, *plan, nullptr, nullptr, nullptr, nullptr, 0};
    if (a->dtype == DTYPE_F32) return group_measure<float>(p, stream);
    if (a->dtype == DTYPE_F16) return group_measure<f16>(p, stream);
    return group_measure<bf16>(p, stream);
}

extern "C" int norm_group_apply(const struct group_norm_args *a, const struct norm_plan *plan,
                                void *stream)
{
    group_params p = {*a, *plan, nullptr, nullptr, nullptr, nullptr, 0};
    if (a->dtype == DTYPE_F32) return group_apply<float>(p, stream);
    if (a->dtype == DTYPE_F16) return group_apply<f16>(p, stream);
    return group_apply<bf16>(p, stream);
}

extern "C" int norm_group(const struct group_norm_args *a, const struct norm_plan *plan,
                          void *stream)
{
    int rc = norm_group_measure(a, plan, stream);
    return rc ? rc : norm_group_apply(a, plan, stream);
}

template <class T> static int group_backward(const group_params &p, void *stream)
{
    int rc = launch<group_grad_sums_kernel<T>>("group_grad_sums", slab_grid<T>(p), norm_threads,
                                               slab_shared<T>, stream, p);
    if (!rc && p.dx)
        rc = launch<group_grad_combine_kernel>(
            "group_grad_combine", dim3((unsigned)p.a.groups, (unsigned)p.a.n), 32, 0, stream, p);
    if (!rc && p.dx)
        rc = launch<group_grad_apply_kernel<T>>(
            "group_grad_apply", place_grid<T>(p.a.n * p.a.rows, p.a.c), norm_threads, 0, stream, p);
    if (!rc && (p.dgamma || p.dbeta))
        rc = launch<group_grad_weights_kernel>(
            "group_grad_weights", dim3((unsigned)((p.a.c + norm_threads - 1) / norm_threads)),
            norm_threads, 0, stream, p);
    return rc;
}

extern "C" int norm_group_grad(const struct group_norm_grad_args *g, const struct norm_plan *plan,
                               void *stream)
{
    group_params p = {g->forward,        *plan,        g->dy, g->dx, (float *)g->dgamma,
                      (float *)g->dbeta, g->accumulate};
    if (p.a.dtype == DTYPE_F32) return group_backward<float>(p, stream);
    if (p.a.dtype == DTYPE_F16) return group_backward<f16>(p, stream);
    return group_backward<bf16>(p, stream);
}

/* ---- layer norm: one warp a row. HELD chunks a lane stay in registers; 0: read again ---- */

struct layer_params {
    layer_norm_args a;
    const void *dy;
    void *dx;
    float *dgamma, *dbeta;
    int accumulate;
};

static constexpr int layer_rows = norm_threads / 32;

template <class T, int HELD> KERNEL(norm_threads, 2) layer_kernel(const layer_params p)
{
    const int width = chunk<T>::width;
    const int64_t row = (int64_t)block_x() * layer_rows + thread_index() / 32;
    const int lane = thread_index() % 32;
    if (row >= p.a.rows) return; /* the whole warp */
    const T *x = (const T *)p.a.x + row * p.a.d;
    T *y = (T *)p.a.y + row * p.a.d;
    const bool whole = p.a.d % width == 0 && is_aligned(p.a.x) && is_aligned(p.a.y);
    const int chunks = (int)((p.a.d + width - 1) / width);
    const float share = 1.0f / (float)p.a.d;
    constexpr int kept = HELD ? HELD : 1;
    chunk<T> v[kept];

    auto each = [&](auto &&body) {
        if constexpr (HELD != 0) {
            UNROLL
            for (int i = 0; i < HELD; i++) {
                int at = i * 32 + lane;
                if (at < chunks) body(v[i], at * width);
            }
        } else {
            for (int at = lane; at < chunks; at += 32) {
                int live = (int)p.a.d - at * width < width ? (int)p.a.d - at * width : width;
                v[0].load(x + at * width, live, whole);
                body(v[0], at * width);
            }
        }
    };
    if constexpr (HELD != 0) {
        UNROLL
        for (int i = 0; i < HELD; i++) {
            int at = (i * 32 + lane) * width;
            if (at < p.a.d)
                v[i].load(x + at, (int)p.a.d - at < width ? (int)p.a.d - at : width, whole);
        }
    }
    float sum = 0.0f;
    each([&](chunk<T> &c, int) {
        UNROLL
        for (int i = 0; i < chunk<T>::width; i++) sum += c.v[i]; /* beyond the row: zeros */
    });
    const float mean = warp_sum(sum) * share;
    float squares = 0.0f;
    each([&](chunk<T> &c, int at) {
        UNROLL
        for (int i = 0; i < chunk<T>::width; i++) {
            float off = at + i < p.a.d ? c.v[i] - mean : 0.0f;
            squares += off * off;
        }
    });
    const float rstd = 1.0f / sqrtf(warp_sum(squares) * share + (float)p.a.eps);
    each([&](chunk<T> &c, int at) {
        constexpr int wide = chunk<T>::width;
        float gamma[wide], beta[wide];
        const int live = (int)p.a.d - at < wide ? (int)p.a.d - at : wide;
        load_scale<wide>(gamma, beta, p.a.gamma, p.a.beta, p.a.weight_dtype, at, live);
        UNROLL
        for (int i = 0; i < wide; i++) c.v[i] = gamma[i] * ((c.v[i] - mean) * rstd) + beta[i];
        c.store(y + at, live, whole);
    });
    if (lane == 0 && p.a.mean) global_store((float *)p.a.mean + row, mean);
    if (lane == 0 && p.a.rstd) global_store((float *)p.a.rstd + row, rstd);
}

template <class T> KERNEL(norm_threads, 2) layer_grad_kernel(const layer_params p)
{
    const int width = chunk<T>::width;
    const int64_t row = (int64_t)block_x() * layer_rows + thread_index() / 32;
    const int lane = thread_index() % 32;
    if (row >= p.a.rows) return;
    const T *x = (const T *)p.a.x + row * p.a.d, *dy = (const T *)p.dy + row * p.a.d;
    T *dx = (T *)p.dx + row * p.a.d;
    const bool whole =
        p.a.d % width == 0 && is_aligned(p.a.x) && is_aligned(p.dy) && is_aligned(p.dx);
    const float mean = global_load<float>((const float *)p.a.mean + row);
    const float rstd = global_load<float>((const float *)p.a.rstd + row);
    float sum = 0.0f, sum_xhat = 0.0f;
    for (int pass = 0; pass < 2; pass++) {
        const float mean_u = sum / (float)p.a.d, mean_xhat = sum_xhat / (float)p.a.d;
        for (int at = lane * width; at < p.a.d; at += 32 * width) {
            const int live = (int)p.a.d - at < width ? (int)p.a.d - at : width;
            chunk<T> vx, vy, old;
            float gamma[width], beta[width];
            vx.load(x + at, live, whole);
            vy.load(dy + at, live, whole);
            load_scale<width>(gamma, beta, p.a.gamma, nullptr, p.a.weight_dtype, at, live);
            if (pass == 1 && p.accumulate) old.load(dx + at, live, whole);
            UNROLL
            for (int i = 0; i < width; i++) {
                float xhat = i < live ? (vx.v[i] - mean) * rstd : 0.0f, u = gamma[i] * vy.v[i];
                if (pass == 0) {
                    sum += u;
                    sum_xhat += u * xhat;
                    continue;
                }
                vx.v[i] = rstd * (u - mean_u - xhat * mean_xhat);
                if (p.accumulate) vx.v[i] += old.v[i];
            }
            if (pass == 1) vx.store(dx + at, live, whole);
        }
        if (pass == 0) sum = warp_sum(sum), sum_xhat = warp_sum(sum_xhat);
    }
}

/* 32 columns a block, 8 rows at a time, added in order */
template <class T> KERNEL(norm_threads, 4) layer_grad_weights_kernel(const layer_params p)
{
    const int x = thread_index() % 32, y = thread_index() / 32;
    const int64_t column = (int64_t)block_x() * 32 + x;
    float a = 0.0f, b = 0.0f;
    if (column < p.a.d) {
        for (int64_t r = y; r < p.a.rows; r += 8) {
            float dy = to_float(global_load<T>((const T *)p.dy + r * p.a.d + column));
            float v = to_float(global_load<T>((const T *)p.a.x + r * p.a.d + column));
            a += dy;
            b += dy * (v - global_load<float>((const float *)p.a.mean + r)) *
                 global_load<float>((const float *)p.a.rstd + r);
        }
    }
    const shared_t cells = shared_base();
    shared_store(cells + thread_index() * 8, word8{{float_to_bits(a), float_to_bits(b)}});
    block_sync();
    if (y != 0 || column >= p.a.d) return;
    for (int i = 1; i < 8; i++) {
        word8 pair = shared_load<word8>(cells + (i * 32 + x) * 8);
        a += bits_to_float(pair.word[0]);
        b += bits_to_float(pair.word[1]);
    }
    if (p.dbeta) global_store(p.dbeta + column, global_load<float>(p.dbeta + column) + a);
    if (p.dgamma) global_store(p.dgamma + column, global_load<float>(p.dgamma + column) + b);
}

template <class T> static int layer_forward(const layer_params &p, void *stream)
{
    dim3 grid((unsigned)((p.a.rows + layer_rows - 1) / layer_rows));
    int64_t chunks = (p.a.d + chunk<T>::width - 1) / chunk<T>::width;
    if (chunks <= 3 * 32)
        return launch<layer_kernel<T, 3>>("layer_norm_3", grid, norm_threads, 0, stream, p);
    if (chunks <= 5 * 32)
        return launch<layer_kernel<T, 5>>("layer_norm_5", grid, norm_threads, 0, stream, p);
    return launch<layer_kernel<T, 0>>("layer_norm", grid, norm_threads, 0, stream, p);
}

extern "C" int norm_layer(const struct layer_norm_args *a, void *stream)
{
    layer_params p = {*a, nullptr, nullptr, nullptr, nullptr, 0};
    if (a->dtype == DTYPE_F32) return layer_forward<float>(p, stream);
    if (a->dtype == DTYPE_F16) return layer_forward<f16>(p, stream);
    return layer_forward<bf16>(p, stream);
}

template <class T> static int layer_backward(const layer_params &p, void *stream)
{
    int rc = 0;
    if (p.dx)
        rc = launch<layer_grad_kernel<T>>(
            "layer_norm_grad", dim3((unsigned)((p.a.rows + layer_rows - 1) / layer_rows)),
            norm_threads, 0, stream, p);
    if (!rc && (p.dgamma || p.dbeta))
        rc = launch<layer_grad_weights_kernel<T>>("layer_norm_grad_weights",
                                                  dim3((unsigned)((p.a.d + 31) / 32)), norm_threads,
                                                  norm_threads * 8, stream, p);
    return rc;
}

extern "C" int norm_layer_grad(const struct layer_norm_grad_args *g, void *stream)
{
    layer_params p = {g->forward,        g->dy,        g->dx, (float *)g->dgamma,
                      (float *)g->dbeta, g->accumulate};
    if (p.a.dtype == DTYPE_F32) return layer_backward<float>(p, stream);
    if (p.a.dtype == DTYPE_F16) return layer_backward<f16>(p, stream);
    return layer_backward<bf16>(p, stream);
}
