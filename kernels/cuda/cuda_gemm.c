#include <string.h>

#include "kernels/cuda/cuda.h"

bool cuda_dtype_ok(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

int cuda_dtype_refuse(const char *what, enum dtype dtype, struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "%s: the CUDA kernels store F32, F16 or BF16, not %s",
                     what, dtype_name(dtype));
}

void cuda_epilogue(struct gemm_epilogue *to, const struct epilogue_args *from, int64_t out)
{
    *to = (struct gemm_epilogue){
        .bias = from->bias,
        .bias_dtype = from->bias_dtype,
        .row = from->rows_per_image > 0 ? from->row : NULL,
        .rows_per_image = from->rows_per_image,
        .row_pitch = out,
        .act = from->act,
        .add = from->add,
    };
}

static bool aligned16(const void *p, int64_t pitch, size_t bytes)
{
    return (uintptr_t)p % 16 == 0 && (size_t)pitch * bytes % 16 == 0;
}

/* Tensor cores take 16-bit storage in whole 16-byte chunks of channels. */
bool cuda_gemm_fits(struct device *d, const struct gemm_args *g, bool transposed, enum dtype dtype)
{
    if (dtype == DTYPE_F32) return false;
    if (dtype == DTYPE_BF16 && cuda_state(d)->runtime.capability < 80) return false;
    return g->source.c % 8 == 0 && aligned16(g->source.a, g->source.pixel_pitch, 2) &&
           g->source.image_pitch % 8 == 0 && aligned16(g->b, g->b_pitch, 2) &&
           (!transposed || (g->n % 8 == 0 && g->b_tap % 8 == 0));
}

static int choose_and_run(struct device *d, struct gemm_args *g, const struct gemm_args *whole,
                          bool transposed, enum dtype dtype, const char *what, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    void *stream = s->runtime.stream;
    if (!g->m || !g->n) return 0;
    g->splits = 1;
    g->k_per_split = (g->k + 31) / 32 * 32;
    if (!g->phases) g->phases = 1;
    if (!cuda_gemm_fits(d, g, transposed, dtype)) {
        if (g->phases != 1 || g->epilogue.geglu)
            return error_set(err, ERR_INTERNAL, "%s: no simple kernel for this form", what);
        return runtime_check(gemm_simple(g, transposed, dtype, stream), what, err);
    }
    struct cuda_way way = {.kind = TUNER_OWN};
    if (whole && !s->tuner)
        way.tile = cuda_tile_choose(s, whole, transposed);
    else
        way = cuda_tune_choose(d, g, transposed, dtype);
    if (way.kind != TUNER_OWN) {
        if (cuda_gemm_run(d, g, transposed, dtype, &way, what, NULL) == 0) return 0;
        way = (struct cuda_way){.kind = TUNER_OWN, .tile = cuda_tile_choose(s, g, transposed)};
    }
    return cuda_gemm_run(d, g, transposed, dtype, &way, what, err);
}

int cuda_gemm(struct device *d, struct gemm_args *g, bool transposed, enum dtype dtype,
              const char *what, struct error *err)
{
    return choose_and_run(d, g, NULL, transposed, dtype, what, err);
}

int cuda_gemm_part(struct device *d, struct gemm_args *g, const struct gemm_args *whole,
                   enum dtype dtype, const char *what, struct error *err)
{
    return choose_and_run(d, g, whole, false, dtype, what, err);
}

int cuda_gemm_run(struct device *d, struct gemm_args *g, bool transposed, enum dtype dtype,
                  const struct cuda_way *way, const char *what, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    void *stream = s->runtime.stream;
    if (way->kind != TUNER_OWN) {
        const struct cuda_library *l = &s->library[way->kind];
        int code = l->run(l->state, g, dtype, s->workspace, stream);
        if (code) return error_set(err, ERR_UNSUPPORTED, "%s: %s error %d", what, l->name, code);
        return 0;
    }
    struct cuda_tile choice = way->tile;
    g->splits = choice.splits;
    g->k_per_split = choice.k_per_split;
    if (g->splits > 1) {
        void *partial;
        size_t pitch = (size_t)(g->n + 1) / 2 * 2;
        int rc = cuda_scratch(
            d, &partial, pitch * (size_t)g->m * (size_t)(g->splits * g->phases) * sizeof(float),
            err);
        if (rc) return rc;
        g->partial = partial;
    }
    int code;
    if (choice.tile >= GEMM_FIRST_WGMMA)
        code = cuda_wgmma_run(s, g, dtype, choice.tile);
    else if (dtype == DTYPE_BF16)
        code = gemm_bf16(choice.tile, transposed, g, stream);
    else if (s->half_sums && !transposed)
        code = gemm_f16_half(choice.tile, g, stream);
    else
        code = gemm_f16(choice.tile, transposed, g, stream);
    if (!code && g->splits > 1) code = gemm_reduce(g, dtype, stream);
    return runtime_check(code, what, err);
}

int cuda_gemm_dw(struct device *d, struct gemm_dw_args *g, enum dtype dtype, const char *what,
                 struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    int64_t k = (int64_t)g->source.taps_h * g->source.taps_w * g->source.c;
    int64_t tiles = ((g->o + 63) / 64) * ((k + 63) / 64);
    if (!g->m || !g->o || !k) return 0;
    int64_t splits = (4 * s->runtime.multiprocessors + tiles - 1) / tiles;
    int64_t most = (g->m + 255) / 256;
    if (splits > most) splits = most;
    if (splits > 64) splits = 64;
    g->m_per_split = (int)((g->m + splits - 1) / splits + 15) / 16 * 16;
    g->splits = (g->m + g->m_per_split - 1) / g->m_per_split;
    void *partial;
    int rc = cuda_scratch(d, &partial, (size_t)g->splits * (size_t)(g->o * k) * sizeof(float), err);
    if (rc) return rc;
    g->partial = partial;
    return runtime_check(gemm_dw(g, dtype, s->runtime.stream), what, err);
}
