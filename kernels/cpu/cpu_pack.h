/*
 * cpu_pack.h - weights in the form that cpu_gemm reads.
 *
 * Place    linear and convolution ask for the form they need when they need it.
 * Owner    the weight keeps the result (cpu_packed.h).
 * Failure  ERR_NO_MEMORY; ERR_UNSUPPORTED for a weight dtype that is no float.
 */
#ifndef KERNELS_CPU_CPU_PACK_H
#define KERNELS_CPU_CPU_PACK_H

#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_packed.h"

/* B of one product. */
struct pack_b {
    const void *packed;   /* NULL: made of `file` for the call */
    struct unpacked file; /* has data: K is in the order of cpu_unpacked.h, also when packed */
};

/* The B of `form` for activations of `dtype`, packed where it must be (cpu_unpacked.h). Making the phases or the Winograd form of a weight
 * that does not change drops its forward form: one convolution uses one form. */
int CPU_NAME(pack_get)(struct pack_b *b, struct device *d, struct kernel_weight *w,
                       struct pack_shape shape, enum pack_form form, enum dtype dtype,
                       struct error *err);
#define pack_get CPU_NAME(pack_get)

#endif
