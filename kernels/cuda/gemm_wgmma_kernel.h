/*
 * gemm_wgmma_kernel.h - the products of gemm.h by compute capability 9.0's own means: bulk copies into
 *                       swizzled tiles and matrix products of four warps that read them there.
 *
 * One block stays on each multiprocessor and takes tiles of y in turn. Thread 0 of the first group of
 * four warps asks for slices of 64 channels of one tap, A's box and B's, into a ring of stages; two
 * groups of four warps each multiply half of a tile's rows. A stage is full when its bytes have come and
 * empty again when all eight warps know that the products that read it are over. The copies run ahead
 * into the next tile while this one's sums go through the epilogue, which is gemm_kernel.h's.
 *
 * Rows of A are pixels in order: rows of a matrix, or a walk over pictures that the copy itself does
 * (tensor_map.h), zero where a tap leaves the picture. Channels beyond c and rows beyond m or n come as
 * zeros too. Sources: PTX ISA (wrap_hopper.h); CUTLASS's notes on warp-specialised persistent kernels.
 */
#ifndef KERNELS_CUDA_GEMM_WGMMA_KERNEL_H
#define KERNELS_CUDA_GEMM_WGMMA_KERNEL_H

#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/gemm_wgmma.h"
#include "kernels/cuda/wrap_hopper.h"

static constexpr int wgmma_threads = 3 * 128; /* one group copies, two multiply */
static constexpr int wgmma_warps = 8;         /* that multiply */
static constexpr int wgmma_align = 1024;

template <int TM, int TN> struct gemm_wgmma_shape {
    static constexpr int a_bytes = TM * TENSOR_BOX * 2, b_bytes = TN * TENSOR_BOX * 2;
    static constexpr int stage_bytes = a_bytes + b_bytes;
    static constexpr int room = 227 * 1024 - wgmma_align - 128; /* without barriers and alignment */
    static constexpr int stages = room / stage_bytes < 6 ? room / stage_bytes : 6;
    static constexpr int shared_bytes = stages * stage_bytes + wgmma_align + 16 * stages;
    static constexpr int blocks_m = TM / 128; /* of 64 rows, that a group has */
    static_assert(stages >= 3 && b_bytes % 1024 == 0, "tiles of whole swizzle patterns");
};

/* Slices of K: all channels of a tap, 64 at a time, then the next tap. */
struct wgmma_slices {
    int chunks, from, to; /* of this split */

    DEVICE wgmma_slices(const gemm_args &g, int split)
    {
        chunks = (g.source.c + TENSOR_BOX - 1) / TENSOR_BOX;
        const int all = chunks * g.source.taps_h * g.source.taps_w;
        const int each = (all + g.splits - 1) / g.splits;
        from = split * each < all ? split * each : all;
        to = from + each < all ? from + each : all;
    }
};

/* Where a tile lies: tiles of a row of y come first, then rows, then phases and splits. */
template <int TM, int TN> struct wgmma_tile {
    int m, n, z, split, phase;

    DEVICE wgmma_tile(const gemm_args &g, int index)
    {
        const int across = (g.n + TN - 1) / TN, down = (g.m + TM - 1) / TM;
        n = index % across * TN;
        m = index / across % down * TM;
        z = index / across / down;
        split = z % g.splits;
        phase = z / g.splits;
    }
    DEVICE static int count(const gemm_args &g)
    {
        return (g.n + TN - 1) / TN * ((g.m + TM - 1) / TM) * g.phases * g.splits;
    }
};

/* A stage of the ring and the parity of the round it is in. */
struct wgmma_ring {
    int stage = 0, parity = 0;

    template <int STAGES> DEVICE void advance()
    {
        if (++stage < STAGES) return;
        stage = 0;
        parity ^= 1;
    }
};

/* One thread: asks for every slice of every tile of this block. */
template <class S, int TM, int TN>
DEVICE void wgmma_copy(const gemm_wgmma_args &p, shared_t stages, shared_t full, shared_t empty)
{
    const gemm_args &g = p.gemm;
    const gemm_source &s = g.source;
    wgmma_ring ring;
    for (int index = block_x(); index < wgmma_tile<TM, TN>::count(g); index += grid_x()) {
        const wgmma_tile<TM, TN> tile(g, index);
        const wgmma_slices slices(g, tile.split);
        const int image = tile.m / s.image_rows, pixel = tile.m - image * s.image_rows;
        const int y = pixel / s.row_px * s.step + s.y_from;
        const int x = pixel % s.row_px * s.step + s.x_from;
        for (int slice = slices.from; slice < slices.to; slice++) {
            const int tap = slice / slices.chunks, c = (slice - tap * slices.chunks) * TENSOR_BOX;
            const int tap_y = tap / s.taps_w, tap_x = tap - tap_y * s.taps_w;
            const shared_t at = stages + ring.stage * S::stage_bytes;
            const shared_t arrived = full + 8 * ring.stage;
            phase_wait(empty + 8 * ring.stage, ring.parity ^ 1);
            phase_expect(arrived, S::stage_bytes);
            if (p.pixels)
                tensor_load_pixels(at, &p.a, arrived, c, x, y, image, tap_x + (tile.phase & 1),
                                   tap_y + (tile.phase >> 1));
            else
                tensor_load(at, &p.a, arrived, c, tile.m, 0, 0);
            tensor_load(at + S::a_bytes, &p.b, arrived, c, tap, tile.n, tile.phase);
            ring.template advance<S::stages>();
        }
    }
}

/* What gemm_kernel does with the same fragment of 16 rows x 8 columns a warp. */
template <class T, int TN>
DEVICE void wgmma_store(const gemm_args &g, const float (&sums)[TN / 2], int m, int n0, int z,
                        int phase)
{
    const int t = thread_index() % 4 * 2;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int row_m = m + 8 * half;
        if (row_m >= g.m) continue;
        if (g.partial) {
            float *to = g.partial + ((int64_t)z * g.m + row_m) * ((g.n + 1) & ~1);
            UNROLL
            for (int j = 0; j < TN / 8; j++) {
                const int n = n0 + 8 * j + t;
                if (n < g.n)
                    global_store(to + n, word8{{float_to_bits(sums[4 * j + 2 * half]),
                                                float_to_bits(sums[4 * j + 2 * half + 1])}});
            }
            continue;
        }
        epilogue_row<T> row(g, row_m, phase >> 1, phase & 1);
        if (g.epilogue.geglu) {
            UNROLL
            for (int j = 0; j < TN / 8; j += 2)
                row.store_geglu(g, n0 + 8 * j + t, &sums[4 * j + 2 * half],
                                &sums[4 * j + 4 + 2 * half]);
            continue;
        }
        UNROLL
        for (int j = 0; j < TN / 8; j++)
            row.store(g, n0 + 8 * j + t, sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }
}

/* Four warps: their half of the rows of every tile of this block. */
template <class T, class S, int TM, int TN>
DEVICE void wgmma_multiply(const gemm_args &g, shared_t stages, shared_t full, shared_t empty)
{
    const int group = thread_index() / 128 - 1, warp = thread_index() / 32 % 4;
    const int lane = thread_index() % 32;
    wgmma_ring ring;
    for (int index = block_x(); index < wgmma_tile<TM, TN>::count(g); index += grid_x()) {
        const wgmma_tile<TM, TN> tile(g, index);
        const wgmma_slices slices(g, tile.split);
        float sums[S::blocks_m][TN / 2];
        UNROLL
        for (int i = 0; i < S::blocks_m; i++) {
            UNROLL
            for (int e = 0; e < TN / 2; e++) sums[i][e] = 0.0f;
        }
        int last = ring.stage;
        for (int slice = slices.from; slice < slices.to; slice++) {
            const shared_t at = stages + ring.stage * S::stage_bytes;
            const uint64_t a = matrix_rows(at + group * (S::a_bytes / 2));
            const uint64_t b = matrix_rows(at + S::a_bytes);
            phase_wait(full + 8 * ring.stage, ring.parity);
            group_fence();
            UNROLL
            for (int step = 0; step < TENSOR_BOX / 16; step++) {
                UNROLL
                for (int i = 0; i < S::blocks_m; i++) /* 64 rows are 8192 bytes, 16 k are 32 */
                    wgmma<T, TN>(sums[i], a + (8192 >> 4) * i + (32 >> 4) * step,
                                 b + (32 >> 4) * step, true);
            }
            group_commit();
            group_wait<1>(); /* the slice before is over: its stage is free */
            if (slice > slices.from && lane == 0) phase_arrive(empty + 8 * last);
            last = ring.stage;
            ring.template advance<S::stages>();
        }
        group_wait<0>();
        UNROLL
        for (int i = 0; i < S::blocks_m; i++) registers_hold(sums[i]);
        if (slices.from < slices.to && lane == 0) phase_arrive(empty + 8 * last);
        UNROLL
        for (int i = 0; i < S::blocks_m; i++)
            wgmma_store<T, TN>(g, sums[i],
                               tile.m + group * (TM / 2) + 64 * i + 16 * warp + lane / 4, tile.n,
                               tile.z, tile.phase);
    }
}

template <class T, int TM, int TN>
KERNEL(wgmma_threads, 1)
gemm_wgmma_kernel(const GRID_CONSTANT gemm_wgmma_args p)
{
    if constexpr (!HAS_WGMMA) return;
    using S = gemm_wgmma_shape<TM, TN>;
    const shared_t base = shared_base();
    const shared_t stages = base + (wgmma_align - base % wgmma_align) % wgmma_align;
    const shared_t full = stages + S::stages * S::stage_bytes, empty = full + 8 * S::stages;
    if (thread_index() == 0) {
        for (int i = 0; i < S::stages; i++) {
            phase_init(full + 8 * i, 1);
            phase_init(empty + 8 * i, wgmma_warps);
        }
        phase_init_visible();
    }
    block_sync();
    if (thread_index() < 128) {
        registers_give<40>();
        if (thread_index() == 0) wgmma_copy<S, TM, TN>(p, stages, full, empty);
    } else {
        registers_take<232>();
        wgmma_multiply<T, S, TM, TN>(p.gemm, stages, full, empty);
    }
}

template <class T, int TM, int TN>
int gemm_wgmma_launch(const char *name, const gemm_wgmma_args *p, void *stream)
{
    using S = gemm_wgmma_shape<TM, TN>;
    const gemm_args &g = p->gemm;
    int64_t tiles = (int64_t)((g.n + TN - 1) / TN) * ((g.m + TM - 1) / TM) * g.phases * g.splits;
    if (tiles > 1 << 30) return 1;
    dim3 grid((unsigned)(tiles < p->blocks ? tiles : p->blocks));
    return launch<gemm_wgmma_kernel<T, TM, TN>>(name, grid, wgmma_threads, S::shared_bytes, stream,
                                                *p);
}

/* the tiles, once: name, rows, columns */
#define GEMM_WGMMA_TABLE(X)                                                                        \
    X(GEMM_WGMMA_256X160, 256, 160)                                                                \
    X(GEMM_WGMMA_128X160, 128, 160)                                                                \
    X(GEMM_WGMMA_256X128, 256, 128)                                                                \
    X(GEMM_WGMMA_128X128, 128, 128)

#endif
