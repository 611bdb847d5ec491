/*
 * attention_wgmma.h - forward attention on compute capability 9.0, by wgmma and bulk copies.
 *
 * Place    one more way of cuda_attention.c, for head sizes 48 to 64 and 104 to 128; the tensor maps are
 *          made in cuda_wgmma_attention.c. Plain C structs.
 * Failure  launchers return a CUDA error number; shapes are the caller's duty
 *          (cuda_wgmma_attention_takes).
 */
#ifndef KERNELS_CUDA_ATTENTION_WGMMA_H
#define KERNELS_CUDA_ATTENTION_WGMMA_H

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/cuda/tensor_map.h"
#include "kernels/kernels.h"

enum { ATTENTION_WGMMA_QUERIES = 128, ATTENTION_WGMMA_KEYS = 128, ATTENTION_WGMMA_KEYS_ONCE = 80 };

struct attention_wgmma_args {
    struct tensor_map q, k, v; /* [image][row][head][d] */
    struct attention_args a;
    int keys; /* a tile of K and V: ATTENTION_WGMMA_KEYS, or _ONCE where all keys fit */
};

int attention_wgmma_f16(const struct attention_wgmma_args *args, void *stream);
int attention_wgmma_bf16(const struct attention_wgmma_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
