/*
 * cpu_group_norm.h - group norm in its two halves, for what applies it row by row.
 *
 * Place    cpu_norm.c has them; cpu_norm_conv uses them.
 * Failure  ERR_NO_MEMORY.
 */
#ifndef KERNELS_CPU_CPU_GROUP_NORM_H
#define KERNELS_CPU_CPU_GROUP_NORM_H

#include "kernels/cpu/cpu_isa.h"
#include "kernels/kernels.h"

/* Of the whole x: y = (x - middle) scale + shift, each [n,c]. Uses the call's scratch. */
int CPU_NAME(group_norm_statistics)(struct device *d, const struct group_norm_args *a, float *scale,
                                    float *shift, float *middle, struct error *err);
/* `rows` rows of c of one image; y may be x. */
void CPU_NAME(group_norm_apply)(void *y, const void *x, int64_t rows, int64_t c, const float *scale,
                                const float *shift, const float *middle, enum activation act,
                                enum dtype dtype);
#define group_norm_statistics CPU_NAME(group_norm_statistics)
#define group_norm_apply CPU_NAME(group_norm_apply)

#endif
