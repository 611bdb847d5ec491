/*
 * real.h - the number that plain kernels, tapes and gradients are built over.
 *
 * float in the program. The double build (KILN_REAL_DOUBLE: libraries kernels64 and tensor64, used
 * by tests/gradients only) compiles the same files with double, so that derivatives can be
 * checked against central differences to 1e-6.
 */
#ifndef KERNELS_REAL_H
#define KERNELS_REAL_H

#include "kernels/dtype.h"

#ifdef KILN_REAL_DOUBLE
typedef double real;
#define DTYPE_REAL DTYPE_F64
#else
typedef float real;
#define DTYPE_REAL DTYPE_F32
#endif

#endif
