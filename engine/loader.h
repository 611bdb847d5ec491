/*
 * loader.h - one model opened and brought in beside the work, by a thread that gives way to it.
 *
 * Place    engine/models starts it for the model that the next job needs, and takes what it made.
 * Owner    the engine; start, take and stop are its thread's. The thread below has a device of its own
 *          (device_twin) and touches nothing else of the engine.
 * Failure  what model_open or model_fetch said is what loader_take returns; the work is not told.
 *          ERR_DEVICE means that the card is gone for the work too.
 */
#ifndef ENGINE_LOADER_H
#define ENGINE_LOADER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "diffusion/pipeline.h"

enum loader_state {
    LOADER_IDLE,
    LOADER_OPENING,
    LOADER_FETCHING, /* it could be used: what is missing comes when it is asked for */
    LOADER_DONE      /* or failed */
};

struct loader {
    struct device *device; /* the work's */
    char *path, *vae_path;
    enum precision precision;
    pthread_t thread;
    struct device *twin;
    struct model *model;
    int rc;
    struct error err;
    _Atomic int state; /* enum loader_state */
    atomic_bool stopping;
};

void loader_init(struct loader *l, struct device *device);
/* Idle before. ERR_NO_MEMORY where no thread can be started. */
int loader_start(struct loader *l, const char *path, const char *vae_path, enum precision precision,
                 struct error *err);
enum loader_state loader_state(const struct loader *l);
/* Hands the model over as the work's, and is idle. A card is waited for; on the CPU nothing is: what the
 * page cache lacks comes when it is read, and a model that is not open yet is ERR_CANCELED. */
int loader_take(struct loader *l, struct model **model, struct error *err);
/* Gives up and back whatever it has; idle afterwards. */
void loader_stop(struct loader *l);
void loader_close(struct loader *l); /* the same, for good */

#endif
