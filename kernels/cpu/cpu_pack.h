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

/* The B of `form` for activations of `dtype`, packed where it must be (cpu_unpacked.h). Making the
 * phases or the Winograd form of a weight that does not change drops its forward form: one
 * convolution uses one form. PACK_WINOGRAD without `packed`: the caller makes planes of `file`. */
int CPU_NAME(pack_get)(struct pack_b *b, struct device *d, struct kernel_weight *w,
                       struct pack_shape shape, enum pack_form form, enum dtype dtype,
                       struct error *err);
/* Columns [first, end) of the sixteen planes of a 3x3 weight: the bits that PACK_WINOGRAD has in them,
 * gemm_packed_bytes(c, end - first, F32) each. */
void CPU_NAME(pack_planes)(struct device *d, void *to, const struct unpacked *file, int64_t first,
                           int64_t end);
#define pack_get CPU_NAME(pack_get)
#define pack_planes CPU_NAME(pack_planes)

#endif
