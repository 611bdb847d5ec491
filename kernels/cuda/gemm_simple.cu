/*
 * gemm_simple.cu - the products of gemm.h on ordinary arithmetic units: F32 storage, shapes that
 * the tensor-core kernels do not take (4 latent channels, odd pitches), weight gradients, and the
 * last step of a split. 64 x 64 tiles, slices of 16, four by four sums a thread; fp32 throughout.
 */
#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_kernel.h"
#include "kernels/cuda/wrap.h"

static constexpr int simple_tile = 64, simple_slice = 16, simple_threads = 256;
static constexpr int simple_pitch = (simple_tile + 4) * 4; /* bytes a k row in shared memory */
static constexpr int simple_shared = 2 * simple_slice * simple_pitch;

/* acc[i][j] += A[k][4 ty + i] * B[k][4 tx + j] over one slice */
DEVICE void simple_multiply(float acc[4][4], shared_t a, shared_t b)
{
    UNROLL
    for (int k = 0; k < simple_slice; k++) {
        word16 va = shared_load<word16>(a + k * simple_pitch);
        word16 vb = shared_load<word16>(b + k * simple_pitch);
        UNROLL
        for (int i = 0; i < 4; i++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                acc[i][j] += bits_to_float(va.word[i]) * bits_to_float(vb.word[j]);
        }
    }
}

DEVICE void simple_clear(float acc[4][4])
{
    UNROLL
    for (int i = 0; i < 4; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) acc[i][j] = 0.0f;
    }
}

template <class T> DEVICE float tap_value(const gemm_source &s, const row_origin &r, int k)
{
    tap_cursor at;
    at.start(s, k);
    const char *from = tap_address<T>(s, r, at.y, at.x, at.c);
    return from ? to_float(global_load<T>(from)) : 0.0f;
}

template <class T, bool TRANSPOSED> KERNEL(simple_threads, 2) gemm_simple_kernel(const gemm_args p)
{
    const gemm_source &s = p.source;
    const int tid = thread_index(), tx = tid % 16, ty = tid / 16;
    const int m0 = block_y() * simple_tile, n0 = block_x() * simple_tile;
    const shared_t shared_a = shared_base(), shared_b = shared_a + simple_slice * simple_pitch;
    /* A: thread copies row tid / 4, four k; B: row (or k) likewise */
    const int row = tid / 4, part = tid % 4 * 4;
    const int m = m0 + row;
    const row_origin origin = row_start<T>(s, m < p.m ? m : 0, m < p.m, 0, 0);
    float acc[4][4];
    simple_clear(acc);
    for (int k0 = 0; k0 < p.k; k0 += simple_slice) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            int k = k0 + part + i;
            float a = k < p.k ? tap_value<T>(s, origin, k) : 0.0f;
            shared_store(shared_a + (part + i) * simple_pitch + row * 4, a);
        }
        UNROLL
        for (int i = 0; i < 4; i++) {
            float b = 0.0f;
            int k, n;
            if constexpr (TRANSPOSED) {
                k = k0 + tid / 16, n = n0 + tid % 16 * 4 + i;
                if (k < p.k && k < p.b_rows && n < p.n) {
                    int tap = k / s.c, c = k - tap * s.c;
                    b = to_float(
                        global_load<T>((const T *)p.b + c * p.b_pitch + tap * p.b_tap + n));
                }
            } else {
                k = k0 + part + i, n = n0 + row;
                if (k < p.k && n < p.n)
                    b = to_float(global_load<T>((const T *)p.b + n * p.b_pitch + k));
            }
            shared_store(shared_b + (k - k0) * simple_pitch + (n - n0) * 4, b);
        }
        block_sync();
        simple_multiply(acc, shared_a + 16 * ty, shared_b + 16 * tx);
        block_sync();
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        if (m0 + 4 * ty + i >= p.m) continue;
        if (p.partial) {
            float *to = p.partial + (int64_t)(m0 + 4 * ty + i) * ((p.n + 1) & ~1) + n0 + 4 * tx;
            UNROLL
            for (int j = 0; j < 4; j++)
                if (n0 + 4 * tx + j < p.n) global_store(to + j, acc[i][j]);
            continue;
        }
        epilogue_row<T> out(p, m0 + 4 * ty + i, 0, 0);
        out.store(p, n0 + 4 * tx, acc[i][0], acc[i][1]);
        out.store(p, n0 + 4 * tx + 2, acc[i][2], acc[i][3]);
    }
}

template <class T> static int simple_launch(const gemm_args *p, int transposed, void *stream)
{
    dim3 grid((unsigned)((p->n + simple_tile - 1) / simple_tile),
              (unsigned)((p->m + simple_tile - 1) / simple_tile));
    return transposed ? launch<gemm_simple_kernel<T, true>>("gemm_simple_T", grid, simple_threads,
                                                            simple_shared, stream, *p)
                      : launch<gemm_simple_kernel<T, false>>("gemm_simple", grid, simple_threads,
                                                             simple_shared, stream, *p);
}

extern "C" int gemm_simple(const struct gemm_args *p, int transposed, int dtype, void *stream)
{
    if (dtype == KERNEL_F32) return simple_launch<float>(p, transposed, stream);
    if (dtype == KERNEL_F16) return simple_launch<f16>(p, transposed, stream);
    return simple_launch<bf16>(p, transposed, stream);
}

/* ---- the end of a split ---- */

template <class T> KERNEL(256, 4) gemm_reduce_kernel(const gemm_args p)
{
    const int n_pitch = (p.n + 1) & ~1;
    const int64_t pairs = (int64_t)p.m * (n_pitch / 2);
    const int64_t index = (int64_t)block_x() * 256 + thread_index();
    const int phase = block_y();
    if (index >= pairs) return;
    const int m = (int)(index / (n_pitch / 2)), n = (int)(index % (n_pitch / 2)) * 2;
    const float *from = p.partial + ((int64_t)phase * p.splits * p.m + m) * n_pitch + n;
    float a = 0.0f, b = 0.0f;
    for (int split = 0; split < p.splits; split++) {
        word8 v = global_load<word8>(from + (int64_t)split * p.m * n_pitch);
        a += bits_to_float(v.word[0]);
        b += bits_to_float(v.word[1]);
    }
    epilogue_row<T> out(p, m, phase >> 1, phase & 1);
    out.store(p, n, a, b);
}

template <class T> static int reduce_launch(const gemm_args *p, void *stream)
{
    int64_t pairs = (int64_t)p->m * ((p->n + 1) / 2);
    return launch<gemm_reduce_kernel<T>>("gemm_reduce",
                                         dim3((unsigned)((pairs + 255) / 256), (unsigned)p->phases),
                                         256, 0, stream, *p);
}

extern "C" int gemm_reduce(const struct gemm_args *p, int dtype, void *stream)
{
    if (dtype == KERNEL_F32) return reduce_launch<float>(p, stream);
    if (dtype == KERNEL_F16) return reduce_launch<f16>(p, stream);
    return reduce_launch<bf16>(p, stream);
}

/* ---- weight gradients: rows of the product are output channels, columns (tap, channel) ---- */

template <class T> KERNEL(simple_threads, 2) gemm_dw_kernel(const gemm_dw_args p)
{
    const gemm_source &s = p.source;
    const int tid = thread_index(), tx = tid % 16, ty = tid / 16;
    const int k = s.taps_h * s.taps_w * s.c;
    const int o0 = block_y() * simple_tile, k0 = block_x() * simple_tile;
    const int m_from = block_z() * p.m_per_split;
    const int m_to = p.m < m_from + p.m_per_split ? p.m : m_from + p.m_per_split;
    const shared_t shared_a = shared_base(), shared_b = shared_a + simple_slice * simple_pitch;
    float acc[4][4];
    simple_clear(acc);
    for (int m0 = m_from; m0 < m_to; m0 += simple_slice) {
        const int m = m0 + tid / 16, column = tid % 16 * 4;
        const row_origin origin = row_start<T>(s, m < m_to ? m : 0, m < m_to, 0, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            int o = o0 + column + i;
            float dy = 0.0f, x = 0.0f;
            if (m < m_to && o < p.o)
                dy = to_float(global_load<T>((const T *)p.dy + m * p.dy_pitch + o));
            if (k0 + column + i < k) x = tap_value<T>(s, origin, k0 + column + i);
            shared_store(shared_a + (m - m0) * simple_pitch + (column + i) * 4, dy);
            shared_store(shared_b + (m - m0) * simple_pitch + (column + i) * 4, x);
        }
        block_sync();
        simple_multiply(acc, shared_a + 16 * ty, shared_b + 16 * tx);
        block_sync();
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            int o = o0 + 4 * ty + i, column = k0 + 4 * tx + j;
            if (o < p.o && column < k)
                global_store(p.partial + ((int64_t)block_z() * p.o + o) * k + column, acc[i][j]);
        }
    }
}

KERNEL(256, 4)
gemm_dw_reduce_kernel(const gemm_dw_args p)
{
    const int taps = p.source.taps_h * p.source.taps_w, k = taps * p.source.c;
    const int64_t count = (int64_t)p.o * k, index = (int64_t)block_x() * 256 + thread_index();
    if (index >= count) return;
    float sum = 0.0f;
    for (int split = 0; split < p.splits; split++)
        sum += global_load<float>(p.partial + split * count + index);
    const int o = (int)(index / k), column = (int)(index % k);
    const int tap = column / p.source.c, c = column - tap * p.source.c;
    float *to = p.dw + ((int64_t)o * p.source.c + c) * taps + tap;
    global_store(to, global_load<float>(to) + sum);
}

extern "C" int gemm_dw(const struct gemm_dw_args *p, int dtype, void *stream)
{
    const int k = p->source.taps_h * p->source.taps_w * p->source.c;
    dim3 grid((unsigned)((k + simple_tile - 1) / simple_tile),
              (unsigned)((p->o + simple_tile - 1) / simple_tile), (unsigned)p->splits);
    int rc;
    if (dtype == KERNEL_F32)
        rc = launch<gemm_dw_kernel<float>>("gemm_dw", grid, simple_threads, simple_shared, stream,
                                           *p);
    else if (dtype == KERNEL_F16)
        rc =
            launch<gemm_dw_kernel<f16>>("gemm_dw", grid, simple_threads, simple_shared, stream, *p);
    else
        rc = launch<gemm_dw_kernel<bf16>>("gemm_dw", grid, simple_threads, simple_shared, stream,
                                          *p);
    if (rc) return rc;
    return launch<gemm_dw_reduce_kernel>(
        "gemm_dw_reduce", dim3((unsigned)(((int64_t)p->o * k + 255) / 256)), 256, 0, stream, *p);
}
