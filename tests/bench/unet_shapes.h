/*
 * unet_shapes.h - the kernels that one guided Stable Diffusion 1.5 step at 512x512 calls.
 *
 * Place    bench_cpu.
 * Owner    init/release around a run; inputs are random, results thrown away.
 * Failure  as the kernels.
 */
#ifndef TESTS_BENCH_UNET_SHAPES_H
#define TESTS_BENCH_UNET_SHAPES_H

#include "kernels/device.h"

enum shape_kind {
    SHAPE_CONV,      /* h w c out kernel stride up */
    SHAPE_LINEAR,    /* m k out */
    SHAPE_ATTENTION, /* heads lq lk d */
    SHAPE_GROUP,     /* rows c (32 groups, SiLU) */
    SHAPE_LAYER,     /* rows d */
    SHAPE_GEGLU,     /* m k out: the linear before it too */
    SHAPE_COPY,      /* rows cols of the joined row */
    SHAPE_KINDS
};
extern const char *const shape_kind_name[SHAPE_KINDS];

struct unet_shape {
    const char *name;
    enum shape_kind kind;
    int count; /* in one step */
    int64_t a[7];
};
extern const struct unet_shape unet_shapes[];
extern const size_t unet_shape_count;

struct shape_run {
    const struct unet_shape *shape;
    struct device *device;
    enum dtype dtype;
    void *x, *y, *z, *bias;
    struct kernel_weight w;
};

double shape_flops(const struct unet_shape *s);
int shape_run_init(struct shape_run *r, const struct unet_shape *s, struct device *d,
                   enum dtype dtype, struct error *err);
int shape_run_once(struct shape_run *r, struct error *err);
void shape_run_release(struct shape_run *r);

#endif
