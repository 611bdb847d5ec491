/* cuBLASLt for linears: y^T = W x^T (+ bias) (+ add). Declared here, for its headers need not be there
 * when Kiln is built. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda_library.h"
#include "kernels/library.h"

enum {
    COMPUTE_32F = 68,
    REAL_32F = 0,
    REAL_16F = 2,
    REAL_16BF = 14,
    DESC_TRANSA = 3,
    DESC_EPILOGUE = 7,
    DESC_BIAS_POINTER = 8,
    DESC_BIAS_DATA_TYPE = 26,
    EPILOGUE_BIAS = 4,
    PREFERENCE_WORKSPACE = 1,
    OP_T = 1
};

struct algorithm { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algo[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

struct functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*desc_create)(void **desc, int compute, int scale);
    int (*desc_destroy)(void *desc);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t bytes);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_destroy)(void *preference);
    int (*preference_set)(void *preference, int attribute, const void *value, size_t bytes);
    int (*heuristic)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                     int wanted, struct algorithm *result, int *count);
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout,
                  const void *b, void *b_layout, const void *beta, const void *c, void *c_layout,
                  void *d, void *d_layout, const void *algo, void *workspace,
                  size_t workspace_bytes, void *stream);
};

struct cublaslt {
    struct functions f;
    void *library, *handle;
};

static bool can(const struct gemm_args *g, bool transposed, enum dtype dtype)
{
    const struct gemm_source *s = &g->source;
    const struct gemm_epilogue *e = &g->epilogue;
    return !transposed && g->phases == 1 && !g->partial && s->taps_h * s->taps_w == 1 &&
           s->step == 1 && s->shift == 0 && s->mask == 0 && s->y_from == 0 && s->x_from == 0 &&
           (s->limit_h == 1 || s->image_pitch == (int64_t)s->image_rows * s->pixel_pitch) &&
           !e->row && !e->row_scale && !e->act && !e->geglu &&
           (!e->bias || e->bias_dtype == (int)dtype) && dtype != DTYPE_F32;
}

struct product {
    void *desc, *a, *b, *d, *preference;
};

static void product_release(const struct functions *f, struct product *p)
{
    if (p->preference) f->preference_destroy(p->preference);
    if (p->d) f->layout_destroy(p->d);
    if (p->b) f->layout_destroy(p->b);
    if (p->a) f->layout_destroy(p->a);
    if (p->desc) f->desc_destroy(p->desc);
}

static int product_describe(const struct functions *f, struct product *p, const struct gemm_args *g,
                            int type)
{
    int op = OP_T, epilogue = EPILOGUE_BIAS;
    size_t most = LIBRARY_WORKSPACE_BYTES;
    const void *bias = g->epilogue.bias;
    int rc = f->desc_create(&p->desc, COMPUTE_32F, REAL_32F);
    if (!rc) rc = f->desc_set(p->desc, DESC_TRANSA, &op, sizeof op);
    if (!rc && bias) rc = f->desc_set(p->desc, DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!rc && bias) rc = f->desc_set(p->desc, DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!rc && bias) rc = f->desc_set(p->desc, DESC_BIAS_DATA_TYPE, &type, sizeof type);
    if (!rc) rc = f->layout_create(&p->a, type, (uint64_t)g->k, (uint64_t)g->n, g->b_pitch);
    if (!rc)
        rc = f->layout_create(&p->b, type, (uint64_t)g->k, (uint64_t)g->m, g->source.pixel_pitch);
    if (!rc) rc = f->layout_create(&p->d, type, (uint64_t)g->n, (uint64_t)g->m, g->y_pitch);
    if (!rc) rc = f->preference_create(&p->preference);
    if (!rc) rc = f->preference_set(p->preference, PREFERENCE_WORKSPACE, &most, sizeof most);
    return rc;
}

static int run(void *state, const struct gemm_args *g, enum dtype dtype, void *workspace,
               void *stream)
{
    struct cublaslt *s = state;
    struct product p = {0};
    struct algorithm best;
    int found = 0;
    const void *add = g->epilogue.add;
    float alpha = 1, beta = add ? 1 : 0;
    int rc = product_describe(&s->f, &p, g, dtype == DTYPE_F16 ? REAL_16F : REAL_16BF);
    if (!rc)
        rc = s->f.heuristic(s->handle, p.desc, p.a, p.b, p.d, p.d, p.preference, 1, &best, &found);
    if (!rc && (found < 1 || best.state || best.workspace_bytes > LIBRARY_WORKSPACE_BYTES)) rc = 15;
    if (!rc)
        rc = s->f.matmul(s->handle, p.desc, &alpha, g->b, p.a, g->source.a, p.b, &beta,
                         add ? add : g->y, p.d, g->y, p.d, best.algo, workspace,
                         LIBRARY_WORKSPACE_BYTES, stream);
    product_release(&s->f, &p);
    return rc;
}

static void close_library(void *state)
{
    struct cublaslt *s = state;
    if (s->handle) s->f.destroy(s->handle);
    dlclose(s->library);
    free(s);
}

bool cublaslt_open(struct cuda_library *library)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                        "libcublasLt.so.11", NULL};
    static const char *const symbols[] = {
        "cublasLtCreate",
        "cublasLtDestroy",
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescDestroy",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatrixLayoutCreate",
        "cublasLtMatrixLayoutDestroy",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceDestroy",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmul",
    };
    static const struct library_place place = {"KILN_CUBLASLT", NULL, names};
    void *file;
    if (library_open(&file, &place, NULL)) return false;
    struct cublaslt *s = alloc_zero(1, sizeof *s);
    s->library = file;
    _Static_assert(sizeof s->f == COUNT_OF(symbols) * sizeof(void *), "a pointer a symbol");
    if (!library_entries(file, &s->f, symbols, COUNT_OF(symbols)) || s->f.create(&s->handle)) {
        s->handle = NULL; /* nothing to destroy */
        close_library(s);
        return false;
    }
    *library = (struct cuda_library){"cuBLASLt", can, run, close_library, s};
    return true;
}
