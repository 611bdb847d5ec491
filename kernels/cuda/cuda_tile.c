/* Picks a tile and a split by counting waves: the same card and shape always give the same answer,
 * so that images are reproducible without a tuner. */
#include "kernels/cuda/cuda.h"

/* Share of the tensor cores' peak a tile reaches when it fills the card; the ratio of loads to mma
 * per warp, to be replaced by measurements. Blocks a multiprocessor holds at once. */
static const struct {
    double share;
    int resident;
} tiles[GEMM_TILE_COUNT] = {
    [GEMM_128X160] = {1.00, 1}, [GEMM_64X160] = {0.92, 2}, [GEMM_128X128] = {0.95, 1},
    [GEMM_128X80] = {0.90, 2},  [GEMM_64X80] = {0.75, 3},
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

static bool choose(struct cuda_tile *chosen, const struct cuda_state *s, const struct gemm_args *g,
                   bool transposed, int forced_tile)
{
    struct cuda_tile best = {GEMM_64X80, 1, g->k};
    double best_cost = 0;
    bool found = false;
    for (int tile = 0; tile < GEMM_TILE_COUNT; tile++) {
        struct gemm_tile_shape shape = gemm_tile_shape((enum gemm_tile)tile, transposed);
        if ((size_t)shape.shared_bytes > s->runtime.shared_limit) continue;
        if (g->epilogue.geglu && !shape.takes_geglu) continue;
        if (forced_tile >= 0 && forced_tile != tile) continue;
        bool whole = g->epilogue.geglu || g->partial || g->keep_scratch; /* cannot be split */
        for (int splits = 1; splits <= 16; splits *= 2) {
            if (splits > 1 && whole) break;
            if (s->forced_splits && !whole && splits != s->forced_splits) continue;
            int k_per_split = (g->k + splits - 1) / splits;
            k_per_split = (k_per_split + 31) / 32 * 32;
            if (splits > 1 && (int64_t)k_per_split * (splits - 1) >= g->k) break;
            if (splits > 1 && k_per_split < 256 && !s->forced_splits) break;
            double c = cost(s, g, (enum gemm_tile)tile, shape, splits, k_per_split);
            if (found && c >= best_cost) continue;
            found = true;
            best_cost = c;
            best = (struct cuda_tile){(enum gemm_tile)tile, splits, k_per_split};
        }
    }
    if (best.splits == 1) best.k_per_split = (g->k + 31) / 32 * 32;
    *chosen = best;
    return found;
}

struct cuda_tile cuda_tile_choose(const struct cuda_state *s, const struct gemm_args *g,
                                  bool transposed)
{
    struct cuda_tile tile;
    if (s->forced_tile >= 0 && choose(&tile, s, g, transposed, s->forced_tile)) return tile;
    bool found = choose(&tile, s, g, transposed, -1);
    KILN_ASSERT(found, "no tile for %d x %d x %d", g->m, g->n, g->k);
    return tile;
}
