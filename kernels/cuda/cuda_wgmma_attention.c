/* The host side of attention_wgmma.h: which shapes it takes, their tensor maps, the launch. */
#include "kernels/cuda/attention_wgmma.h"

#include "kernels/cuda/cuda.h"

/* Head sizes that fill their panels of 64 columns to three quarters at least; the exact tiles of the
 * mma.sync kernels waste less on others. A block has 128 queries: few leave most of it idle. */
bool cuda_wgmma_attention_takes(const struct cuda_state *s, const struct attention_args *a)
{
    return s->wgmma && a->d % 8 == 0 &&
           ((a->d >= 48 && a->d <= 64) || (a->d > 96 && a->d <= 128)) &&
           a->lq >= ATTENTION_WGMMA_QUERIES / 2;
}

static int map_rows(struct tensor_map *map, const struct attention_args *a, const void *base,
                    int64_t rows, int64_t pitch, int box)
{
    const struct tensor_tiles t = {
        .base = base,
        .dim = {a->d, a->heads, rows, a->n},
        .pitch = {2 * a->d, 2 * pitch, 2 * rows * pitch},
        .box = {1, box, 1},
    };
    return tensor_map_tiles(map, &t);
}

int cuda_wgmma_attention_run(const struct cuda_state *s, const struct attention_args *a)
{
    struct attention_wgmma_args w = {.a = *a, .keys = ATTENTION_WGMMA_KEYS};
    if (a->lk <= ATTENTION_WGMMA_KEYS_ONCE) w.keys = ATTENTION_WGMMA_KEYS_ONCE;
    int code = map_rows(&w.q, a, a->q, a->lq, a->ldq, ATTENTION_WGMMA_QUERIES);
    if (!code) code = map_rows(&w.k, a, a->k, a->lk, a->ldk, w.keys);
    if (!code) code = map_rows(&w.v, a, a->v, a->lk, a->ldv, w.keys);
    if (code) return code;
    return a->dtype == DTYPE_BF16 ? attention_wgmma_bf16(&w, s->runtime.stream)
                                  : attention_wgmma_f16(&w, s->runtime.stream);
}
