/* Tensor maps by the driver, found through the runtime's table of driver entries: the plug-in links no
 * driver, and a driver before CUDA 12 simply has none. */
#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

/* the driver's numbers, as its headers from CUDA 12.0 on have them */
enum { TYPE_UINT16 = 1, INTERLEAVE_NONE = 0, SWIZZLE_128 = 3, PROMOTE_128 = 2, FILL_ZEROS = 0 };

typedef int (*encode_tiled)(void *map, int type, uint32_t rank, void *base, const uint64_t *dim,
                            const uint64_t *pitch, const uint32_t *box, const uint32_t *step,
                            int interleave, int swizzle, int promotion, int fill);
typedef int (*encode_im2col)(void *map, int type, uint32_t rank, void *base, const uint64_t *dim,
                             const uint64_t *pitch, const int *lower, const int *upper,
                             uint32_t channels, uint32_t pixels, const uint32_t *step,
                             int interleave, int swizzle, int promotion, int fill);

/* NULL: the driver, or this toolkit, has none. */
static void *entry(const char *name)
{
    void *found = NULL;
#if CUDART_VERSION >= 12050
    enum cudaDriverEntryPointQueryResult state;
    if (cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &state) ||
        state != cudaDriverEntryPointSuccess)
        found = NULL;
#elif CUDART_VERSION >= 12000
    enum cudaDriverEntryPointQueryResult state;
    if (cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &state) ||
        state != cudaDriverEntryPointSuccess)
        found = NULL;
#else
    (void)name;
#endif
    if (!found) cudaGetLastError(); /* not known is an answer */
    return found;
}

bool tensor_map_ready(void)
{
    return entry("cuTensorMapEncodeTiled") && entry("cuTensorMapEncodeIm2col");
}

int tensor_map_tiles(struct tensor_map *map, const struct tensor_tiles *t)
{
    encode_tiled encode;
    *(void **)&encode = entry("cuTensorMapEncodeTiled");
    if (!encode) return cudaErrorNotSupported;
    uint64_t dim[4], pitch[3];
    uint32_t box[4] = {TENSOR_BOX, 0, 0, 0}, step[4] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) dim[i] = (uint64_t)t->dim[i];
    for (int i = 0; i < 3; i++) pitch[i] = (uint64_t)t->pitch[i], box[i + 1] = (uint32_t)t->box[i];
    return encode(map, TYPE_UINT16, 4, (void *)t->base, dim, pitch, box, step, INTERLEAVE_NONE,
                  SWIZZLE_128, PROMOTE_128, FILL_ZEROS);
}

int tensor_map_pixels(struct tensor_map *map, const struct tensor_pixels *p)
{
    encode_im2col encode;
    *(void **)&encode = entry("cuTensorMapEncodeIm2col");
    if (!encode) return cudaErrorNotSupported;
    const uint64_t dim[4] = {(uint64_t)p->c, (uint64_t)p->w, (uint64_t)p->h, (uint64_t)p->n};
    const uint64_t pitch[3] = {(uint64_t)p->pixel_pitch, (uint64_t)p->line_pitch,
                               (uint64_t)p->image_pitch};
    const uint32_t step[4] = {1, (uint32_t)p->step, (uint32_t)p->step, 1};
    /* corners, x before y: the first start, and the last one counted from the last pixel */
    const int lower[2] = {p->from_x, p->from_y};
    const int upper[2] = {p->from_x + (p->columns - 1) * p->step - (int)(p->w - 1),
                          p->from_y + (p->rows - 1) * p->step - (int)(p->h - 1)};
    return encode(map, TYPE_UINT16, 4, (void *)p->base, dim, pitch, lower, upper, TENSOR_BOX,
                  (uint32_t)p->pixels, step, INTERLEAVE_NONE, SWIZZLE_128, PROMOTE_128, FILL_ZEROS);
}
