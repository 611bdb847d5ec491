/*
 * attention_kernel.h - the forward flash kernel of attention.h; included once for each storage
 * type.
 *
 * A block has 64 queries of one head, 16 to a warp, in registers; K and V go by in tiles of KEYS
 * rows, two of each in flight. Scores, maxima and sums stay in fp32 registers; probabilities are
 * rounded to T for the second product. KEYS 80 serves the 77 tokens of a prompt in one tile.
 */
#ifndef KERNELS_CUDA_ATTENTION_KERNEL_H
#define KERNELS_CUDA_ATTENTION_KERNEL_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.h"

static constexpr int flash_threads = 128, flash_queries = 64;

template <int D, int KEYS, bool ONCE> static constexpr int flash_shared()
{
    return (flash_queries + (ONCE ? 2 : 4) * KEYS) * tile<D>::pitch;
}

template <class T, int D, int KEYS, bool ONCE, bool ALIGNED, int BLOCKS>
KERNEL(flash_threads, BLOCKS)
flash_kernel(const attention_args p)
{
    constexpr int tiles = KEYS / 8, tile_bytes = KEYS * tile<D>::pitch;
    const int head = block_y(), image = block_z(), warp = thread_index() / 32;
    const int lane = thread_index() % 32;
    const int first = block_x() * flash_queries, row = first + 16 * warp + lane / 4;
    const int lq = (int)p.lq, lk = (int)p.lk, d = (int)p.d;
    const T *q = (const T *)p.q + (int64_t)image * lq * p.ldq + head * d;
    const T *k = (const T *)p.k + (int64_t)image * lk * p.ldk + head * d;
    const T *v = (const T *)p.v + (int64_t)image * lk * p.ldv + head * d;
    const shared_t shared_q = shared_base(), shared_k = shared_q + flash_queries * tile<D>::pitch;
    const shared_t shared_v = shared_k + (ONCE ? 1 : 2) * tile_bytes;
    int keys = lk; /* that any query of this block sees */
    if (p.causal && first + flash_queries < keys) keys = first + flash_queries;
    const int rounds = ONCE ? 1 : (keys + KEYS - 1) / KEYS;

    tile_fetch<T, D, flash_queries, flash_threads, ALIGNED>(shared_q, q, p.ldq, first, lq, d);
    tile_fetch<T, D, KEYS, flash_threads, ALIGNED>(shared_k, k, p.ldk, 0, lk, d);
    copy_commit();
    tile_fetch<T, D, KEYS, flash_threads, ALIGNED>(shared_v, v, p.ldv, 0, lk, d);
    copy_commit();

    fragment<D> fq;
    float y[D / 8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    UNROLL
    for (int j = 0; j < D / 8; j++) y[j][0] = y[j][1] = y[j][2] = y[j][3] = 0.0f;
    const float scale = (float)p.scale * ATTENTION_LOG2E;

    for (int round = 0; round < rounds; round++) {
        const int stage = ONCE ? 0 : round & 1;
        copy_wait<1>();
        block_sync(); /* K has arrived; the K tile before it has been read */
        if (round == 0) fq.load(shared_q + 16 * warp * tile<D>::pitch);
        if (!ONCE && round + 1 < rounds)
            tile_fetch<T, D, KEYS, flash_threads, ALIGNED>(shared_k + (stage ^ 1) * tile_bytes, k,
                                                           p.ldk, (round + 1) * KEYS, lk, d);
        copy_commit();
        float s[tiles][4];
        UNROLL
        for (int j = 0; j < tiles; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
        multiply_rows<T, D, KEYS>(s, fq, shared_k + stage * tile_bytes);

        const int key = round * KEYS + lane % 4 * 2;
        if ((round + 1) * KEYS > lk || (p.causal && (round + 1) * KEYS > first + 16 * warp)) {
            UNROLL
            for (int j = 0; j < tiles; j++) {
                UNROLL
                for (int e = 0; e < 4; e++) {
                    int at = key + 8 * j + e % 2;
                    if (at >= lk || (p.causal && at > row + e / 2 * 8)) s[j][e] = -INFINITY;
                }
            }
        }
        UNROLL
        for (int half = 0; half < 2; half++) {
            float most = top[half];
            UNROLL
            for (int j = 0; j < tiles; j++)
                most = fmaxf(most, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
            most = quad_max(most);
            /* the first key is visible to every row, so `most` is finite from the first round on */
            const float shrink = exp2_fast((top[half] - most) * scale), base = most * scale;
            top[half] = most;
            float part = 0.0f;
            UNROLL
            for (int j = 0; j < tiles; j++) {
                UNROLL
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[j][e] = exp2_fast(s[j][e] * scale - base);
                    part += s[j][e];
                }
            }
            sum[half] = sum[half] * shrink + part;
            UNROLL
            for (int j = 0; j < D / 8; j++) y[j][2 * half] *= shrink, y[j][2 * half + 1] *= shrink;
        }

        copy_wait<1>();
        block_sync(); /* V has arrived; the V tile before it has been read */
        if (!ONCE && round + 1 < rounds)
            tile_fetch<T, D, KEYS, flash_threads, ALIGNED>(shared_v + (stage ^ 1) * tile_bytes, v,
                                                           p.ldv, (round + 1) * KEYS, lk, d);
        copy_commit();
        multiply_columns<T, D, KEYS>(y, s, shared_v + stage * tile_bytes);
    }

    float factor[2];
    UNROLL
    for (int half = 0; half < 2; half++) {
        const float whole = quad_sum(sum[half]);
        factor[half] = 1.0f / whole;
        if (p.lse && lane % 4 == 0 && row + 8 * half < lq)
            global_store((float *)p.lse + ((int64_t)image * p.heads + head) * lq + row + 8 * half,
                         top[half] * (float)p.scale + logf(whole));
    }
    store_rows<T, D>((T *)p.y + (int64_t)image * lq * p.ldy + head * d, p.ldy, first + 16 * warp,
                     lq, d, y, factor, false);
}

template <class T, int D, int KEYS, bool ONCE, bool ALIGNED, int BLOCKS>
int flash_launch_one(const char *name, const attention_args *p, void *stream)
{
    dim3 grid((unsigned)((p->lq + flash_queries - 1) / flash_queries), (unsigned)p->heads,
              (unsigned)p->n);
    return launch<flash_kernel<T, D, KEYS, ONCE, ALIGNED, BLOCKS>>(
        name, grid, flash_threads, flash_shared<D, KEYS, ONCE>(), stream, *p);
}

template <class T>
int flash_launch(const attention_args *p, bool aligned, size_t shared_limit, void *stream)
{
    /* odd head sizes and rows go through the nearest of three */
    if (!aligned) {
        if (p->d <= 40)
            return flash_launch_one<T, 40, 64, false, false, 2>("flash_any_40", p, stream);
        if (p->d <= 80)
            return flash_launch_one<T, 80, 64, false, false, 2>("flash_any_80", p, stream);
        return flash_launch_one<T, 160, 32, false, false, 1>("flash_any_160", p, stream);
    }
    /* head size, keys a tile, blocks a multiprocessor: of the looping form and of the 80-key form */
#define FLASH_TABLE(X)                                                                             \
    X(40, 64, 3, 3) X(64, 64, 3, 2) X(80, 64, 2, 2) X(128, 32, 2, 2) X(160, 32, 2, 2)
#define X(size, keys, blocks, blocks_once)                                                         \
    if (p->d <= size) {                                                                            \
        if (p->lk > 64 && p->lk <= 80 && flash_shared<size, 80, true>() <= (int)shared_limit)      \
            return flash_launch_one<T, size, 80, true, true, blocks_once>("flash_" #size "_once",  \
                                                                          p, stream);              \
        return flash_launch_one<T, size, keys, false, true, blocks>("flash_" #size, p, stream);    \
    }
    FLASH_TABLE(X)
#undef X
    return 1;
}

#endif
