/*
 * tensor_map.h - how a bulk copy finds its rows: an array of up to four dimensions and the box that
 *                one copy takes.
 *
 * Place    made on the host for each launch of a wgmma kernel (cuda_wgmma.c), carried by value among
 *          its parameters, read by tensor_load and tensor_load_pixels (wrap_hopper.h).
 *          tensor_map_cuda.c asks the driver; emulator/tensor_map_emulated.cpp keeps the same facts.
 * Failure  0, or a number of the driver: a pitch, a box or a corner outside what the card takes.
 * Source   CUDA driver API, "Tensor Map Object Management"; PTX ISA, "Tensors".
 *
 * Elements are 16 bits. Boxes are 64 elements (128 bytes) wide and land in shared memory row after
 * row, swizzled by 128 bytes: chunk c of row r lies where chunk c ^ (r & 7) would. What lies outside
 * the array arrives as zeros.
 */
#ifndef KERNELS_CUDA_TENSOR_MAP_H
#define KERNELS_CUDA_TENSOR_MAP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define TENSOR_MAP_ALIGNED alignas(64)
#else
#define TENSOR_MAP_ALIGNED _Alignas(64)
#endif

enum { TENSOR_BOX = 64 }; /* elements a row */

struct tensor_map {
    TENSOR_MAP_ALIGNED uint64_t word[16];
};

struct tensor_tiles {
    const void *base;
    int64_t dim[4];   /* elements, fastest first */
    int64_t pitch[3]; /* bytes from one index of dimension 1, 2, 3 to the next; multiples of 16 */
    int box[3];       /* of dimensions 1, 2, 3; the first is TENSOR_BOX */
};

/* Pictures [n][h][w][c]: a box is `pixels` of them in the order of lines and pictures, `step` apart,
 * walking a rectangle that starts at (from_y, from_x) and is `rows` x `columns` long. The copy adds
 * an offset of 0 to 255 to all. */
struct tensor_pixels {
    const void *base;
    int64_t c, w, h, n;
    int64_t pixel_pitch, line_pitch, image_pitch; /* bytes */
    int from_y, from_x, rows, columns, step, pixels;
};

bool tensor_map_ready(void); /* does the driver know tensor maps? */
int tensor_map_tiles(struct tensor_map *map, const struct tensor_tiles *tiles);
int tensor_map_pixels(struct tensor_map *map, const struct tensor_pixels *pixels);

#ifdef __cplusplus
}
#endif
#endif
