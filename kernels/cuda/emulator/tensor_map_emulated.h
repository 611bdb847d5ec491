/*
 * tensor_map_emulated.h - what the emulator keeps in the 128 bytes of a tensor map.
 *
 * Place    tensor_map_emulated.cpp writes it under the rules of the driver, hopper.cpp reads it.
 */
#ifndef KERNELS_CUDA_EMULATOR_TENSOR_MAP_EMULATED_H
#define KERNELS_CUDA_EMULATOR_TENSOR_MAP_EMULATED_H

#include <stdint.h>

struct emulated_map {
    uint64_t mark; /* emulated_map_mark: made by the functions of tensor_map.h */
    const uint8_t *base;
    uint32_t dim[4];
    int64_t pitch[3];
    uint16_t box[3]; /* tiles; pixels: the number of them in box[0] */
    int16_t pixels;  /* 1: of pictures */
    int32_t lower_x, lower_y, upper_x, upper_y, step;
};
static_assert(sizeof(struct emulated_map) <= 128, "has to fit into a tensor map");

static const uint64_t emulated_map_mark = 0x7065737365640a01u;

#endif
