/*
 * model_json.h - the few facts that a diffusers folder keeps in JSON.
 *
 * Place    between a model folder and model.c; the only JSON in diffusion/ besides vocabularies.
 * Owner    results are the caller's. Any thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT with the file and the field. Unknown fields are
 *          ignored.
 * Source   diffusers config.json of UNet2DConditionModel, AutoencoderKL, schedulers; transformers'
 *          CLIPTextConfig; model.safetensors.index.json.
 */
#ifndef DIFFUSION_MODEL_JSON_H
#define DIFFUSION_MODEL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MODEL_JSON_LEVELS_MAX 8

struct unet_json {
    int64_t groups; /* 0: not said */
    int64_t heads[MODEL_JSON_LEVELS_MAX];
    int head_count;     /* 0: not said; 1: the same everywhere */
    int64_t size_width; /* addition_time_embed_dim; 0: not said */
    bool upcast_attention;
};
struct vae_json {
    int64_t groups;
    double scale; /* 0: not said */
};
struct text_json {
    int64_t heads; /* 0: not said */
    bool quick_gelu, activation_said;
    int64_t pad, end; /* -1: not said */
};
struct scheduler_json {
    bool v_prediction, prediction_said, zero_snr;
};

int model_json_unet(struct unet_json *j, const char *path, struct error *err);
int model_json_vae(struct vae_json *j, const char *path, struct error *err);
int model_json_text(struct text_json *j, const char *path, struct error *err);
int model_json_scheduler(struct scheduler_json *j, const char *path, struct error *err);

/* The different file names of a weight_map: plain names only, nothing that leaves the folder.
 * names and each of them are the caller's (free). */
int model_json_shards(char ***names, size_t *count, const char *path, struct error *err);

#endif
