/*
 * taesd.h - a tiny decoder: previews while a picture is drawn, or a quick last step.
 *
 * Place    instead of vae_decode; sees latents on the UNet's scale. Named as the model's VAE it
 *          decodes for it (model.c); the model's own VAE goes on encoding.
 * Owner    taesd_open / taesd_close. One thread.
 * Failure  taesd_known says whether a store holds one; opening: ERR_FORMAT; running: through the
 *          pass.
 * Source   madebyollin/taesd (indices of nn.Sequential), diffusers AutoencoderTiny.
 */
#ifndef DIFFUSION_VAE_TAESD_H
#define DIFFUSION_VAE_TAESD_H

#include "diffusion/layers.h"
#include "diffusion/weight_store.h"

struct taesd;

bool taesd_known(const struct weight_store *store);
/* The store must outlive it. */
int taesd_open(struct taesd **t, struct device *device, struct weight_store *store,
               struct error *err);
void taesd_close(struct taesd *t);
void taesd_move(struct taesd *t,
                struct device *to); /* to another handle of its device; NULL is fine */

/* z [N,h,w,4] on the UNet's scale -> [N,8h,8w,3] in [-1,1] */
struct tensor taesd_decode(struct pass *p, struct taesd *t, struct tensor z);
/* Host to host: latent [4,h,w], picture [8h,8w,3]. */
int taesd_decode_picture(struct taesd *t, struct pass_memory *memory, enum dtype dtype,
                         const float *latent, int64_t h, int64_t w, float *picture,
                         struct error *err);

#endif
