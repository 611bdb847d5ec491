/*
 * train_options.h - the options of `kiln train`, read and judged.
 *
 * Place    between an ENGINE_TRAIN message (names and values, as typed after the dashes) and
 *          diffusion/train.
 * Owner    train_options_parse / train_options_release around the caller's struct; strings borrow
 *          from the message.
 * Failure  ERR_INVALID with the option, its value and what it may be.
 */
#ifndef ENGINE_TRAIN_OPTIONS_H
#define ENGINE_TRAIN_OPTIONS_H

#include "diffusion/train/lora_train.h"
#include "diffusion/train/pocket.h"
#include "proto/engine_msg.h"

struct train_options {
    const char *what;  /* "lora" or "pocket" */
    const char *model; /* of a LoRA */
    struct dataset_options data;
    struct lora_train_options lora;
    struct pocket_options pocket;
    char *prior_text; /* the file of prompts that lora.prior points into */
};

int train_options_parse(struct train_options *o, const struct engine_train *message,
                        struct error *err);
void train_options_release(struct train_options *o);

#endif
