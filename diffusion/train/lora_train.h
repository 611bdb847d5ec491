/*
 * lora_train.h - a LoRA from a dozen pictures: cache, steps, checkpoints, previews, the sheet at the end.
 *
 * Place    engine/serve_train.c calls it with a loaded model and a dataset; `kiln train lora` is
 *          its face.
 * Owner    lora_train runs to its end on the caller's thread; the result's strings are the
 *          caller's.
 * Failure  ERR_INVALID (options; a loss that is no number: the last checkpoint stays and is named),
 *          ERR_NO_MEMORY (says what to lower), ERR_IO (no room for a checkpoint: the one before
 *          stays), ERR_CANCELED.
 * Source   defaults: lora-training 2.3; Hu et al. 2021; prior preservation: Ruiz et al. 2022, with the
 *          unchanged model's prediction as the target instead of the drawn noise (Li and Hoiem 2016,
 *          learning without forgetting): less variance, and nothing to unlearn.
 *
 * One step is one update of the weights, as in kohya's trainer: batch x accumulation pictures. (Draw
 * Things counts pictures.) What a step draws depends on (seed, step) only, so a run that was killed and
 * goes on from its state gives the same file as one that was not.
 */
#ifndef TRAIN_LORA_TRAIN_H
#define TRAIN_LORA_TRAIN_H

#include "diffusion/train/branches.h"
#include "diffusion/train/cache.h"
#include "diffusion/train/rate.h"

#define TRAIN_PROMPTS_MAX 16

struct lora_train_options {
    const char *name, *trigger; /* trigger NULL or "": none */
    const char *out;            /* OUT.safetensors; state, previews and curves stand beside it */
    int64_t steps;
    struct lora_options lora;
    enum lora_format format;
    struct rate rate; /* total is set from steps */
    enum optimizer optimizer;
    double weight_decay, clip;
    int batch, accumulation;
    int resolution; /* 0: the family's own */
    bool buckets, flip;
    int cuts;    /* random cuts of each picture; 1: its middle */
    double zoom; /* a random cut is enlarged by 1 .. zoom */
    double mask; /* weight of the loss outside marked regions; below 0: regions are not looked at */
    double caption_dropout, min_snr, noise_offset, pyramid_discount;
    int pyramid; /* levels of coarser noise; 0: off */
    int t_min, t_max;
    bool lean; /* blocks are computed again in the backward: less memory, more time */
    int64_t save_every, preview_every; /* 0: only at the end */
    const char *prompts[TRAIN_PROMPTS_MAX];
    int prompt_count, preview_steps;
    double preview_cfg;
    const char
        *prior[256]; /* prompts that shall stay what they are: drawn by the model beforehand */
    int prior_count;
    double prior_weight;
    uint64_t seed;
    bool fresh; /* a state that is there is not used */
    const char *author, *licence, *description;
    bool card;             /* OUT.md, to be uploaded with the file */
    const char *base_hash; /* the old eight digits of the base model's file, or NULL */
};

void lora_train_defaults(struct lora_train_options *o);
/* The size that the model's family is trained at. */
int lora_train_resolution(const struct model *model);

struct lora_train_progress {
    const char *phase; /* "encode", "prior", "train", "preview" */
    int64_t step, steps;
    double loss;         /* moving average; NAN before the first step */
    double seconds_step; /* mean over the last steps */
};

struct lora_train_hooks {
    void *context;
    void (*progress)(void *context, const struct lora_train_progress *progress);
    void (*note)(void *context, const char *sentence);
    bool (*canceled)(void *context);
    double (*joules)(void *context); /* since the start; NAN: not measured. May be NULL */
};

struct lora_train_result {
    int64_t steps, images;
    double seconds, final_loss;
    char *sheet, *curve; /* paths; NULL when not written */
    size_t peak_bytes;
};

int lora_train(struct model *model, const struct dataset *data,
               const struct lora_train_options *options, const struct lora_train_hooks *hooks,
               struct lora_train_result *result, struct error *err);
void lora_train_result_release(struct lora_train_result *result);

#endif
