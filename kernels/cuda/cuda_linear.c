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

int cuda_linear(struct device *d, const struct linear_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear", a->m, a->k, a->out, a->dtype, err);
    if (!rc) rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = {
        .source = rows_source(a->x, a->m, a->k, a->ldx),
        .b = w->data,
        .b_pitch = a->k,
        .m = (int)a->m,
        .n = (int)a->out,
        .k = (int)a->k,
        .y = a->y,
        .y_pitch = a->ldy,
    };
    cuda_epilogue(&g.epilogue, &a->epilogue, a->out);
    return cuda_gemm(d, &g, false, a->dtype, "linear", err);
}

int cuda_linear_geglu(struct device *d, const struct linear_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check("linear_geglu", a->m, a->k, a->out, a->dtype, err);
    if (rc) return rc;
    struct gemm_args g = {
        .source = rows_source(a->x, a->m, a->k, a->ldx),
        .b_pitch = a->k,
        .m = (int)a->m,
        .n = (int)a->out,
        .k = (int)a->k,
        .y = a->y,
        .y_pitch = a->ldy,
    };
    cuda_epilogue(&g.epilogue, &a->epilogue, a->out);
    g.epilogue.geglu = 1;
    if (a->out % 16 != 0 || a->epilogue.row || a->epilogue.add || a->epilogue.act ||
        !cuda_gemm_fits(d, &g, false, a->dtype))
        return error_set(err, ERR_UNSUPPORTED, "linear_geglu: %lld columns of this form",
                         (long long)a->out);
    rc = cuda_weight_get_geglu(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    g.b = w->data;
    return cuda_gemm(d, &g, false, a->dtype, "linear_geglu", err);
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
