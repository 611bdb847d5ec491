/* A stand-in for cuBLASLt: the few calls that cuda_cublaslt.c makes, as plain loops over the emulated
 * card's memory. A run takes emulator time if the program has that clock. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* the header is NVIDIA's */
#define EXPORT __attribute__((visibility("default")))

struct desc {
    int transpose, epilogue;
    const void *bias;
    int bias_type;
};
struct layout {
    int type;
    uint64_t rows, cols;
    int64_t ld;
};

EXPORT int cublasLtCreate(void **handle)
{
    *handle = malloc(1);
    return 0;
}
EXPORT int cublasLtDestroy(void *handle)
{
    free(handle);
    return 0;
}
EXPORT int cublasLtMatmulDescCreate(void **desc, int compute, int scale)
{
    *desc = calloc(1, sizeof(struct desc));
    return compute == 68 && scale == 0 ? 0 : 7;
}
EXPORT int cublasLtMatmulDescDestroy(void *desc)
{
    free(desc);
    return 0;
}
EXPORT int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value,
                                          size_t bytes)
{
    struct desc *d = desc;
    switch (attribute) {
    case 3: memcpy(&d->transpose, value, sizeof d->transpose); return bytes == 4 ? 0 : 7;
    case 7: memcpy(&d->epilogue, value, sizeof d->epilogue); return bytes == 4 ? 0 : 7;
    case 8: memcpy(&d->bias, value, sizeof d->bias); return bytes == 8 ? 0 : 7;
    case 26: memcpy(&d->bias_type, value, sizeof d->bias_type); return bytes == 4 ? 0 : 7;
    default: return 7;
    }
}
EXPORT int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols,
                                      int64_t ld)
{
    struct layout *l = calloc(1, sizeof *l);
    *l = (struct layout){type, rows, cols, ld};
    *layout = l;
    return 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(void *layout)
{
    free(layout);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(void **preference)
{
    *preference = malloc(1);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void *preference)
{
    free(preference);
    return 0;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value,
                                                size_t bytes)
{
    return attribute == 1 && bytes == sizeof(size_t) ? 0 : 7;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c,
                                          void *d, void *preference, int wanted, void *result,
                                          int *count)
{
    memset(result, 0, 96);
    *count = wanted;
    return 0;
}

static enum dtype dtype_of(int type)
{
    return type == 2 ? DTYPE_F16 : DTYPE_BF16;
}

EXPORT int cublasLtMatmul(void *handle, void *desc, const void *alpha, const void *a,
                          void *a_layout, const void *b, void *b_layout, const void *beta,
                          const void *c, void *c_layout, void *y, void *y_layout, const void *algo,
                          void *workspace, size_t workspace_bytes, void *stream)
{
    const struct desc *d = desc;
    const struct layout *la = a_layout, *lb = b_layout, *ly = y_layout;
    enum dtype t = dtype_of(la->type);
    double factor = (double)*(const float *)beta;
    if (!d->transpose || la->rows != lb->rows || la->cols != ly->rows || lb->cols != ly->cols)
        return 7;
    for (uint64_t j = 0; j < ly->cols; j++)
        for (uint64_t i = 0; i < ly->rows; i++) {
            double sum =
                d->epilogue == 4 ? dtype_get(d->bias, dtype_of(d->bias_type), (int64_t)i) : 0;
            for (uint64_t k = 0; k < la->rows; k++)
                sum += dtype_get(a, t, (int64_t)i * la->ld + (int64_t)k) *
                       dtype_get(b, t, (int64_t)j * lb->ld + (int64_t)k);
            int64_t at = (int64_t)j * ly->ld + (int64_t)i;
            if (factor != 0) sum += factor * dtype_get(c, t, at);
            dtype_convert((char *)y + (size_t)at * dtype_bytes(t), t, &sum, DTYPE_F64, 1);
        }
    void (*clock_add)(double ms);
    *(void **)&clock_add = dlsym(RTLD_DEFAULT, "emulator_clock_add");
    const char *ms = getenv("FAKE_CUBLASLT_MS");
    if (clock_add) clock_add(ms ? strtod(ms, NULL) : 1);
    return 0;
}
