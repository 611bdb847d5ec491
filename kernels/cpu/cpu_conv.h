/*
 * cpu_conv.h - a convolution whose weight is at hand, for callers that do it part by part.
 *
 * Place    cpu_conv.c has it; cpu_norm_conv uses it.
 * Failure  ERR_NO_MEMORY.
 */
#ifndef KERNELS_CPU_CPU_CONV_H
#define KERNELS_CPU_CPU_CONV_H

#include "kernels/cpu/cpu_pack.h"

/* Without phases or Winograd's planes; b is the weight's PACK_FORWARD. */
int CPU_NAME(conv2d_with)(struct device *d, const struct conv2d_args *a, const struct pack_b *b,
                          struct error *err);
#define conv2d_with CPU_NAME(conv2d_with)

#endif
