/*
 * cpu_winograd.h - 3x3 convolutions with 2.25 times fewer products, in float.
 *
 * Place    cpu_conv2d asks winograd_suits first.
 * Failure  ERR_NO_MEMORY; ERR_UNSUPPORTED for a weight dtype that is no float.
 * Source   Lavin & Gray, Fast Algorithms for Convolutional Neural Networks (2016), F(2x2,3x3).
 *
 * Only where products are of floats (panel_dtype): its error stays below that of a plain sum of K terms. As
 * bfloat16 the transformed inputs and weights would be rounded once more, which triples the error
 * (docs/performance.md).
 */
#ifndef KERNELS_CPU_CPU_WINOGRAD_H
#define KERNELS_CPU_CPU_WINOGRAD_H

#include "kernels/cpu/cpu_isa.h"
#include "kernels/kernels.h"

bool CPU_NAME(winograd_suits)(const struct conv2d_args *a);
int CPU_NAME(winograd_conv2d)(struct device *d, const struct conv2d_args *a, struct error *err);
#define winograd_suits CPU_NAME(winograd_suits)
#define winograd_conv2d CPU_NAME(winograd_conv2d)

#endif
