/*
 * hopper.h - what products (wgmma.cpp) and copies (hopper.cpp) are to each other.
 *
 * Place    inside the emulator.
 * Failure  through emulated_fail.
 */
#ifndef KERNELS_CUDA_EMULATOR_HOPPER_H
#define KERNELS_CUDA_EMULATOR_HOPPER_H

#include <stddef.h>
#include <stdint.h>

enum { GROUPS = 8 }; /* of four warps, in the largest block */

/* hopper.cpp */
void hopper_used(const char *file,
                 int line); /* refuses other targets than compute capability 9.0 */
/* A product in the group's commit reads shared byte `at` (an address): it must have been copied there,
 * and the group's warps must have waited for the copy. */
void hopper_read(int group, size_t at, uint32_t commit, const char *file, int line);
/* The group's warps know now that commits up to this one are over. */
void hopper_products_over(int group, uint32_t commit);

/* wgmma.cpp */
void wgmma_block_start();
void wgmma_block_end(); /* nothing may be under way, and registers must suffice */

#endif
