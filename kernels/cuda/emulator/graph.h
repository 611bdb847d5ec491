/*
 * graph.h - what a capture keeps: launches with their parameters, and copies, in order.
 *
 * Place    between emulator_launch and the emulated runtime's capture calls.
 * Owner    emulator_capture_begin .. end; then the caller of end. One thread.
 * Failure  cannot fail (memory ends the process, as everywhere in the emulator).
 */
#ifndef KERNELS_CUDA_EMULATOR_GRAPH_H
#define KERNELS_CUDA_EMULATOR_GRAPH_H

#include "kernels/cuda/emulator/emulator.h"

struct graph_launch {
    const char *name;
    emulator_body body;
    unsigned grid_x, grid_y, grid_z, block;
    size_t shared_bytes;
};

void graph_keep_launch(const struct graph_launch &launch, const void *params, size_t params_bytes);

#endif
