#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pointwise.h"

static int check(const struct conv2d_args *a, const char *what, struct error *err)
{
    int64_t up = a->upsample == 2 ? 2 : 1;
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse(what, a->dtype, err);
    if (a->n * a->oh * a->ow > 1 << 27 || a->n * a->h * a->w_px * up * up > 1 << 27 ||
        a->c * a->kh * a->kw > 1 << 27)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %lld pictures of %lld x %lld are over the limit", what,
                         (long long)a->n, (long long)a->ow, (long long)a->oh);
    if (a->circular && (a->pad_top > a->h * up || a->pad_left > a->w_px * up))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: a picture of %lld x %lld is too small to wrap around", what,
                         (long long)a->w_px, (long long)a->h);
    return 0;
}

static struct gemm_source forward_source(const struct conv2d_args *a)
{
    int up = a->upsample == 2 ? 2 : 1;
    return (struct gemm_source){
        .a = a->x,
        .pixel_pitch = a->c,
        .image_pitch = a->h * a->w_px * a->c,
        .image_rows = (int)(a->oh * a->ow),
        .row_px = (int)a->ow,
        .source_px = (int)a->w_px,
        .limit_h = (int)a->h * up,
        .limit_w = (int)a->w_px * up,
        .shift = up - 1,
        .step = a->stride,
        .sign = 1,
        .y_from = -a->pad_top,
        .x_from = -a->pad_left,
        .taps_h = a->kh,
        .taps_w = a->kw,
        .c = (int)a->c,
        .circular = a->circular,
    };
}

/* Nearest enlargement and a 3x3 as four 2x2 convolutions of the small picture: output (2i+p, 2j+q)
 * reads rows i-1+p and i+p, with the taps that fall on one pixel summed. */
static bool is_enlarging(const struct conv2d_args *a)
{
    return a->upsample == 2 && a->kh == 3 && a->kw == 3 && a->stride == 1 && a->pad_top == 1 &&
           a->pad_left == 1 && a->oh == 2 * a->h && a->ow == 2 * a->w_px;
}

static void make_phases(struct gemm_args *g, const struct conv2d_args *a, const void *weights)
{
    g->b = weights;
    g->b_pitch = 4 * a->c;
    g->b_phase = a->out * 4 * a->c;
    g->m = (int)(a->n * a->h * a->w_px);
    g->k = (int)(4 * a->c);
    g->phases = 4;
    g->source.image_rows = (int)(a->h * a->w_px);
    g->source.row_px = (int)a->w_px;
    g->source.limit_h = (int)a->h;
    g->source.limit_w = (int)a->w_px;
    g->source.shift = 0;
    g->source.taps_h = g->source.taps_w = 2;
}

static struct gemm_args forward_product(const struct conv2d_args *a, const void *weights)
{
    struct gemm_args g = {
        .source = forward_source(a),
        .b = weights,
        .b_pitch = a->kh * a->kw * a->c,
        .m = (int)(a->n * a->oh * a->ow),
        .n = (int)a->out,
        .k = (int)(a->kh * a->kw * a->c),
        .phases = 1,
        .y = a->y,
        .y_pitch = a->out,
    };
    cuda_epilogue(&g.epilogue, &a->epilogue, a->out);
    return g;
}

int cuda_conv2d_part(struct device *d, const struct conv2d_args *a, const struct conv2d_args *whole,
                     struct error *err)
{
    struct cuda_weight *w;
    int rc = check(whole, "conv2d", err);
    if (!rc) rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = forward_product(a, w->data), all = forward_product(whole, w->data);
    return cuda_gemm_part(d, &g, &all, a->dtype, "conv2d", err);
}

int cuda_conv2d(struct device *d, const struct conv2d_args *a, struct error *err)
{
    struct cuda_weight *w;
    int rc = check(a, "conv2d", err);
    if (!rc) rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = forward_product(a, w->data);
    if (is_enlarging(a) && cuda_gemm_fits(d, &g, false, a->dtype)) {
        rc = cuda_weight_phases(d, a->w, w, err);
        if (rc) return rc;
        make_phases(&g, a, w->phases);
    }
    return cuda_gemm(d, &g, false, a->dtype, "conv2d", err);
}

/* The gradient at a pixel gathers, tap by tap, the outputs that read it. */
static int gradient(struct device *d, const struct conv2d_grad_args *c, void *dx, bool accumulate,
                    struct error *err)
{
    const struct conv2d_args *a = &c->conv;
    int up = a->upsample == 2 ? 2 : 1;
    struct cuda_weight *w;
    int rc = cuda_weight_get(d, a->w, a->dtype, &w, err);
    if (rc) return rc;
    struct gemm_args g = {
        .source =
            {
                .a = c->dy,
                .pixel_pitch = a->out,
                .image_pitch = a->oh * a->ow * a->out,
                .image_rows = (int)(a->h * a->w_px * up * up),
                .row_px = (int)a->w_px * up,
                .source_px = (int)a->ow,
                .limit_h = (int)a->oh * a->stride,
                .limit_w = (int)a->ow * a->stride,
                .shift = a->stride - 1,
                .mask = a->stride - 1,
                .step = 1,
                .sign = -1,
                .y_from = a->pad_top,
                .x_from = a->pad_left,
                .taps_h = a->kh,
                .taps_w = a->kw,
                .c = (int)a->out,
                .circular = a->circular,
            },
        .b = w->data,
        .b_pitch = a->kh * a->kw * a->c,
        .b_tap = a->c,
        .b_rows = (int)(a->kh * a->kw * a->out),
        .m = (int)(a->n * a->h * a->w_px * up * up),
        .n = (int)a->c,
        .k = (int)(a->kh * a->kw * a->out),
        .y = dx,
        .y_pitch = a->c,
    };
    if (accumulate) g.epilogue.add = dx;
    return cuda_gemm(d, &g, true, a->dtype, "conv2d_dx", err);
}

int cuda_conv2d_dx(struct device *d, const struct conv2d_grad_args *c, struct error *err)
{
    const struct conv2d_args *a = &c->conv;
    int rc = check(a, "conv2d_dx", err);
    if (rc) return rc;
    if (a->stride > 2)
        return error_set(err, ERR_UNSUPPORTED, "conv2d_dx: stride %d, 1 and 2 are there",
                         a->stride);
    if (a->upsample != 2) return gradient(d, c, c->dx, c->accumulate, err);
    /* at the enlarged size first, then the sum of each four */
    void *large;
    size_t bytes = (size_t)(a->n * a->h * a->w_px * 4 * a->c) * dtype_bytes(a->dtype);
    rc = d->kernels->alloc(d, &large, bytes, err);
    if (rc) return rc;
    rc = gradient(d, c, large, false, err);
    struct upsample_args sum = {
        .dy = large,
        .dx = c->dx,
        .n = a->n,
        .h = a->h,
        .w = a->w_px,
        .c = a->c,
        .oh = 2 * a->h,
        .ow = 2 * a->w_px,
        .dtype = a->dtype,
        .accumulate = c->accumulate,
    };
    if (!rc) rc = cuda_upsample_grad(d, &sum, err);
    d->kernels->free(d, large);
    return rc;
}

int cuda_conv2d_dw(struct device *d, const struct conv2d_grad_args *c, struct error *err)
{
    const struct conv2d_args *a = &c->conv;
    int rc = check(a, "conv2d_dw", err);
    if (rc) return rc;
    struct gemm_dw_args g = {
        .source = forward_source(a),
        .dy = c->dy,
        .dy_pitch = a->out,
        .m = (int)(a->n * a->oh * a->ow),
        .o = (int)a->out,
        .dw = c->dw,
    };
    return cuda_gemm_dw(d, &g, a->dtype, "conv2d_dw", err);
}
