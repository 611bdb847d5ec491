/*
 * attention_sharing.h - what LayerDiffuse adds to SD 1.x so that it draws things without background.
 *
 * Place    below lora/lora.c, which applies the file like any adapter; above unet/, whose attention
 *          layers carry it (unet_attention.share).
 * Owner    attention_sharing_attach / attention_sharing_detach; the weights are copies.
 * Failure  ERR_FORMAT (a file with another number of places, or other widths), ERR_NO_MEMORY.
 * Source   Zhang & Agrawala 2024; public node ComfyUI-layerdiffuse: names hookers.layers.N, in the
 *          order of its table. With one frame, attention over the frames is the identity, so its
 *          queries and keys do not matter.
 */
#ifndef DIFFUSION_LAYERED_ATTENTION_SHARING_H
#define DIFFUSION_LAYERED_ATTENTION_SHARING_H

#include "diffusion/unet/unet.h"

#define SHARING_PLACES 32

/* Whether `key` is one of such a file; `place` of 0..31 and what follows "hookers.layers.N.". */
bool attention_sharing_key(const char *key, int *place, const char **rest);
/* "input_blocks_1_1_transformer_blocks_0_attn1"; place of 0..31 */
void attention_sharing_place(char *name, size_t room, int place);

int attention_sharing_attach(struct unet *m, const struct weight_store *store, struct error *err);
void attention_sharing_detach(struct unet *m, struct device *d);

#endif
