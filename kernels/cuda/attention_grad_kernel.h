/*
 * attention_grad_kernel.h - the backward flash kernel of attention.h, included once for each
 * storage type.
 *
 * One kernel in two roles, so that nothing is added atomically. BY_KEYS: a block owns 64 keys and
 * the queries go by (dk, dv); otherwise it owns 64 queries and the keys go by (dq). With "own"
 * tiles X1, X2 and passing tiles Y1, Y2 both roles compute, in accumulators with own rows,
 *
 *     s = X1 Y1^T    p = exp(scale s - lse)    dp = X2 Y2^T    ds = p (dp - delta)
 *     keys:    X = K, V    Y = Q, dy    dv += p Y2     dk += ds Y1
 *     queries: X = Q, dy   Y = K, V                    dq += ds Y1
 *
 * One barrier a round; the passing tiles are double-buffered, and so are lse and delta of passing
 * queries, which threads read before a round and store behind it. Those of own queries are in
 * registers.
 */
#ifndef KERNELS_CUDA_ATTENTION_GRAD_KERNEL_H
#define KERNELS_CUDA_ATTENTION_GRAD_KERNEL_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.h"

static constexpr int grad_threads = 128, grad_own = 64;

struct flash_grad_params {
    attention_args a;
    const void *dy;
    void *dq, *dk, *dv;
    int accumulate;
    const float *delta;
};

template <int D, int PASSING> static constexpr int grad_shared()
{
    return (2 * grad_own + 4 * PASSING) * tile<D>::pitch + 2 * PASSING * 8;
}

/* What a query's weights are computed from: (lse in base 2, delta), zero where there is none. */
DEVICE word8 query_pair(const float *lse, const float *delta, int query, int lq)
{
    word8 pair = {{0, 0}};
    if (query < lq) {
        pair.word[0] = float_to_bits(global_load<float>(lse + query) * ATTENTION_LOG2E);
        pair.word[1] = float_to_bits(global_load<float>(delta + query));
    }
    return pair;
}

/* As multiply_rows, with the A fragments read step by step: the accumulators need the registers. */
template <class T, int D, int N>
DEVICE void multiply_stepwise(float (*c)[4], shared_t own, shared_t rows)
{
    const int lane = thread_index() % 32;
    const shared_t from_a = own + (lane % 16) * tile<D>::pitch + lane / 16 * 16;
    const shared_t from_b = rows + (lane % 8 + lane / 16 * 8) * tile<D>::pitch + lane / 8 % 2 * 16;
    UNROLL
    for (int i = 0; i < tile<D>::steps; i++) {
        uint32_t a[4];
        matrix_load4(a, from_a + 32 * i);
        UNROLL
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[4];
            matrix_load4(b, from_b + 16 * j * tile<D>::pitch + 32 * i);
            mma<T>(c[2 * j], a, b);
            mma<T>(c[2 * j + 1], a, b + 2);
        }
    }
    if constexpr (tile<D>::half_step) {
        uint32_t a[2];
        matrix_load2(a, own + (lane % 16) * tile<D>::pitch + 32 * tile<D>::steps);
        UNROLL
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[2];
            matrix_load2(b, rows + (16 * j + lane % 16) * tile<D>::pitch + 32 * tile<D>::steps);
            mma_k8<T>(c[2 * j], a, b);
            mma_k8<T>(c[2 * j + 1], a, b + 1);
        }
    }
}

template <class T, int D, int PASSING, bool BY_KEYS, bool ALIGNED>
KERNEL(grad_threads, 1)
flash_grad_kernel(const flash_grad_params p)
{
    /* 160 would spill on sm_75: the host side never asks for it there */
    if constexpr (D > ATTENTION_GRAD_SM75_D && !HAS_COPY_ASYNC) return;
    constexpr int own_bytes = grad_own * tile<D>::pitch, passing_bytes = PASSING * tile<D>::pitch;
    const int head = block_y(), image = block_z(), warp = thread_index() / 32;
    const int lane = thread_index() % 32, lq = (int)p.a.lq, lk = (int)p.a.lk, d = (int)p.a.d;
    const int first = block_x() * grad_own, row = first + 16 * warp + lane / 4;
    const int64_t of_q = (int64_t)image * lq, of_k = (int64_t)image * lk, at = head * d;
    const T *q = (const T *)p.a.q + of_q * p.a.ldq + at,
            *k = (const T *)p.a.k + of_k * p.a.ldk + at;
    const T *v = (const T *)p.a.v + of_k * p.a.ldv + at,
            *dy = (const T *)p.dy + of_q * p.a.ldy + at;
    const int64_t of_row = ((int64_t)image * p.a.heads + head) * lq;
    const float *lse = (const float *)p.a.lse + of_row, *delta = p.delta + of_row;

    const shared_t x1 = shared_base(), x2 = x1 + own_bytes, y1 = x2 + own_bytes;
    const shared_t y2 = y1 + 2 * passing_bytes;
    const shared_t pairs = y2 + 2 * passing_bytes; /* by keys: [stage][PASSING] of query_pair */
    const bool carries = BY_KEYS && thread_index() < PASSING;
    int from = 0, to = BY_KEYS ? lq : lk;
    if (p.a.causal && BY_KEYS) from = first / PASSING * PASSING;
    if (p.a.causal && !BY_KEYS && first + grad_own < to) to = first + grad_own;

    auto fetch_passing = [&](int start, int stage) {
        tile_fetch<T, D, PASSING, grad_threads, ALIGNED>(
            y1 + stage * passing_bytes, BY_KEYS ? q : k, BY_KEYS ? p.a.ldq : p.a.ldk, start,
            BY_KEYS ? lq : lk, d);
        tile_fetch<T, D, PASSING, grad_threads, ALIGNED>(
            y2 + stage * passing_bytes, BY_KEYS ? dy : v, BY_KEYS ? p.a.ldy : p.a.ldv, start,
            BY_KEYS ? lq : lk, d);
    };
    tile_fetch<T, D, grad_own, grad_threads, ALIGNED>(
        x1, BY_KEYS ? k : q, BY_KEYS ? p.a.ldk : p.a.ldq, first, BY_KEYS ? lk : lq, d);
    tile_fetch<T, D, grad_own, grad_threads, ALIGNED>(
        x2, BY_KEYS ? v : dy, BY_KEYS ? p.a.ldv : p.a.ldy, first, BY_KEYS ? lk : lq, d);
    if (from < to) fetch_passing(from, 0);
    copy_commit();
    if (carries)
        shared_store(pairs + thread_index() * 8, query_pair(lse, delta, from + thread_index(), lq));
    word8 own_pair[2] = {};
    if constexpr (!BY_KEYS) {
        own_pair[0] = query_pair(lse, delta, row, lq);
        own_pair[1] = query_pair(lse, delta, row + 8, lq);
    }

    float sum1[D / 8][4], sum2[BY_KEYS ? D / 8 : 1][4];
    UNROLL
    for (int j = 0; j < D / 8; j++) sum1[j][0] = sum1[j][1] = sum1[j][2] = sum1[j][3] = 0.0f;
    if constexpr (BY_KEYS) {
        UNROLL
        for (int j = 0; j < D / 8; j++) sum2[j][0] = sum2[j][1] = sum2[j][2] = sum2[j][3] = 0.0f;
    }
    const float scale = (float)p.a.scale * ATTENTION_LOG2E;
    const shared_t own1 = x1 + 16 * warp * tile<D>::pitch, own2 = x2 + 16 * warp * tile<D>::pitch;

    int stage = 0;
    for (int start = from; start < to; start += PASSING, stage ^= 1) {
        copy_wait<0>();
        block_sync(); /* the tiles have arrived; those before them have been read */
        if (start + PASSING < to) fetch_passing(start + PASSING, stage ^ 1);
        copy_commit();
        word8 next_pair = {{0, 0}};
        if (carries) next_pair = query_pair(lse, delta, start + PASSING + thread_index(), lq);
        float s[PASSING / 8][4], ds[PASSING / 8][4];
        UNROLL
        for (int j = 0; j < PASSING / 8; j++) {
            UNROLL
            for (int e = 0; e < 4; e++) s[j][e] = ds[j][e] = 0.0f;
        }
        multiply_stepwise<T, D, PASSING>(s, own1, y1 + stage * passing_bytes);
        multiply_stepwise<T, D, PASSING>(ds, own2, y2 + stage * passing_bytes);
        UNROLL
        for (int j = 0; j < PASSING / 8; j++) {
            word16 two = {{0, 0, 0, 0}};
            if constexpr (BY_KEYS)
                two = shared_load<word16>(pairs + (stage * PASSING + 8 * j + lane % 4 * 2) * 8);
            UNROLL
            for (int e = 0; e < 4; e++) {
                const int mine = row + e / 2 * 8, other = start + 8 * j + lane % 4 * 2 + e % 2;
                const int query = BY_KEYS ? other : mine, key = BY_KEYS ? mine : other;
                const bool live = query < lq && key < lk && !(p.a.causal && key > query);
                const float base =
                    bits_to_float(BY_KEYS ? two.word[e % 2 * 2] : own_pair[e / 2].word[0]);
                const float mean =
                    bits_to_float(BY_KEYS ? two.word[e % 2 * 2 + 1] : own_pair[e / 2].word[1]);
                const float weight = live ? exp2_fast(s[j][e] * scale - base) : 0.0f;
                s[j][e] = weight;
                ds[j][e] = weight * (ds[j][e] - mean);
            }
        }
        multiply_columns<T, D, PASSING>(sum1, ds, y1 + stage * passing_bytes);
        if constexpr (BY_KEYS) multiply_columns<T, D, PASSING>(sum2, s, y2 + stage * passing_bytes);
        if (carries) shared_store(pairs + ((stage ^ 1) * PASSING + thread_index()) * 8, next_pair);
    }
    copy_wait<0>(); /* a block that nothing passes still has its own tiles in flight */

    const float scales[2] = {(float)p.a.scale, (float)p.a.scale}, ones[2] = {1.0f, 1.0f};
    if constexpr (BY_KEYS) {
        if (p.dk)
            store_rows<T, D>((T *)p.dk + of_k * p.a.ldk + at, p.a.ldk, first + 16 * warp, lk, d,
                             sum1, scales, p.accumulate);
        if (p.dv)
            store_rows<T, D>((T *)p.dv + of_k * p.a.ldv + at, p.a.ldv, first + 16 * warp, lk, d,
                             sum2, ones, p.accumulate);
    } else {
        store_rows<T, D>((T *)p.dq + of_q * p.a.ldq + at, p.a.ldq, first + 16 * warp, lq, d, sum1,
                         scales, p.accumulate);
    }
}

template <class T, int D, int PASSING, bool ALIGNED>
int flash_grad_size(const char *name, const flash_grad_params &p, void *stream)
{
    const size_t shared = grad_shared<D, PASSING>();
    const unsigned heads = (unsigned)p.a.heads, images = (unsigned)p.a.n;
    int rc = 0;
    if (p.dq)
        rc = launch<flash_grad_kernel<T, D, PASSING, false, ALIGNED>>(
            name, dim3((unsigned)((p.a.lq + grad_own - 1) / grad_own), heads, images), grad_threads,
            shared, stream, p);
    if (!rc && (p.dk || p.dv))
        rc = launch<flash_grad_kernel<T, D, PASSING, true, ALIGNED>>(
            name, dim3((unsigned)((p.a.lk + grad_own - 1) / grad_own), heads, images), grad_threads,
            shared, stream, p);
    return rc;
}

template <class T>
int flash_grad_launch(const attention_grad_args *g, const float *delta, bool aligned, void *stream)
{
    const flash_grad_params p = {g->forward, g->dy, g->dq, g->dk, g->dv, g->accumulate, delta};
    const int64_t d = p.a.d;
    if (!aligned) {
        if (d <= 40) return flash_grad_size<T, 40, 32, false>("flash_grad_any_40", p, stream);
        if (d <= 80) return flash_grad_size<T, 80, 32, false>("flash_grad_any_80", p, stream);
        return 1; /* larger ones would spill; the host side goes the simple way */
    }
    if (d <= 40) return flash_grad_size<T, 40, 32, true>("flash_grad_40", p, stream);
    if (d <= 64) return flash_grad_size<T, 64, 32, true>("flash_grad_64", p, stream);
    if (d <= 80) return flash_grad_size<T, 80, 32, true>("flash_grad_80", p, stream);
    if (d <= 128) return flash_grad_size<T, 128, 16, true>("flash_grad_128", p, stream);
    if (d <= 160) return flash_grad_size<T, 160, 16, true>("flash_grad_160", p, stream);
    return 1;
}

#endif
