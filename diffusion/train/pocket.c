#include "diffusion/train/pocket.h"

#include "diffusion/train/pocket_model.h"

void pocket_options_init(struct pocket_options *o)
{
    *o = (struct pocket_options){
        .out = "models/pocket",
        .work = "pocket-training",
        .seed = 1,
        .data_seed = 1,
        .pictures = 4000,
        .vae_steps = 3250,
        .vae_batch = 8,
        .decoder_steps = 600,
        .steps = 4600,
        .batch = 16,
        .tail = 2200,
        .vae_rate = 2.5e-3,
        .rate = 1.2e-3,
        .save_every = 250,
    };
}

int pocket_train(struct device *device, const struct pocket_options *options,
                 const struct pocket_hooks *hooks, struct error *err)
{
    if (options->pictures < 1 || options->batch < 1 || options->vae_batch < 1 ||
        options->save_every < 1 || options->tail < 1)
        return error_set(err, ERR_INVALID,
                         "pictures, batch sizes, tail and save interval must be at least 1");
    struct pocket m;
    int rc = pocket_init(&m, device, options, hooks, err);
    if (rc) return rc;
    rc = pocket_train_vae(&m, err);
    if (!rc) rc = pocket_encode(&m, err);
    if (!rc && options->decoder_steps) rc = pocket_tune_decoder(&m, err);
    if (!rc) rc = pocket_train_denoiser(&m, err);
    if (!rc) rc = pocket_save(&m, err);
    pocket_release(&m);
    return rc;
}
