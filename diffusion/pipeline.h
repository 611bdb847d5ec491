/*
 * pipeline.h - request in, pixels out.
 *
 * Place    above text/ unet/ vae/ sample/ lora/ control/; below engine/serve_generate and nothing
 *          else. `kiln generate` starts an engine of its own and goes the same way.
 * Owner    one engine owns its device and its models; one thread.
 * Failure  ERR_INVALID (request), ERR_FORMAT / ERR_NOT_FOUND (model files), ERR_NO_MEMORY,
 *          ERR_DEVICE, ERR_CANCELED, ERR_UNSUPPORTED; the sentence names the thing and the limit.
 */
#ifndef DIFFUSION_PIPELINE_H
#define DIFFUSION_PIPELINE_H

#include "image/pixels.h"
#include "kernels/device.h"
#include "proto/request.h"

struct model; /* one checkpoint on one device: text encoders, UNet, VAE, vocabulary */

/* INT8: the UNet's layers in 8 bits but for the first, the last and those of time and text, all else as with AUTO;
 * ERR_UNSUPPORTED where the device has no such products. */
enum precision { PRECISION_AUTO, PRECISION_FP32, PRECISION_BF16, PRECISION_FP16, PRECISION_INT8 };

struct model_info {
    enum family family;
    bool v_prediction, inpainting;
    char path[512];
    char sha256[65];     /* of the file(s); empty until known */
    size_t weight_bytes; /* in use, in the storage dtype of the checkpoint */
    double load_seconds;
};

/* A single-file checkpoint (.safetensors, .ckpt) or a diffusers folder; `vae_path` may be NULL. */
int model_open(struct model **model, struct device *device, const char *path, const char *vae_path,
               enum precision precision, struct error *err);
void model_close(struct model *model);
/* What the files of a model hold, a file or a diffusers folder, as a guess at what it will take (0: they
 * cannot be read), and how much of it the page cache lacks. */
struct model_files {
    size_t bytes, cold_bytes;
};
struct model_files model_files(const char *path);
/* Brings all weights that would come when they are first used: to the device, or into the page cache. Slow;
 * ERR_CANCELED when the device's `canceled` says so, and the model is as good as before. */
int model_fetch(struct model *model, struct error *err);
/* From one handle of a device to another (device_twin), whose thread calls this when the first one's thread
 * has done its last: nothing of the model is in use. */
void model_move(struct model *model, struct device *to);
size_t
model_device_bytes(const struct model *model); /* that closing it gives back, without passes */
const struct model_info *model_info(const struct model *model);

enum pipeline_phase { PHASE_LOAD, PHASE_TEXT, PHASE_SAMPLE, PHASE_DECODE, PHASE_COUNT };

struct pipeline_progress {
    enum pipeline_phase phase;
    int step, steps; /* within PHASE_SAMPLE: network steps done of all */
    double seconds;  /* since the start of the request */
};

struct pipeline_hooks {
    void *context;
    void (*progress)(void *context, const struct pipeline_progress *progress);
    bool (*canceled)(void *context);
    /* After every so many steps, the first picture as it looks then; 0: never. */
    int preview_every;
    void (*preview)(void *context, const struct pixels *picture);
    const char *annotators; /* folder of their checkpoints (control/annotator.h); NULL: none */
    const char *layered;    /* folder of what makes pictures transparent; NULL: none */
    /* The device has no memory left and the request is about to be tried once more, leanly: gives
     * back what others hold. NULL: nobody does. */
    void (*make_room)(void *context);
};

struct pipeline_result {
    struct pixels *images; /* request->count of them, RGB, transparent ones RGBA; the caller's */
    int count;
    double text_seconds, sample_seconds, decode_seconds;
    size_t peak_bytes; /* of the passes */
    /* what could not be honoured: the Horde's "lora:baseline_mismatch:name", then a tab and a
     * sentence for people */
    char **notes;
    int note_count;
};

int pipeline_run(struct model *model, const struct image_request *request,
                 const struct pipeline_hooks *hooks, struct pipeline_result *result,
                 struct error *err);

/* Several requests that are equal but for seed and count, as one run: request->count is the sum of
 * theirs, the images come in their order. Each draws the noise that it would draw alone; what the
 * network makes of it differs from running alone only as batches differ (docs/performance.md).
 * Not for dpm_adaptive, whose steps depend on the whole batch: ERR_INVALID. ERR_NO_MEMORY at once:
 * the lean way is for one request. */
struct pipeline_share {
    uint64_t seed;
    int count;
};
int pipeline_run_shared(struct model *model, const struct image_request *request,
                        const struct pipeline_share *shares, int share_count,
                        const struct pipeline_hooks *hooks, struct pipeline_result *result,
                        struct error *err);
void pipeline_result_release(struct pipeline_result *result);

#endif
