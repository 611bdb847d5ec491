/*
 * attention_wgmma_kernel.h - the kernel of attention_wgmma.h; included once for each storage type.
 *
 * A block has 128 queries of one head. Thread 0 of the first group of four warps asks for Q and then for
 * tiles of K and V, two of each in flight; two groups of four warps have 64 queries each. While the
 * tensor cores multiply a tile's weights with V, the group takes the exponentials of the next tile's
 * scores: the products of both are under way at once. Sums, maxima and scores stay in fp32 registers, the
 * weights are rounded to T and are the left operand from registers.
 *
 * A tile in shared memory is panels of 64 columns, rows of 128 bytes; columns beyond the head's own
 * size and rows beyond the last are zeros that the copy writes. Source: Shah et al., FlashAttention-3
 * (2024), sections 3.1 and 3.2; softmax as in attention_kernel.h.
 */
#ifndef KERNELS_CUDA_ATTENTION_WGMMA_KERNEL_H
#define KERNELS_CUDA_ATTENTION_WGMMA_KERNEL_H

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/attention_wgmma.h"
#include "kernels/cuda/wrap_hopper.h"

template <int D, int KEYS> struct attention_wgmma_shape {
    static constexpr int threads = 3 * 128, queries = ATTENTION_WGMMA_QUERIES;
    static constexpr int panels = D / TENSOR_BOX;
    static constexpr int q_panel = queries * TENSOR_BOX * 2, panel = KEYS * TENSOR_BOX * 2;
    static constexpr int q_bytes = panels * q_panel, tile_bytes = panels * panel;
    static constexpr int barriers = 9;
    static constexpr int shared_bytes = 1024 + q_bytes + 4 * tile_bytes + 8 * barriers;
    static_assert(D % TENSOR_BOX == 0 && KEYS % 16 == 0, "whole panels and steps");
};

/* What lies where: Q, two tiles of K, two of V, and for each of the five (and for K and V's room) a
 * barrier. */
template <class S> struct attention_room {
    shared_t q, k, v, q_full, k_full, k_empty, v_full, v_empty;

    DEVICE attention_room()
    {
        const shared_t base = shared_base();
        q = base + (1024 - base % 1024) % 1024;
        k = q + S::q_bytes;
        v = k + 2 * S::tile_bytes;
        q_full = v + 2 * S::tile_bytes;
        k_full = q_full + 8;
        k_empty = k_full + 16;
        v_full = k_empty + 16;
        v_empty = v_full + 16;
    }
};

/* The keys that any query of a block sees, in tiles. */
template <int KEYS> DEVICE int attention_rounds(const attention_args &a, int first)
{
    int keys = (int)a.lk;
    if (a.causal && first + ATTENTION_WGMMA_QUERIES < keys) keys = first + ATTENTION_WGMMA_QUERIES;
    return (keys + KEYS - 1) / KEYS;
}

/* One thread: Q, then every tile of K and V when its room is empty. */
template <class S, int KEYS>
DEVICE void attention_copy(const attention_wgmma_args &p, const attention_room<S> &room)
{
    const int head = block_y(), image = block_z(), first = block_x() * S::queries;
    const int rounds = attention_rounds<KEYS>(p.a, first);
    phase_expect(room.q_full, S::q_bytes);
    for (int i = 0; i < S::panels; i++)
        tensor_load(room.q + i * S::q_panel, &p.q, room.q_full, TENSOR_BOX * i, head, first, image);
    for (int round = 0; round < rounds; round++) {
        const int stage = round & 1, parity = round >> 1 & 1;
        phase_wait(room.k_empty + 8 * stage, parity ^ 1);
        phase_expect(room.k_full + 8 * stage, S::tile_bytes);
        for (int i = 0; i < S::panels; i++)
            tensor_load(room.k + stage * S::tile_bytes + i * S::panel, &p.k,
                        room.k_full + 8 * stage, TENSOR_BOX * i, head, round * KEYS, image);
        phase_wait(room.v_empty + 8 * stage, parity ^ 1);
        phase_expect(room.v_full + 8 * stage, S::tile_bytes);
        for (int i = 0; i < S::panels; i++)
            tensor_load(room.v + stage * S::tile_bytes + i * S::panel, &p.v,
                        room.v_full + 8 * stage, TENSOR_BOX * i, head, round * KEYS, image);
    }
}

/* Four warps with 64 queries. */
template <class T, class S, int D, int KEYS> struct attention_group {
    const attention_args &a;
    const attention_room<S> &room;
    int group, lane, row; /* row: of this thread's upper half */
    float scale;          /* to base 2 */
    float top[2], sum[2], shrink[2];
    float scores[KEYS / 2], y[D / 2];
    uint32_t weights[KEYS / 16][4];

    DEVICE attention_group(const attention_args &args, const attention_room<S> &where)
        : a(args), room(where)
    {
        group = thread_index() / 128 - 1;
        lane = thread_index() % 32;
        row = block_x() * S::queries + 64 * group + thread_index() / 32 % 4 * 16 + lane / 4;
        scale = (float)a.scale * ATTENTION_LOG2E;
        top[0] = top[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
        UNROLL
        for (int i = 0; i < D / 2; i++) y[i] = 0.0f;
    }

    /* scores = Q . K^T of a round's tile; asynchronous */
    DEVICE void multiply_keys(int round)
    {
        const int stage = round & 1;
        const shared_t q = room.q + 64 * 128 * group, k = room.k + stage * S::tile_bytes;
        phase_wait(room.k_full + 8 * stage, round >> 1 & 1);
        group_fence();
        UNROLL
        for (int step = 0; step < D / 16; step++)
            wgmma<T, KEYS>(scores, matrix_rows(q + step / 4 * S::q_panel + step % 4 * 32),
                           matrix_rows(k + step / 4 * S::panel + step % 4 * 32), step > 0);
        group_commit();
    }

    /* y += weights . V of a round's tile; asynchronous */
    DEVICE void multiply_values(int round)
    {
        const int stage = round & 1;
        const shared_t v = room.v + stage * S::tile_bytes;
        phase_wait(room.v_full + 8 * stage, round >> 1 & 1);
        group_fence(); /* y and the weights were the program's */
        UNROLL
        for (int step = 0; step < KEYS / 16; step++)
            wgmma_registers<T, D>(y, weights[step], matrix_columns(v + step * 16 * 128, S::panel),
                                  true);
        group_commit();
    }

    DEVICE void give_back(shared_t empty, int round)
    {
        if (lane == 0) phase_arrive(empty + 8 * (round & 1));
    }

    /* scores beyond the last key, or after the query, to -infinity */
    DEVICE void mask(int round)
    {
        const int lk = (int)a.lk, key = round * KEYS + lane % 4 * 2;
        if ((round + 1) * KEYS <= lk && !(a.causal && (round + 1) * KEYS > row - lane / 4)) return;
        UNROLL
        for (int i = 0; i < KEYS / 2; i++) {
            const int at = key + i / 4 * 8 + i % 2;
            if (at >= lk || (a.causal && at > row + i / 2 % 2 * 8)) scores[i] = -INFINITY;
        }
    }

    /* scores become weights (unscaled); the factor by which what was summed before shrinks */
    DEVICE void soften()
    {
        UNROLL
        for (int half = 0; half < 2; half++) {
            float most = top[half];
            UNROLL
            for (int i = 2 * half; i < KEYS / 2; i += 4)
                most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
            most = quad_max(most);
            /* the first key is visible to every row, so `most` is finite from the first round on */
            shrink[half] = exp2_fast((top[half] - most) * scale);
            const float base = most * scale;
            top[half] = most;
            float part = 0.0f;
            UNROLL
            for (int i = 2 * half; i < KEYS / 2; i += 4) {
                UNROLL
                for (int e = i; e < i + 2; e++) {
                    scores[e] = exp2_fast(scores[e] * scale - base);
                    part += scores[e];
                }
            }
            sum[half] = sum[half] * shrink[half] + part;
        }
    }

    /* the products of the round before are over: y and the weights may change */
    DEVICE void take_over()
    {
        UNROLL
        for (int i = 0; i < D / 2; i++) y[i] *= shrink[i / 2 % 2];
        UNROLL
        for (int i = 0; i < KEYS / 16; i++) {
            UNROLL
            for (int r = 0; r < 4; r++)
                weights[i][r] = pack<T>(scores[8 * i + 2 * r], scores[8 * i + 2 * r + 1]);
        }
    }

    DEVICE void run()
    {
        const int rounds = attention_rounds<KEYS>(a, block_x() * S::queries);
        phase_wait(room.q_full, 0);
        multiply_keys(0);
        group_wait<0>();
        registers_hold(scores);
        give_back(room.k_empty, 0);
        mask(0);
        soften();
        take_over();
        for (int round = 1; round < rounds; round++) {
            multiply_keys(round);
            multiply_values(round - 1);
            group_wait<1>(); /* the scores; V's products go on */
            registers_hold(scores);
            give_back(room.k_empty, round);
            mask(round);
            soften();
            group_wait<0>();
            registers_hold(y);
            registers_hold(weights);
            give_back(room.v_empty, round - 1);
            take_over();
        }
        multiply_values(rounds - 1);
        group_wait<0>();
        registers_hold(y);
        registers_hold(weights);
    }

    DEVICE void store()
    {
        const int head = block_y(), image = block_z(), lq = (int)a.lq, d = (int)a.d;
        UNROLL
        for (int half = 0; half < 2; half++) {
            const float whole = quad_sum(sum[half]), factor = 1.0f / whole;
            const int at = row + 8 * half;
            if (at >= lq) continue;
            if (a.lse && lane % 4 == 0)
                global_store((float *)a.lse + ((int64_t)image * a.heads + head) * lq + at,
                             top[half] * (float)a.scale + logf(whole));
            T *to = (T *)a.y + ((int64_t)image * lq + at) * a.ldy + head * d;
            UNROLL
            for (int j = 0; j < D / 8; j++) {
                const int column = 8 * j + lane % 4 * 2;
                if (column < d)
                    global_store(to + column, pack<T>(y[4 * j + 2 * half] * factor,
                                                      y[4 * j + 2 * half + 1] * factor));
            }
        }
    }
};

template <class T, int D, int KEYS>
KERNEL(3 * 128, 1)
attention_wgmma_kernel(const GRID_CONSTANT attention_wgmma_args p)
{
    if constexpr (!HAS_WGMMA) return;
    using S = attention_wgmma_shape<D, KEYS>;
    const attention_room<S> room;
    if (thread_index() == 0) {
        phase_init(room.q_full, 1);
        for (int i = 0; i < 2; i++) {
            phase_init(room.k_full + 8 * i, 1);
            phase_init(room.v_full + 8 * i, 1);
            phase_init(room.k_empty + 8 * i, 8); /* warps */
            phase_init(room.v_empty + 8 * i, 8);
        }
        phase_init_visible();
    }
    block_sync();
    if (thread_index() < 128) {
        registers_give<24>();
        if (thread_index() == 0) attention_copy<S, KEYS>(p, room);
    } else {
        registers_take<240>();
        attention_group<T, S, D, KEYS> g(p.a, room);
        g.run();
        g.store();
    }
}

template <class T, int D, int KEYS>
int attention_wgmma_one(const char *name, const attention_wgmma_args *p, void *stream)
{
    using S = attention_wgmma_shape<D, KEYS>;
    dim3 grid((unsigned)((p->a.lq + S::queries - 1) / S::queries), (unsigned)p->a.heads,
              (unsigned)p->a.n);
    return launch<attention_wgmma_kernel<T, D, KEYS>>(name, grid, S::threads, S::shared_bytes,
                                                      stream, *p);
}

/* head size and keys of a tile */
#define ATTENTION_WGMMA_TABLE(X)                                                                   \
    X(64, ATTENTION_WGMMA_KEYS_ONCE)                                                               \
    X(64, ATTENTION_WGMMA_KEYS) X(128, ATTENTION_WGMMA_KEYS_ONCE) X(128, ATTENTION_WGMMA_KEYS)

template <class T> int attention_wgmma_launch(const attention_wgmma_args *p, void *stream)
{
#define X(size, keys_of)                                                                           \
    if (p->a.d <= size && p->keys == keys_of)                                                      \
        return attention_wgmma_one<T, size, keys_of>("flash_wgmma_" #size, p, stream);
    ATTENTION_WGMMA_TABLE(X)
#undef X
    return 1;
}

#endif
