/*
 * pocket_model.h - the pocket model while it is being trained: its networks, pictures and latents.
 *
 * Place    shared by pocket.c and its two halves, pocket_vae.c and pocket_denoiser.c; nobody else
 *          includes it.
 * Owner    init/release around the caller's struct. One thread.
 * Failure  ERR_NO_MEMORY, ERR_IO and what the networks report.
 */
#ifndef TRAIN_POCKET_MODEL_H
#define TRAIN_POCKET_MODEL_H

#include "diffusion/text/clip_text.h"
#include "diffusion/text/vocab.h"
#include "diffusion/train/network.h"
#include "diffusion/train/pocket.h"
#include "diffusion/train/pocket_vocab.h"
#include "diffusion/unet/unet.h"
#include "diffusion/vae/vae.h"
#include "painter/pot.h"
#include "tensor/tape.h"

#define POCKET_LATENT_PX 16
#define POCKET_LATENT_CHANNELS 4
#define POCKET_LATENT_COUNT (POCKET_LATENT_PX * POCKET_LATENT_PX * POCKET_LATENT_CHANNELS)
#define POCKET_PICTURE_BYTES (POT_SIDE_PX * POT_SIDE_PX * 3)
#define POCKET_TOKENS 77
#define POCKET_SCALE 0.18215

struct pocket {
    const struct pocket_options *options;
    const struct pocket_hooks *hooks;
    struct device *device;
    struct pass_memory memory;
    struct tape *tape;

    struct pocket_vocab vocab_text;
    struct vocab *vocab;
    struct vae vae;
    struct unet unet;
    struct clip_text text;
    struct params vae_params;
    struct params denoiser_params; /* UNet and text encoder */

    struct pot *pots;
    uint8_t *pictures; /* options->pictures x POCKET_PICTURE_BYTES */
    float *latents;    /* options->pictures x POCKET_LATENT_COUNT, [H,W,C], unit covariance */
    double started;
};

int pocket_init(struct pocket *m, struct device *device, const struct pocket_options *options,
                const struct pocket_hooks *hooks, struct error *err);
void pocket_release(struct pocket *m);

int pocket_train_vae(struct pocket *m, struct error *err);
/* Encodes all pictures and folds the latents' mean and covariance into the VAE. */
int pocket_encode(struct pocket *m, struct error *err);
/* The decoder goes on alone, on whole pictures, from the latents that pocket_encode fixed. */
int pocket_tune_decoder(struct pocket *m, struct error *err);
/* What op_mse should aim at instead of x [batch,side,side,3], so that y's gradient is that of
 * FLAT_SQUARE d^2 / 2 + |d| / 2 for each pixel's error d, and of its 8x8 block's mean error. */
void pocket_aim(float *aim, const float *x, const float *y, int batch, int side);
int pocket_train_denoiser(struct pocket *m, struct error *err);

/* Ids of a caption, framed and padded to POCKET_TOKENS. */
int pocket_tokens(const struct pocket *m, const char *caption, int32_t id[POCKET_TOKENS],
                  struct error *err);
/* The diffusers folder, with whatever has been trained so far. */
int pocket_save(struct pocket *m, struct error *err);

/* Tells the hooks; ERR_CANCELED when they say so. */
int pocket_tell(struct pocket *m, const char *part, int64_t step, int64_t steps, double loss,
                struct error *err);

#endif
