/*
 * models.h - which checkpoints are in memory.
 *
 * Place    between engine/serve_* and diffusion/pipeline.h's model_open. A host names a model with
 *          a load message (name, path); a job that names an unknown one is taken as a path.
 * Owner    the engine; its thread only. A loader (loader.h) brings one model beside the work.
 * Failure  model_open's. The least recently used model goes when a new one would pass the limit or
 *          when memory runs out, also in the middle of a job (device.relief): first what was loaded
 *          ahead, then what is idle, and only then is the job told.
 */
#ifndef ENGINE_MODELS_H
#define ENGINE_MODELS_H

#include "diffusion/pipeline.h"
#include "engine/file_hash.h"
#include "engine/loader.h"

#define MODELS_MAX 64

/* As a load message says it; path NULL: the name is one. */
struct model_wish {
    const char *name, *path, *vae_path;
    enum precision precision;
};

enum models_ahead { AHEAD_AUTO, AHEAD_ALWAYS, AHEAD_NEVER };

struct models {
    struct device *device;
    enum precision precision; /* when a load message says auto */
    size_t limit_bytes;       /* of resident weights; 0: no limit */
    struct model_slot {
        char *name, *path, *vae_path;
        enum precision precision;
        struct model *model;   /* NULL: known, not resident */
        struct file_hash hash; /* begun when the model was loaded */
        uint64_t used;         /* rises with every use */
        bool ahead;            /* loaded beside the work, not used yet */
    } slot[MODELS_MAX];
    int count;
    uint64_t uses;
    struct model_slot *current; /* what models_get gave last: never closed to make room */
    enum models_ahead ahead;    /* auto: on the CPU only what the page cache lacks */
    struct loader loader;
    struct model_slot *loading; /* what the loader is at; NULL: it is idle */
    struct error lost;          /* ERR_DEVICE that the loader met: the card is gone */
};

void models_init(struct models *m, struct device *device, enum precision precision,
                 size_t limit_bytes);
void models_release(struct models *m);

/* Makes a name known; replaces what it named before. vae_path may be NULL. */
int models_name(struct models *m, const char *name, const char *path, const char *vae_path,
                enum precision precision, struct error *err);
/* That name is known and means just this: models_name would change nothing. */
bool models_is_named(const struct models *m, const char *name, const char *path,
                     const char *vae_path, enum precision precision);
/* Resident and ready, loaded when need be. Borrowed until the next call. */
int models_get(struct models *m, const char *name, struct model **model, struct error *err);
/* What a later job will ask for is loaded beside the work, if there is room without the model in use: in
 * the limit, in what the device has free, in what the machine has. False: it is resident, look further. */
bool models_resident(struct models *m, const char *name);
void models_foresee(struct models *m, const struct model_wish *wish);
/* Between steps: takes over what the loader has finished. */
void models_poll(struct models *m);
/* SHA-256 of the model's file; waits for it. "" when it cannot be told. */
const char *models_hash(struct models *m, const char *name, int wait);
/* Closes every model but the one that models_get gave last. */
void models_make_room(struct models *m);
void models_unload(struct models *m, const char *name);

bool precision_find(const char *name, enum precision *precision); /* auto fp32 bf16 fp16 int8 */

#endif
