#include "kernels/cuda/attention.h"

#include "kernels/cuda/cuda.h"

enum way { WAY_SIMPLE, WAY_SLABS, WAY_FLASH, WAY_FLASH_UNALIGNED };

static bool aligned(const void *p, int64_t pitch)
{
    return (uintptr_t)p % 16 == 0 && pitch % 8 == 0;
}

static bool even(const void *p, int64_t pitch)
{
    return (uintptr_t)p % 4 == 0 && pitch % 2 == 0;
}

static enum way way_of(struct device *d, const struct attention_args *a)
{
    if (a->dtype == DTYPE_F32) return WAY_SIMPLE;
    if (a->dtype == DTYPE_BF16 && cuda_state(d)->runtime.capability < 80) return WAY_SIMPLE;
    if (a->d % 2 != 0 || !even(a->y, a->ldy)) return WAY_SIMPLE;
    bool whole =
        a->d % 8 == 0 && aligned(a->q, a->ldq) && aligned(a->k, a->ldk) && aligned(a->v, a->ldv);
    if (a->d <= ATTENTION_FLASH_D) return whole ? WAY_FLASH : WAY_FLASH_UNALIGNED;
    return whole ? WAY_SLABS : WAY_SIMPLE;
}

static int check(const struct attention_args *a, const char *what, struct error *err)
{
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse(what, a->dtype, err);
    if (a->d > ATTENTION_SIMPLE_D)
        return error_set(err, ERR_UNSUPPORTED, "%s: head size %lld, the CUDA kernels go up to %d",
                         what, (long long)a->d, ATTENTION_SIMPLE_D);
    if (a->lk < 1 || a->lq > 1 << 24 || a->lk > 1 << 24 || a->n > 65535 || a->heads > 65535)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %lld queries, %lld keys, %lld heads, %lld images", what,
                         (long long)a->lq, (long long)a->lk, (long long)a->heads, (long long)a->n);
    return 0;
}

static const char *element(const void *base, int64_t index)
{
    return (const char *)base + index * 2;
}

/* One head of one image in slabs of queries: scores into scratch, softmax, times V. */
static int slabs_of_head(struct device *d, const struct attention_args *a, int64_t image,
                         int64_t head, struct error *err)
{
    struct cuda_state *s = cuda_state(d);
    int64_t s_pitch = (a->lk + 1) / 2 * 2, p_pitch = (a->lk + 7) / 8 * 8;
    int64_t row_bytes = s_pitch * 4 + p_pitch * 2 + 4, slab = ((int64_t)96 << 20) / row_bytes;
    if (slab > 1024) slab = 1024;
    if (slab < 64) slab = 64;
    if (slab > a->lq) slab = a->lq;
    void *memory;
    int rc = cuda_scratch(d, &memory, (size_t)(slab * row_bytes) + 512, err);
    if (rc) return rc;
    float *scores = memory;
    char *p = (char *)scores + (slab * s_pitch * 4 + 255) / 256 * 256;
    float *over = (float *)(p + (slab * p_pitch * 2 + 255) / 256 * 256);
    int64_t q_at = image * a->lq * a->ldq + head * a->d,
            k_at = image * a->lk * a->ldk + head * a->d;
    int64_t v_at = image * a->lk * a->ldv + head * a->d,
            y_at = image * a->lq * a->ldy + head * a->d;
    for (int64_t first = 0; first < a->lq && !rc; first += slab) {
        int64_t rows = a->lq - first < slab ? a->lq - first : slab;
        struct gemm_source from = {.a = element(a->q, q_at + first * a->ldq),
                                   .pixel_pitch = a->ldq,
                                   .image_rows = (int)rows,
                                   .row_px = (int)rows,
                                   .source_px = (int)rows,
                                   .limit_h = 1,
                                   .limit_w = (int)rows,
                                   .step = 1,
                                   .sign = 1,
                                   .taps_h = 1,
                                   .taps_w = 1,
                                   .c = (int)a->d};
        struct gemm_args product = {.source = from,
                                    .b = element(a->k, k_at),
                                    .b_pitch = a->ldk,
                                    .m = (int)rows,
                                    .n = (int)a->lk,
                                    .k = (int)a->d,
                                    .partial = scores};
        rc = cuda_gemm(d, &product, false, a->dtype, "attention scores", err);
        if (rc) break;
        struct attention_softmax softmax = {
            .p = p,
            .over = over,
            .lse = a->lse ? (float *)a->lse + (image * a->heads + head) * a->lq + first : NULL,
            .s = scores,
            .rows = rows,
            .keys = a->lk,
            .s_pitch = s_pitch,
            .p_pitch = p_pitch,
            .first_row = first,
            .scale = (float)a->scale,
            .causal = a->causal,
            .dtype = a->dtype,
        };
        rc =
            runtime_check(attention_softmax(&softmax, s->runtime.stream), "attention softmax", err);
        if (rc) break;
        from.a = p;
        from.pixel_pitch = p_pitch;
        from.c = (int)p_pitch;
        struct gemm_args values = {.source = from,
                                   .b = element(a->v, v_at),
                                   .b_pitch = a->ldv,
                                   .b_rows = (int)a->lk,
                                   .m = (int)rows,
                                   .n = (int)a->d,
                                   .k = (int)p_pitch,
                                   .y = (void *)element(a->y, y_at + first * a->ldy),
                                   .y_pitch = a->ldy};
        values.epilogue.row_scale = over;
        values.keep_scratch = 1;
        rc = cuda_gemm(d, &values, true, a->dtype, "attention values", err);
    }
    return rc;
}

int cuda_attention(struct device *d, const struct attention_args *a, struct error *err)
{
    void *stream = cuda_state(d)->runtime.stream;
    int rc = check(a, "attention", err);
    if (rc || !a->lq || !a->n) return rc;
    enum way way = way_of(d, a);
    if (way == WAY_SIMPLE) return runtime_check(attention_simple(a, stream), "attention", err);
    if (way == WAY_FLASH && cuda_wgmma_attention_takes(cuda_state(d), a))
        return runtime_check(cuda_wgmma_attention_run(cuda_state(d), a), "attention", err);
    if (way != WAY_SLABS) {
        size_t limit = cuda_state(d)->runtime.shared_limit;
        int code = a->dtype == DTYPE_F16 ? attention_flash_f16(a, way == WAY_FLASH, limit, stream)
                                         : attention_flash_bf16(a, way == WAY_FLASH, limit, stream);
        return runtime_check(code, "attention", err);
    }
    for (int64_t image = 0; image < a->n && !rc; image++)
        for (int64_t head = 0; head < a->heads && !rc; head++)
            rc = slabs_of_head(d, a, image, head, err);
    return rc;
}

int cuda_attention_grad(struct device *d, const struct attention_grad_args *g, struct error *err)
{
    const struct attention_args *a = &g->forward;
    void *stream = cuda_state(d)->runtime.stream, *delta;
    int rc = check(a, "attention_grad", err);
    if (rc || !a->lq || !a->n) return rc;
    if (!a->lse || !a->y)
        return error_set(err, ERR_INTERNAL,
                         "attention_grad: result and log-sum-exp of the forward are "
                         "needed");
    rc = cuda_scratch(d, &delta, (size_t)(a->n * a->heads * a->lq) * sizeof(float), err);
    if (!rc) rc = runtime_check(attention_delta(g, delta, stream), "attention_grad", err);
    if (rc) return rc;
    enum way way = way_of(d, a);
    bool whole = way == WAY_FLASH && aligned(g->dy, a->ldy);
    bool flash = (whole || (way != WAY_SIMPLE && a->d <= ATTENTION_GRAD_UNALIGNED_D)) &&
                 way != WAY_SLABS && even(g->dq, a->ldq) && even(g->dk, a->ldk) &&
                 even(g->dv, a->ldv);
    if (cuda_state(d)->runtime.capability < 80 && a->d > ATTENTION_GRAD_SM75_D) flash = false;
    int code = !flash                  ? attention_grad_simple(g, delta, stream)
               : a->dtype == DTYPE_F16 ? attention_grad_flash_f16(g, delta, whole, stream)
                                       : attention_grad_flash_bf16(g, delta, whole, stream);
    return runtime_check(code, "attention_grad", err);
}
