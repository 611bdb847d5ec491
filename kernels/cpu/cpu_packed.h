/*
 * cpu_packed.h - what hangs on a weight that the CPU has multiplied with.
 *
 * Place    kernel_weight.packed of the CPU back end: made by cpu_pack.c on first use, remade when
 *          `version` moved.
 * Owner    the weight; cpu_unpack (cpu_device.c) frees every form.
 */
#ifndef KERNELS_CPU_CPU_PACKED_H
#define KERNELS_CPU_CPU_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pack_form {
    PACK_FORWARD,         /* B[tap * c + channel][out] */
    PACK_BACKWARD,        /* B[tap * out + o][channel], taps turned round */
    PACK_PHASES,          /* enlargement x2 and 3x3 in one: four B of 2x2 taps, phase (py, px) */
    PACK_PHASES_BACKWARD, /* its derivative: 4x4 taps with stride 2 */
    PACK_WINOGRAD,        /* sixteen B[channel][out]: 3x3 taps transformed (cpu_winograd.h) */
    PACK_INT8,            /* cpu_int8.h */
    PACK_FORMS
};

/* The kernel's own idea of a weight: [out,c,kh,kw], 1x1 for a linear. */
struct pack_shape {
    int64_t out, c, kh, kw;
};

struct packed {
    void *form[PACK_FORMS][2]; /* [.][0] F32, [.][1] BF16 */
    uint64_t version[PACK_FORMS][2];
    struct pack_shape shape[PACK_FORMS][2];
    size_t bytes[PACK_FORMS][2];
    /* PACK_FORWARD packed call by call (cpu_unpacked.h): how often so far, and whether the derivative was
     * asked for, so that keeping a form would be a second copy beside the file's pages */
    int uses[2];
    bool derivative;
};

#endif
