/*
 * box_muller.h - uniform numbers to normal ones, as torch does on the CPU, bit for bit.
 *
 * Place    inside noise_cpu.c: blocks of sixteen uniforms in [0,1) become sixteen normals.
 * Owner    pure function. Any thread.
 * Failure  cannot fail.
 * Source   pytorch/pytorch normal_fill_AVX2; logarithm, sine and cosine by the single-precision
 *          polynomials of Moshier's Cephes library.
 *
 * In a block 0..7 give radii and 8..15 angles. Every multiplication that torch's compiler fuses with
 * an addition is an fmaf here, so the result does not depend on the machine; with FMA and AVX2 (chosen
 * at run time) eight lanes go at once.
 */
#ifndef SAMPLE_BOX_MULLER_H
#define SAMPLE_BOX_MULLER_H

#include <stddef.h>

void box_muller_fill(float *v, size_t blocks);

#endif
