/*
 * machine.h - what emulator.cpp and hopper.cpp are to each other.
 *
 * Place    inside the emulator. emulator.cpp runs lanes; hopper.cpp has what compute capability 9.0
 *          adds: barriers in shared memory, bulk tensor copies and products that complete later.
 * Owner    one global machine.
 * Failure  through emulated_fail.
 */
#ifndef KERNELS_CUDA_EMULATOR_MACHINE_H
#define KERNELS_CUDA_EMULATOR_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* emulator.cpp */
int machine_thread();                                             /* the running one */
int machine_threads();                                            /* in the block */
int machine_target();                                             /* 90 */
void machine_sleep(const char *what, const char *file, int line); /* until somebody wakes it */
void machine_wake(int thread);
struct emulator_counts *machine_counts();

/* hopper.cpp */
void hopper_block_start(size_t shared_bytes);
void hopper_block_end(); /* all threads have ended: nothing may be under way */
void hopper_barrier();   /* a block barrier has passed */
bool hopper_idle(
    uint64_t draw); /* nobody can run: finishes one copy, drawn or the oldest. false: none */
void hopper_early(uint64_t draw); /* finishes one copy that may as well come now, if there is one */
/* An ordinary access to shared memory that a bulk copy may have written. Offsets. */
void hopper_shared_access(bool write, size_t at, size_t bytes, const char *file, int line);

#endif
