/*
 * pocket.h - training the pocket model from nothing: VAE, then UNet and text encoder together.
 *
 * Place    `kiln train pocket`. Pictures and captions come from painter/, arithmetic from the same
 *          models, passes and tape as everything else.
 * Owner    pocket_new / pocket_free; one thread.
 * Failure  ERR_NO_MEMORY, ERR_IO, ERR_INVALID (options; a loss that is no number), ERR_CANCELED.
 *
 * The folder that pocket_save writes is a diffusers folder in F16. `work` keeps the state of the
 * training, written every `save_every` steps; a run that finds it goes on from there.
 */
#ifndef TRAIN_POCKET_H
#define TRAIN_POCKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kernels/device.h"

struct pocket_options {
    const char *out;    /* the folder of the model */
    const char *work;   /* the folder of the state */
    uint64_t seed;      /* starting values, noise, order */
    uint64_t data_seed; /* the painter's pictures */
    int pictures;       /* painted once, used again and again */
    int vae_steps, vae_batch;
    int decoder_steps; /* of the decoder alone, on whole pictures; 0: none */
    int64_t steps;     /* of UNet and text encoder */
    int batch;
    int64_t tail;          /* the learning rate falls over the last so many steps */
    double vae_rate, rate; /* peak learning rates */
    int save_every;
};

struct pocket_progress {
    const char *part; /* "vae", "latents", "decoder", "unet" */
    int64_t step, steps;
    double loss; /* moving average */
    double seconds;
};

struct pocket_hooks {
    void *context;
    void (*progress)(void *context, const struct pocket_progress *progress);
    bool (*canceled)(void *context);
};

void pocket_options_init(struct pocket_options *o); /* what the committed model was trained with */
int pocket_train(struct device *device, const struct pocket_options *options,
                 const struct pocket_hooks *hooks, struct error *err);

#endif
