#include <limits.h>

#include "kernels/cuda/cuda.h"

/* Rows of x are the pixels of one line of a picture, and there is one tap. */
static struct gemm_source rows_source(const void *x, int64_t m, int64_t width, int64_t pitch)
{
    return (struct gemm_source){
        .a = x,
        .pixel_pitch = pitch,
        .image_rows = (int)m,
        .row_px = (int)m,
        .source_px = (int)m,
        .limit_h = 1,
        .limit_w = (int)m,
        .step = 1,
        .sign = 1,
        .taps_h = 1,
        .taps_w = 1,
        .c = (int)width,
    };
}

static int check(const char *what, int64_t m, int64_t k, int64_t out, enum dtype dtype,
                 struct error *err)
{
    if (!cuda_dtype_ok(dtype)) return cuda_dtype_refuse(what, dtype, err);
    if (m > 1 << 27 || k > 1 << 27 || out > 1 << 27)
        return error_set(err, ERR_UNSUPPORTED, "%s: %lld x %lld x %lld is over the limit of 2^27",
                         what, (long long)m, (long long)out, (long long)k);
    return 0;
}

/* y [m,out] = x [m,k] . b [out,k]^T, b still to come */
static struct gemm_args linear_gemm(const void *x, int64_t m, int64_t k, int64_t ldx, int64_t out,
                                    void *y, int64_t ldy)
{
    return (struct gemm_args){
        .source = rows_source(x, m, k, ldx),
        .b_pitch = k,
        .m = (int)m,
        .n = (int)out,
        .k = (int)k,
        .y = y,
        .y_pitch = ldy,
    };
}

int cuda_linear(struct device *d, const struct linear_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear", a->m, a->k, a->out, a->dtype, err);
    if (!rc) rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = linear_gemm(a->x, a->m, a->k, a->ldx, a->out, a->y, a->ldy);
    g.b = w->data;
    cuda_epilogue(&g.epilogue, &a->epilogue, a->out);
    return cuda_gemm(d, &g, false, a->dtype, "linear", err);
}

/* Shapes that tensor cores do not take: the linear's result through scratch. */
static int geglu_composed(struct device *d, const struct linear_args *a, struct gemm_args *g,
                          struct error *err)
{
    struct cuda_weight *w;
    void *wide;
    if (a->ldy != a->out / 2)
        return error_set(err, ERR_UNSUPPORTED, "linear_geglu: rows of %lld, %lld apart",
                         (long long)a->out / 2, (long long)a->ldy);
    int rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (!rc) rc = cuda_scratch(d, &wide, (size_t)(a->m * a->out) * dtype_bytes(a->dtype), err);
    if (rc) return rc;
    g->b = w->data;
    g->y = wide;
    g->y_pitch = a->out;
    g->keep_scratch = 1;
    rc = cuda_gemm(d, g, false, a->dtype, "linear_geglu", err);
    struct geglu_args half = {
        .y = a->y, .x = wide, .rows = a->m, .d = a->out / 2, .dtype = a->dtype};
    return rc ? rc : cuda_geglu(d, &half, err);
}

int cuda_linear_geglu(struct device *d, const struct linear_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear_geglu", a->m, a->k, a->out, a->dtype, err);
    if (rc) return rc;
    if (a->out % 2 != 0 || a->epilogue.row || a->epilogue.add || a->epilogue.act)
        return error_set(err, ERR_UNSUPPORTED,
                         "linear_geglu: only a bias can come between the two");
    struct gemm_args g = linear_gemm(a->x, a->m, a->k, a->ldx, a->out, a->y, a->ldy);
    cuda_epilogue(&g.epilogue, &a->epilogue, a->out);
    if (a->out % 16 != 0 || !cuda_gemm_fits(d, &g, false, a->dtype))
        return geglu_composed(d, a, &g, err);
    g.epilogue.geglu = 1;
    rc = cuda_weight_get_geglu(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    g.b = w->data;
    return cuda_gemm(d, &g, false, a->dtype, "linear_geglu", err);
}

int cuda_linear_join(struct device *d, const struct linear_join_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear_join", a->m, a->k, a->out * a->count, a->dtype, err);
    if (!rc) rc = cuda_weight_join(d, a->w, a->count, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = linear_gemm(a->x, a->m, a->k, a->ldx, a->out * a->count, a->y, a->ldy);
    g.b = w->data;
    return cuda_gemm(d, &g, false, a->dtype, "linear_join", err);
}

int cuda_linear_dx(struct device *d, const struct linear_dx_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear_dx", a->m, a->k, a->out, a->dtype, err);
    if (!rc) rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = {
        .source = rows_source(a->dy, a->m, a->out, a->ldy),
        .b = w->data,
        .b_pitch = a->k,
        .b_rows = (int)a->out,
        .m = (int)a->m,
        .n = (int)a->k,
        .k = (int)a->out,
        .y = a->dx,
        .y_pitch = a->ldx,
    };
    if (a->accumulate) g.epilogue.add = a->dx;
    return cuda_gemm(d, &g, true, a->dtype, "linear_dx", err);
}

int cuda_linear_dw(struct device *d, const struct linear_dw_args *a, struct error *err)
{
    int rc = check("linear_dw", a->m, a->k, a->out, a->dtype, err);
    if (rc) return rc;
    struct gemm_dw_args g = {
        .source = rows_source(a->x, a->m, a->k, a->ldx),
        .dy = a->dy,
        .dy_pitch = a->ldy,
        .m = (int)a->m,
        .o = (int)a->out,
        .dw = a->dw,
    };
    return cuda_gemm_dw(d, &g, a->dtype, "linear_dw", err);
}
