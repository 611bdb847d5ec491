/*
 * memory.h - the emulated machine's shared and device memory, with their shadows.
 *
 * Place    inside the emulator; emulator.cpp calls it for every access of a kernel.
 * Owner    one global arena each.
 * Failure  through emulated_fail, which leaves the launch.
 */
#ifndef KERNELS_CUDA_EMULATOR_MEMORY_H
#define KERNELS_CUDA_EMULATOR_MEMORY_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t shared_t;

[[noreturn]] void emulated_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A new block: everything NaN, nobody has touched anything. */
void shared_memory_start(size_t bytes, bool check_races);
void shared_memory_epoch(); /* a block barrier has passed */
uint8_t *shared_memory_bytes(); /* of the block, for who checks by other rules */
void shared_memory_access(bool write, shared_t a, void *value, size_t bytes, int thread,
                          uint32_t warp_epoch, const char *file, int line);

void device_memory_launch(bool check_blocks); /* a new launch */
void device_memory_block(uint32_t block);     /* a new block of it */
void device_memory_access(bool write, const void *p, size_t bytes, const char *file, int line);

#endif
