/* cuDNN for convolutions in NHWC: y = conv(x, w) (+ add) + bias, identity activation. Declared here, as
 * cuBLASLt is. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda_library.h"
#include "kernels/library.h"

enum {
    TENSOR_NHWC = 1,
    DATA_FLOAT = 0,
    DATA_HALF = 2,
    DATA_BFLOAT16 = 9,
    CROSS_CORRELATION = 1,
    TENSOR_OP_MATH = 1,
    ALGO_IMPLICIT_PRECOMP_GEMM = 1, /* the one that takes the identity activation */
    ACTIVATION_IDENTITY = 5
};

struct functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*tensor_create)(void **desc);
    int (*tensor_destroy)(void *desc);
    int (*tensor_set)(void *desc, int format, int type, int n, int c, int h, int w);
    int (*filter_create)(void **desc);
    int (*filter_destroy)(void *desc);
    int (*filter_set)(void *desc, int type, int format, int k, int c, int h, int w);
    int (*conv_create)(void **desc);
    int (*conv_destroy)(void *desc);
    int (*conv_set)(void *desc, int pad_h, int pad_w, int u, int v, int dilation_h, int dilation_w,
                    int mode, int type);
    int (*conv_math)(void *desc, int math);
    int (*act_create)(void **desc);
    int (*act_destroy)(void *desc);
    int (*act_set)(void *desc, int mode, int nan, double coefficient);
    int (*workspace)(void *handle, void *x, void *w, void *conv, void *y, int algo, size_t *bytes);
    int (*forward)(void *handle, const void *alpha1, void *x_desc, const void *x, void *w_desc,
                   const void *w, void *conv, int algo, void *workspace, size_t workspace_bytes,
                   const void *alpha2, void *z_desc, const void *z, void *bias_desc,
                   const void *bias, void *act, void *y_desc, void *y);
};

struct cudnn {
    struct functions f;
    void *library, *handle, *x, *y, *bias, *w, *conv, *act;
};

static bool can(const struct gemm_args *g, bool transposed, enum dtype dtype)
{
    const struct gemm_source *s = &g->source;
    const struct gemm_epilogue *e = &g->epilogue;
    int oh = s->row_px ? s->image_rows / s->row_px : 0;
    if (transposed || g->phases != 1 || g->partial || s->taps_h * s->taps_w == 1 || s->circular ||
        s->shift || s->mask || s->sign != 1 || s->y_from > 0 || s->x_from > 0)
        return false;
    /* the same padding on both sides, contiguous pictures */
    if ((s->limit_h - 2 * s->y_from - s->taps_h) / s->step + 1 != oh ||
        (s->limit_w - 2 * s->x_from - s->taps_w) / s->step + 1 != s->row_px)
        return false;
    return s->pixel_pitch == s->c && s->image_pitch == (int64_t)s->limit_h * s->limit_w * s->c &&
           g->y_pitch == g->n && e->bias && e->bias_dtype == (int)dtype && !e->row &&
           !e->row_scale && !e->act && !e->geglu && dtype != DTYPE_F32;
}

static int describe(struct cudnn *s, const struct gemm_args *g, int type)
{
    const struct gemm_source *x = &g->source;
    int images = g->m / x->image_rows, oh = x->image_rows / x->row_px;
    int rc = s->f.tensor_set(s->x, TENSOR_NHWC, type, images, x->c, x->limit_h, x->limit_w);
    if (!rc) rc = s->f.tensor_set(s->y, TENSOR_NHWC, type, images, g->n, oh, x->row_px);
    if (!rc) rc = s->f.tensor_set(s->bias, TENSOR_NHWC, type, 1, g->n, 1, 1);
    if (!rc) rc = s->f.filter_set(s->w, type, TENSOR_NHWC, g->n, x->c, x->taps_h, x->taps_w);
    if (!rc)
        rc = s->f.conv_set(s->conv, -x->y_from, -x->x_from, x->step, x->step, 1, 1,
                           CROSS_CORRELATION, DATA_FLOAT);
    return rc ? rc : s->f.conv_math(s->conv, TENSOR_OP_MATH);
}

static int run(void *state, const struct gemm_args *g, enum dtype dtype, void *workspace,
               void *stream)
{
    struct cudnn *s = state;
    float one = 1, with_add = g->epilogue.add ? 1 : 0;
    size_t bytes = 0;
    int rc = s->f.set_stream(s->handle, stream);
    if (!rc) rc = describe(s, g, dtype == DTYPE_F16 ? DATA_HALF : DATA_BFLOAT16);
    if (!rc)
        rc = s->f.workspace(s->handle, s->x, s->w, s->conv, s->y, ALGO_IMPLICIT_PRECOMP_GEMM,
                            &bytes);
    if (!rc && bytes > LIBRARY_WORKSPACE_BYTES) rc = 9;
    if (rc) return rc;
    return s->f.forward(s->handle, &one, s->x, g->source.a, s->w, g->b, s->conv,
                        ALGO_IMPLICIT_PRECOMP_GEMM, workspace, bytes, &with_add, s->y,
                        g->epilogue.add ? g->epilogue.add : g->y, s->bias, g->epilogue.bias, s->act,
                        s->y, g->y);
}

static void close_library(void *state)
{
    struct cudnn *s = state;
    if (s->act) s->f.act_destroy(s->act);
    if (s->conv) s->f.conv_destroy(s->conv);
    if (s->w) s->f.filter_destroy(s->w);
    if (s->bias) s->f.tensor_destroy(s->bias);
    if (s->y) s->f.tensor_destroy(s->y);
    if (s->x) s->f.tensor_destroy(s->x);
    if (s->handle) s->f.destroy(s->handle);
    dlclose(s->library);
    free(s);
}

static int open_descriptors(struct cudnn *s)
{
    int rc = s->f.create(&s->handle);
    if (!rc) rc = s->f.tensor_create(&s->x);
    if (!rc) rc = s->f.tensor_create(&s->y);
    if (!rc) rc = s->f.tensor_create(&s->bias);
    if (!rc) rc = s->f.filter_create(&s->w);
    if (!rc) rc = s->f.conv_create(&s->conv);
    if (!rc) rc = s->f.act_create(&s->act);
    return rc ? rc : s->f.act_set(s->act, ACTIVATION_IDENTITY, 0, 0);
}

bool cudnn_open(struct cuda_library *library)
{
    static const char *const names[] = {"libcudnn.so.9", "libcudnn.so.8", NULL};
    static const char *const symbols[] = {
        "cudnnCreate",
        "cudnnDestroy",
        "cudnnSetStream",
        "cudnnCreateTensorDescriptor",
        "cudnnDestroyTensorDescriptor",
        "cudnnSetTensor4dDescriptor",
        "cudnnCreateFilterDescriptor",
        "cudnnDestroyFilterDescriptor",
        "cudnnSetFilter4dDescriptor",
        "cudnnCreateConvolutionDescriptor",
        "cudnnDestroyConvolutionDescriptor",
        "cudnnSetConvolution2dDescriptor",
        "cudnnSetConvolutionMathType",
        "cudnnCreateActivationDescriptor",
        "cudnnDestroyActivationDescriptor",
        "cudnnSetActivationDescriptor",
        "cudnnGetConvolutionForwardWorkspaceSize",
        "cudnnConvolutionBiasActivationForward",
    };
    static const struct library_place place = {"KILN_CUDNN", NULL, names};
    void *file;
    if (library_open(&file, &place, NULL)) return false;
    struct cudnn *s = alloc_zero(1, sizeof *s);
    s->library = file;
    _Static_assert(sizeof s->f == COUNT_OF(symbols) * sizeof(void *), "a pointer a symbol");
    if (!library_entries(file, &s->f, symbols, COUNT_OF(symbols))) {
        dlclose(file);
        free(s);
        return false;
    }
    if (open_descriptors(s)) {
        close_library(s);
        return false;
    }
    *library = (struct cuda_library){"cuDNN", can, run, close_library, s};
    return true;
}
