/*
 * wrap_hopper.h - the words that only compute capability 9.0 has (sm_90a): barriers in shared memory,
 *                 bulk tensor copies, matrix products of four warps.
 *
 * Place    on top of wrap.h, included by the wgmma kernels alone. wrap_hopper_gpu.h has the
 *          instructions, emulator/wrap_hopper_emulated.h the same words for the host.
 * Source   PTX ISA 8.x: "mbarrier", "cp.async.bulk.tensor", "Asynchronous warpgroup level matrix
 *          instructions" (descriptors, swizzled layouts, fragments), "setmaxnreg".
 *
 *   HAS_WGMMA                              false where the code is compiled for another target
 *   phase_init phase_init_visible          a barrier of n arrivals; then block_sync
 *   phase_expect phase_arrive phase_wait   one arrival (and bytes to come); wait for a phase's parity
 *   tensor_load tensor_load_pixels         a box of a tensor map -> shared memory, counted by a barrier
 *   matrix_rows matrix_columns             descriptors of operands in shared memory
 *   wgmma<T, N> wgmma_registers<T, N>      D[64, N] = keep D + A[64, 16] B[16, N]; asynchronous
 *   group_fence group_commit group_wait<N> around them, by all four warps
 *   registers_hold                         after a wait: the sums are there, and A's registers free, from here on
 *   registers_give<N> registers_take<N>    of each thread of a group
 *
 * D is as mma's: thread t of the group has rows 16 (t / 32) + t % 32 / 4 (+ 8) and columns
 * 8 j + 2 (t % 4) (+ 1), in d[4 j + 2 half + e]. A in registers is as mma's A, by warp.
 * Where shared memory holds operands, a row is 128 bytes, swizzled as tensor_map.h says, and every
 * eight rows start at a multiple of 1024 bytes.
 */
#ifndef KERNELS_CUDA_WRAP_HOPPER_H
#define KERNELS_CUDA_WRAP_HOPPER_H

#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wrap.h"

/* Descriptor fields, each in units of 16 bytes: where, the leading and the stride step, swizzle. */
DEVICE uint64_t matrix_descriptor(shared_t at, uint32_t leading_bytes, uint32_t stride_bytes)
{
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(leading_bytes >> 4) << 16 |
           (uint64_t)(stride_bytes >> 4) << 32 | (uint64_t)1 << 62;
}

/* An operand whose 16 k are neighbours: row r is 128 bytes, 8 rows are 1024; k moves `at` by 2 bytes. */
DEVICE uint64_t matrix_rows(shared_t at)
{
    return matrix_descriptor(at, 16, 1024);
}

/* B whose columns are neighbours: k is a row of 64 columns; the next 64 columns are panel_bytes on. */
DEVICE uint64_t matrix_columns(shared_t at, uint32_t panel_bytes)
{
    return matrix_descriptor(at, panel_bytes, 1024);
}

#ifdef KILN_EMULATED
#include "kernels/cuda/emulator/wrap_hopper_emulated.h"
#else
#include "kernels/cuda/wrap_hopper_gpu.h"
#endif

#endif
