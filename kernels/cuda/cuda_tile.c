/* Picks a tile and a split by counting waves: the same card and shape always give the same answer,
 * so that images are reproducible without a tuner. */
#include "kernels/cuda/cuda.h"

/* Share of the tensor cores' peak a tile reaches when it fills the card; the ratio of loads to mma
 * per warp, to be replaced by measurements. Blocks a multiprocessor holds at once. */
static const struct {
    double share;
    int resident;
} tiles[GEMM_TILE_COUNT] = {
    [GEMM_128X160] = {1.00, 1},
    [GEMM_64X160] = {0.92, 2},
    [GEMM_128X128] = {0.95, 1},
    [GEMM_128X80] = {0.90, 2},
    [GEMM_64X80] = {0.75, 3},
    /* against mma.sync's peak; a slice's bytes through L2 hold the smaller tiles back */
    [GEMM_WGMMA_256X160] = {1.60, 1},
    [GEMM_WGMMA_128X160] = {1.25, 1},
    [GEMM_WGMMA_256X128] = {1.50, 1},
    [GEMM_WGMMA_128X128] = {1.15, 1},
};

static double cost(const struct cuda_state *s, const struct gemm_args *g, enum gemm_tile tile,
                   struct gemm_tile_shape shape, int splits, int k_per_split)
{
    double blocks = (double)((g->m + shape.m - 1) / shape.m) * ((g->n + shape.n - 1) / shape.n) *
                    g->phases * splits;
    int resident = tiles[tile].resident;
    while (resident > 1 && (size_t)resident * (size_t)shape.shared_bytes > s->runtime.shared_limit)
        resident--;
    double slots = (double)s->runtime.multiprocessors * resident;
    double waves = blocks <= slots ? 1 : (double)(int64_t)((blocks + slots - 1) / slots);
    /* mma cycles of a wave, plus filling and emptying the pipeline (about 8 slices' worth) */
    double block = (double)shape.m * shape.n * (k_per_split + 8 * 32) / tiles[tile].share;
    double held = blocks < slots ? blocks / s->runtime.multiprocessors : resident;
    if (held < 1) held = 1;
    double time = waves * held * block;
    /* a split writes and reads its sums: about 40 multiply-adds pass while 4 bytes do */
    if (splits > 1)
        time += 2.0 * splits * g->m * g->n * g->phases * 4 * 40 / s->runtime.multiprocessors + 4e6;
    return time;
}

bool cuda_tile_make(struct cuda_tile *tile, const struct cuda_state *s, const struct gemm_args *g,
                    bool transposed, int kind, int splits)
{
    if (kind < 0 || kind >= GEMM_TILE_COUNT || splits < 1 || splits > 16) return false;
    struct gemm_tile_shape shape = gemm_tile_shape((enum gemm_tile)kind, transposed);
    bool whole = g->epilogue.geglu || g->partial || g->keep_scratch; /* cannot be split */
    if ((size_t)shape.shared_bytes > s->runtime.shared_limit) return false;
    if (shape.wgmma && !cuda_wgmma_takes(s, g, transposed)) return false;
    if (g->epilogue.geglu && !shape.takes_geglu) return false;
    if (splits > 1 && whole) return false;
    int k_per_split = (g->k + splits - 1) / splits;
    k_per_split = (k_per_split + 31) / 32 * 32;
    if (splits > 1 && (int64_t)k_per_split * (splits - 1) >= g->k) return false;
    *tile = (struct cuda_tile){(enum gemm_tile)kind, splits, k_per_split};
    return true;
}

/* Of partial sums: large results fill the card without a split, and scratch stays as it grew. */
#define SPLIT_BYTES_MAX 67108864.0

struct ranked {
    double cost;
    struct cuda_tile tile;
};

/* All that the shape takes, cheapest first; of equals the first listed. */
static int rank(struct ranked *list, const struct cuda_state *s, const struct gemm_args *g,
                bool transposed, int forced_tile)
{
    int count = 0;
    for (int kind = 0; kind < GEMM_TILE_COUNT; kind++) {
        if (forced_tile >= 0 && forced_tile != kind) continue;
        struct gemm_tile_shape shape = gemm_tile_shape((enum gemm_tile)kind, transposed);
        bool whole = g->epilogue.geglu || g->partial || g->keep_scratch;
        for (int splits = 1; splits <= 16; splits *= 2) {
            struct ranked r;
            if (s->forced_splits && !whole && splits != s->forced_splits) continue;
            if (!cuda_tile_make(&r.tile, s, g, transposed, kind, splits)) continue;
            if (splits > 1 && r.tile.k_per_split < 256 && !s->forced_splits) continue;
            if (splits > 1 && 4.0 * splits * g->m * g->n * g->phases > SPLIT_BYTES_MAX) continue;
            r.cost = cost(s, g, r.tile.tile, shape, splits, r.tile.k_per_split);
            int at = count++;
            for (; at > 0 && list[at - 1].cost > r.cost; at--) list[at] = list[at - 1];
            list[at] = r;
        }
    }
    return count;
}

#define RANKED_MAX (GEMM_TILE_COUNT * 5)

struct cuda_tile cuda_tile_choose(const struct cuda_state *s, const struct gemm_args *g,
                                  bool transposed)
{
    struct ranked list[RANKED_MAX];
    int count = s->forced_tile >= 0 ? rank(list, s, g, transposed, s->forced_tile) : 0;
    if (!count) count = rank(list, s, g, transposed, -1);
    KILN_ASSERT(count, "no tile for %d x %d x %d", g->m, g->n, g->k);
    return list[0].tile;
}

int cuda_tile_list(struct tuner_choice *choice, int most, const struct cuda_state *s,
                   const struct gemm_args *g, bool transposed)
{
    struct ranked list[RANKED_MAX];
    int count = rank(list, s, g, transposed, -1);
    if (count > most) count = most;
    for (int i = 0; i < count; i++)
        choice[i] = (struct tuner_choice){TUNER_OWN, list[i].tile.tile, list[i].tile.splits};
    return count;
}
