/*
 * library.h - shared objects that are found when the program runs, and what they export.
 *
 * Place    kernels/device.c (the CUDA plug-in), kernels/cuda (cuBLASLt, cuDNN).
 * Owner    who opens closes, with dlclose, or never: devices hold pointers into the plug-in.
 * Failure  ERR_NOT_FOUND with the dynamic linker's words.
 */
#ifndef KERNELS_LIBRARY_H
#define KERNELS_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Both lists end with NULL and may be NULL. */
struct library_place {
    const char *variable;      /* of the environment: names the file; empty: none is wanted */
    const char *const *beside; /* paths from the program's folder; the first that is there counts */
    const char *const *names;  /* where the dynamic linker looks */
};

int library_open(void **library, const struct library_place *place, struct error *err);
/* entries: the address of `count` pointers, one a symbol, in order; false: one is missing. */
bool library_entries(void *library, void *entries, const char *const *symbols, size_t count);

#endif
