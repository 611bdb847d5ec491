/*
 * gemm_kernel.h - the tensor-core kernel of gemm.h; included by gemm_f16.cu and gemm_bf16.cu.
 *
 * One block computes a TM x TN tile of y. K goes by in slices of 32 through a ring of STAGES in
 * shared memory, filled by 16-byte asynchronous copies (zero where a tap leaves the picture). One
 * barrier a slice: it tells that the slice has arrived and that the stage to be filled next has
 * been read by all. Rows in shared memory are an odd number of 16-byte chunks apart, so ldmatrix
 * meets no bank conflict. Sources: CUTLASS "implicit GEMM convolution" notes for the gather.
 */
#ifndef KERNELS_CUDA_GEMM_KERNEL_H
#define KERNELS_CUDA_GEMM_KERNEL_H

#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/wrap.h"

static constexpr int gemm_slice = 32;
static constexpr int gemm_stages = 3;

/* Position of one 8-channel chunk in the (tap, channel) order of K. */
struct tap_cursor {
    int y, x, c;

    DEVICE void start(const gemm_source &s, int k)
    {
        int tap = k / s.c;
        c = k - tap * s.c;
        y = tap / s.taps_w;
        x = tap - y * s.taps_w;
    }
    DEVICE void advance(const gemm_source &s, int by)
    {
        c += by;
        while (c >= s.c) {
            c -= s.c;
            if (++x == s.taps_w) x = 0, y++;
        }
    }
};

/* Where an output pixel's taps start. */
struct row_origin {
    const char *image;
    int y, x;
};

template <class T>
DEVICE row_origin row_start(const gemm_source &s, int m, bool live, int phase_y, int phase_x)
{
    row_origin r;
    int image = m / s.image_rows;
    int pixel = m - image * s.image_rows;
    int oy = pixel / s.row_px, ox = pixel - oy * s.row_px;
    r.image = (const char *)s.a + (int64_t)image * s.image_pitch * (int)sizeof(T);
    r.y = live ? oy * s.step + s.y_from + phase_y : 1 << 28; /* far outside: reads zero */
    r.x = ox * s.step + s.x_from + phase_x;
    return r;
}

/* Address of a tap's channel c, or NULL for a zero. */
template <class T>
DEVICE const char *tap_address(const gemm_source &s, const row_origin &r, int tap_y, int tap_x,
                               int c)
{
    int y = r.y + s.sign * tap_y, x = r.x + s.sign * tap_x;
    if (s.circular) {
        if (y < 0)
            y += s.limit_h;
        else if (y >= s.limit_h && y < 1 << 27)
            y -= s.limit_h;
        if (x < 0)
            x += s.limit_w;
        else if (x >= s.limit_w)
            x -= s.limit_w;
    }
    bool live = (unsigned)y < (unsigned)s.limit_h && (unsigned)x < (unsigned)s.limit_w &&
                ((y | x) & s.mask) == 0;
    if (!live) return nullptr;
    int64_t pixel = (int64_t)(y >> s.shift) * s.source_px + (x >> s.shift);
    return r.image + (pixel * s.pixel_pitch + c) * (int)sizeof(T);
}

template <int TM, int TN, int WM, int WN, bool TRANSPOSED> struct gemm_shape {
    static constexpr int warps_m = TM / WM, warps_n = TN / WN;
    static constexpr int threads = 32 * warps_m * warps_n;
    static constexpr int a_pitch = gemm_slice * 2 + 16; /* bytes */
    static constexpr int b_pitch = TRANSPOSED ? TN * 2 + 16 : a_pitch;
    static constexpr int b_rows = TRANSPOSED ? gemm_slice : TN;
    static constexpr int b_chunks = TRANSPOSED ? TN / 8 : gemm_slice / 8; /* a row */
    static constexpr int stage_bytes = TM * a_pitch + b_rows * b_pitch;
    static constexpr int shared_bytes = gemm_stages * stage_bytes;
    static constexpr int a_each = TM * 4 / threads; /* chunks a thread copies a slice */
    static constexpr int b_each = (b_rows * b_chunks + threads - 1) / threads;
    static_assert(TM * 4 % threads == 0, "whole rows of A a thread");
};

/* acc += the two words of an fp16 fragment */
DEVICE void add_half(float *acc, const uint32_t *sum)
{
    UNROLL
    for (int r = 0; r < 2; r++) {
        float lo, hi;
        unpack<f16>(sum[r], lo, hi);
        acc[2 * r] += lo;
        acc[2 * r + 1] += hi;
    }
}

/* One slice with fp16 sums: its 32 products add up in fp16, then into the fp32 accumulators. */
template <class S, int TM, int WM, int WN>
DEVICE void slice_half(float (&acc)[WM / 16][WN / 8][4], shared_t at, shared_t a_lane,
                       shared_t b_lane, int warp_n, int lane)
{
    uint32_t fa[2][WM / 16][4];
    UNROLL
    for (int step = 0; step < 2; step++) {
        UNROLL
        for (int i = 0; i < WM / 16; i++)
            matrix_load4(fa[step][i], at + a_lane + 16 * i * S::a_pitch + 32 * step);
    }
    UNROLL
    for (int j = 0; j < (WN + 8) / 16; j++) {
        uint32_t fb[2][4];
        constexpr bool odd = WN % 16 != 0;
        const bool last = odd && j == WN / 16; /* known at compile time: the loop is unrolled */
        UNROLL
        for (int step = 0; step < 2; step++) {
            if (last)
                matrix_load2(fb[step], at + TM * S::a_pitch +
                                           (warp_n + WN - 8 + lane % 8) * S::b_pitch +
                                           lane / 8 % 2 * 16 + 32 * step);
            else
                matrix_load4(fb[step], at + b_lane + 16 * j * S::b_pitch + 32 * step);
        }
        UNROLL
        for (int i = 0; i < WM / 16; i++) {
            UNROLL
            for (int n = 0; n < 2; n++) {
                if (last && n) break;
                uint32_t sum[2] = {0, 0};
                mma_half(sum, fa[0][i], fb[0] + 2 * n);
                mma_half(sum, fa[1][i], fb[1] + 2 * n);
                add_half(acc[i][2 * j + n], sum);
            }
        }
    }
}

template <class T, int TM, int TN, int WM, int WN, bool TRANSPOSED, int BLOCKS, bool HALF = false>
KERNEL((gemm_shape<TM, TN, WM, WN, TRANSPOSED>::threads), BLOCKS)
gemm_kernel(const gemm_args p)
{
    using S = gemm_shape<TM, TN, WM, WN, TRANSPOSED>;
    const gemm_source &s = p.source;
    const int tid = thread_index(), warp = tid / 32, lane = tid % 32;
    const int warp_m = warp % S::warps_m * WM, warp_n = warp / S::warps_m * WN;
    const int m0 = block_y() * TM, n0 = block_x() * TN;
    const int split = block_z() % p.splits, phase = block_z() / p.splits;
    const int phase_y = phase >> 1, phase_x = phase & 1;
    const shared_t shared = shared_base();
    const int k_from = split * p.k_per_split;
    const int k_to = p.k < k_from + p.k_per_split ? p.k : k_from + p.k_per_split;
    const int slices = (k_to - k_from + gemm_slice - 1) / gemm_slice;

    /* what this thread copies: A rows a_row + i * threads / 4, always chunk a_chunk of the slice */
    const int a_chunk = tid % 4, a_row = tid / 4;
    row_origin origin[S::a_each];
    UNROLL
    for (int i = 0; i < S::a_each; i++) {
        int m = m0 + a_row + i * (S::threads / 4);
        origin[i] = row_start<T>(s, m < p.m ? m : 0, m < p.m, phase_y, phase_x);
    }
    tap_cursor a_at;
    a_at.start(s, k_from + 8 * a_chunk);
    tap_cursor b_at[S::b_each]; /* transposed form only */
    if constexpr (TRANSPOSED) {
        UNROLL
        for (int i = 0; i < S::b_each; i++)
            b_at[i].start(s, k_from + (tid + i * S::threads) / S::b_chunks);
    }
    const char *b = (const char *)p.b + (int64_t)phase * p.b_phase * (int)sizeof(T);

    auto fill = [&](int slice, int stage) {
        const int k = k_from + slice * gemm_slice;
        const shared_t at = shared + stage * S::stage_bytes;
        UNROLL
        for (int i = 0; i < S::a_each; i++) {
            const char *from = nullptr;
            if (k + 8 * a_chunk < k_to) from = tap_address<T>(s, origin[i], a_at.y, a_at.x, a_at.c);
            copy_async(at + (a_row + i * (S::threads / 4)) * S::a_pitch + 16 * a_chunk,
                       from ? from : (const char *)s.a, from != nullptr);
        }
        a_at.advance(s, gemm_slice);
        UNROLL
        for (int i = 0; i < S::b_each; i++) {
            const int index = tid + i * S::threads;
            const int row = index / S::b_chunks, chunk = index % S::b_chunks;
            if (S::b_rows * S::b_chunks % S::threads != 0 && row >= S::b_rows) break;
            bool live;
            int64_t offset;
            if constexpr (TRANSPOSED) {
                live = k + row < k_to && k + row < p.b_rows && n0 + 8 * chunk < p.n;
                offset = b_at[i].c * p.b_pitch +
                         (int64_t)(b_at[i].y * s.taps_w + b_at[i].x) * p.b_tap + n0 + 8 * chunk;
                b_at[i].advance(s, gemm_slice);
            } else {
                live = k + 8 * chunk < k_to && n0 + row < p.n;
                offset = (n0 + row) * p.b_pitch + k + 8 * chunk;
            }
            copy_async(at + TM * S::a_pitch + row * S::b_pitch + 16 * chunk,
                       live ? b + offset * (int)sizeof(T) : b, live);
        }
    };

    float acc[WM / 16][WN / 8][4];
    UNROLL
    for (int i = 0; i < WM / 16; i++) {
        UNROLL
        for (int j = 0; j < WN / 8; j++) {
            UNROLL
            for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;
        }
    }

    UNROLL
    for (int i = 0; i < gemm_stages - 1; i++) {
        if (i < slices) fill(i, i);
        copy_commit();
    }
    /* addresses that each lane gives to ldmatrix, relative to a stage */
    const shared_t a_lane = (warp_m + lane % 16) * S::a_pitch + lane / 16 * 16;
    const shared_t b_lane =
        TM * S::a_pitch +
        (TRANSPOSED ? (lane % 16) * S::b_pitch + (warp_n + lane / 16 * 8) * 2
                    : (warp_n + lane % 8 + lane / 16 * 8) * S::b_pitch + lane / 8 % 2 * 16);
    int stage = 0;
    for (int slice = 0; slice < slices; slice++) {
        copy_wait<gemm_stages - 2>();
        block_sync();
        int next = slice + gemm_stages - 1;
        if (next < slices) fill(next, stage == 0 ? gemm_stages - 1 : stage - 1);
        copy_commit();
        const shared_t at = shared + stage * S::stage_bytes;
        if constexpr (HALF) slice_half<S, TM, WM, WN>(acc, at, a_lane, b_lane, warp_n, lane);
        UNROLL
        for (int step = 0; step < (HALF ? 0 : gemm_slice / 16); step++) {
            uint32_t fa[WM / 16][4], fb[WN / 8][2];
            UNROLL
            for (int i = 0; i < WM / 16; i++)
                matrix_load4(fa[i], at + a_lane + 16 * i * S::a_pitch + 32 * step);
            UNROLL
            for (int j = 0; j < WN / 16; j++) {
                if constexpr (TRANSPOSED)
                    matrix_load4_transposed(fb[2 * j],
                                            at + b_lane + 16 * step * S::b_pitch + 32 * j);
                else
                    matrix_load4(fb[2 * j], at + b_lane + 16 * j * S::b_pitch + 32 * step);
            }
            if constexpr (WN % 16 != 0) {
                constexpr int j = WN / 8 - 1;
                if constexpr (TRANSPOSED)
                    matrix_load2_transposed(fb[j], at + b_lane + 16 * step * S::b_pitch + 16 * j);
                else
                    matrix_load2(fb[j], at + TM * S::a_pitch +
                                            (warp_n + 8 * j + lane % 8) * S::b_pitch +
                                            lane / 8 % 2 * 16 + 32 * step);
            }
            UNROLL
            for (int i = 0; i < WM / 16; i++) {
                UNROLL
                for (int j = 0; j < WN / 8; j++) mma<T>(acc[i][j], fa[i], fb[j]);
            }
        }
        stage = stage + 1 == gemm_stages ? 0 : stage + 1;
    }

    const int g = lane / 4, t = lane % 4 * 2;
    const int64_t n_pitch = (p.n + 1) & ~1;
    UNROLL
    for (int i = 0; i < WM / 16; i++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int m = m0 + warp_m + 16 * i + 8 * half + g;
            if (m >= p.m) continue;
            if (p.partial) {
                float *to = p.partial + ((int64_t)block_z() * p.m + m) * n_pitch;
                UNROLL
                for (int j = 0; j < WN / 8; j++) {
                    int n = n0 + warp_n + 8 * j + t;
                    if (n < p.n)
                        global_store(to + n, word8{{float_to_bits(acc[i][j][2 * half]),
                                                    float_to_bits(acc[i][j][2 * half + 1])}});
                }
                continue;
            }
            epilogue_row<T> row(p, m, phase_y, phase_x);
            if (p.epilogue.geglu) {
                if constexpr (WN % 16 == 0) {
                    UNROLL
                    for (int j = 0; j < WN / 8; j += 2)
                        row.store_geglu(p, n0 + warp_n + 8 * j + t, &acc[i][j][2 * half],
                                        &acc[i][j + 1][2 * half]);
                }
                continue;
            }
            UNROLL
            for (int j = 0; j < WN / 8; j++)
                row.store(p, n0 + warp_n + 8 * j + t, acc[i][j][2 * half], acc[i][j][2 * half + 1]);
        }
    }
}

template <class T, int TM, int TN, int WM, int WN, bool TRANSPOSED, int BLOCKS, bool HALF = false>
int gemm_launch_tile(const char *name, const gemm_args *p, void *stream)
{
    using S = gemm_shape<TM, TN, WM, WN, TRANSPOSED>;
    dim3 grid((unsigned)((p->n + TN - 1) / TN), (unsigned)((p->m + TM - 1) / TM),
              (unsigned)(p->phases * p->splits));
    return launch<gemm_kernel<T, TM, TN, WM, WN, TRANSPOSED, BLOCKS, HALF>>(
        name, grid, S::threads, S::shared_bytes, stream, *p);
}

/* the tiles, once: name, rows, columns, warp's rows and columns, blocks a multiprocessor */
#define GEMM_TILE_TABLE(X)                                                                         \
    X(GEMM_128X160, 128, 160, 32, 80, 1)                                                           \
    X(GEMM_64X160, 64, 160, 32, 80, 2)                                                             \
    X(GEMM_128X128, 128, 128, 32, 64, 1)                                                           \
    X(GEMM_128X80, 128, 80, 32, 80, 2)                                                             \
    X(GEMM_64X80, 64, 80, 32, 40, 3)

template <class T>
int gemm_launch(enum gemm_tile tile, int transposed, const gemm_args *p, void *stream)
{
    switch (tile) {
#define X(name, tm, tn, wm, wn, blocks)                                                            \
    case name:                                                                                     \
        return transposed                                                                          \
                   ? gemm_launch_tile<T, tm, tn, wm, wn, true, blocks>(#name "_T", p, stream)      \
                   : gemm_launch_tile<T, tm, tn, wm, wn, false, blocks>(#name, p, stream);
        GEMM_TILE_TABLE(X)
#undef X
    default: return 1;
    }
}

#endif
