/*
 * engine.h - the process that owns a compute device.
 *
 * Place    one struct per kiln-engine process, made by main.c, passed to every serve_* function.
 * Owner    the engine's thread.
 * Failure  serve functions send exactly one result or error for their job; they return ERR_DEVICE
 *          only when the device is lost for good, and the process then ends with ENGINE_EXIT_DEVICE
 *          (reliability E1).
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "diffusion/safety/safety.h"
#include "engine/channel.h"
#include "engine/describe.h"
#include "engine/finisher.h"
#include "engine/models.h"
#include "engine/nvml.h"
#include "engine/post.h"
#include "engine/together.h"

#define ENGINE_EXIT_DEVICE 70

struct engine {
    struct device *device;
    struct models models;
    struct post post;
    char *annotators; /* folder; NULL: no cache folder is known */
    char *layered;    /* likewise: LayerDiffuse's files */
    struct describe describe;
    struct safety *safety; /* NULL: none, or a broken one */
    struct channel channel;
    struct finisher finisher;
    struct together together;
    struct nvml *nvml; /* NULL: nothing is known about the card */
    uint64_t foreseen; /* news of the channel that were looked at */
};

/* Called between the steps of a job: what the next one needs is loaded beside it. `anew`: at its start, when
 * what had no room before may have it now. */
void engine_foresee(struct engine *e, bool anew);

int serve_load(struct engine *e, const struct engine_msg *job);
/* These take the job; its end may come later, from the finisher. */
int serve_alchemy(struct engine *e, struct engine_msg *job);
int serve_generate(struct engine *e, struct engine_msg *job);
int serve_train(struct engine *e, const struct engine_msg *job);

#endif
