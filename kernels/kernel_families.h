/*
 * kernel_families.h - every kernel of the table once, with what it reads and writes, for a benchmark
 *                     that compares with the plain loops.
 *
 * Place    kernel_bench.c; the shapes that matter most have cases of their own there.
 * Owner    a const table; a run's memory is the caller's.
 * Failure  that of the kernels.
 */
#ifndef KERNELS_KERNEL_FAMILIES_H
#define KERNELS_KERNEL_FAMILIES_H

#include <math.h>

#include "kernels/device.h"
#include "kernels/kernels.h"

#define FAMILY_OPERANDS_MAX 12

struct family_operand {
    int64_t count;
    enum dtype dtype;
    bool activation; /* in the run's activation dtype instead */
    bool host;       /* read from host memory: weights, ids */
    bool result;     /* compared afterwards */
    double scale;    /* of random numbers; 0: zeros */
};

/* One side of a comparison: the operands where this device reads them. */
struct family_side {
    struct device *d;
    enum dtype dtype; /* of activations */
    void *at[FAMILY_OPERANDS_MAX];
    struct kernel_weight w[3];
};

struct family {
    const char *name;
    int64_t n[6], small[6]; /* sizes; the second for a quick look */
    int operands;
    void (*describe)(const int64_t *n, struct family_operand *o);
    int (*run)(struct family_side *s, const int64_t *n, struct error *err);
    bool (*there)(const struct kernels *k); /* NULL: in every table */
    double limit;                           /* of |err| / |ref| in F16; other types in proportion */
    double (*flop)(const int64_t *n);       /* NULL: memory is what counts */
};

/* products, attention, norms and their gradients; and everything else */
extern const struct family kernel_families_model[], kernel_families_rest[];
extern const int kernel_families_model_count, kernel_families_rest_count;

/* ---- how families describe themselves ---- */

static inline struct family_operand family_act(int64_t count, double scale)
{
    return (struct family_operand){.count = count, .activation = true, .scale = scale};
}

static inline struct family_operand family_result(int64_t count, double scale)
{
    return (struct family_operand){
        .count = count, .activation = true, .scale = scale, .result = true};
}

static inline struct family_operand family_weight(int64_t count, int64_t k)
{
    return (struct family_operand){
        .count = count, .activation = true, .host = true, .scale = 1 / sqrt((double)k)};
}

static inline struct family_operand family_f32(int64_t count, double scale, bool is_result)
{
    return (struct family_operand){
        .count = count, .dtype = DTYPE_F32, .scale = scale, .result = is_result};
}

/* w[i] over operand `operand` of side s; filled by the first call, packed from then on */
static inline struct kernel_weight *family_weigh(struct family_side *s, int i, int operand,
                                                 int rank, const int64_t *dim)
{
    struct kernel_weight *w = &s->w[i];
    if (w->data) return w;
    *w = (struct kernel_weight){.data = s->at[operand], .dtype = s->dtype, .rank = rank};
    for (int j = 0; j < rank; j++) w->dim[j] = dim[j];
    return w;
}
#define FAMILY_DIM(...) ((const int64_t[]){__VA_ARGS__})

#endif
