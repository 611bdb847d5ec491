/*
 * alpha_decoder.h - the network that gives a drawn picture its transparency.
 *
 * Place    after the VAE's decoder, where a request asks for a transparent picture: it sees the
 *          picture and the latents that it came from. The latents were drawn by a UNet changed for
 *          it (attention_sharing.h, or a full difference of SDXL's weights).
 * Owner    alpha_decoder_open / alpha_decoder_close. One thread.
 * Failure  opening: ERR_FORMAT, ERR_NOT_FOUND; alpha_decode_picture: ERR_INVALID for a size that
 *          cannot be halved six times, ERR_NO_MEMORY, ERR_CANCELED; running: through the pass.
 * Source   Zhang & Agrawala 2024 (LayerDiffuse), section 3.1: a UNet over the picture with the
 *          latents added at an eighth of its size; names as diffusers' blocks have them. As in the
 *          public ComfyUI node, the median (the lower one) of eight orientations counts.
 */
#ifndef DIFFUSION_LAYERED_ALPHA_DECODER_H
#define DIFFUSION_LAYERED_ALPHA_DECODER_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

struct alpha_decoder;

int alpha_decoder_open(struct alpha_decoder **decoder, struct device *device, const char *path,
                       struct error *err);
void alpha_decoder_close(struct alpha_decoder *d);

/* x [N,H,W,3] in [0,1]; z [N,H/8,W/8,4], the VAE's latents without the UNet's scale ->
 * [N,H,W,4]: alpha, then the colour of what is seen, about [0,1] */
struct tensor alpha_decoder_run(struct pass *p, struct alpha_decoder *d, struct tensor x,
                                struct tensor z);

/* How many pixels a side must be a multiple of. */
int alpha_decoder_multiple(const struct alpha_decoder *d);

/* Host to host. picture [h,w,3] in [0,1], latent [4,h/8,w/8] as above; rgba [h,w,4] in [0,1], alpha
 * last. `canceled` (may be NULL) is asked between the orientations. */
int alpha_decode_picture(struct alpha_decoder *d, struct pass_memory *memory, enum dtype dtype,
                         const float *picture, const float *latent, int64_t h, int64_t w,
                         float *rgba, bool (*canceled)(void *context), void *context,
                         struct error *err);

#endif
