/*
 * post.h - post-processors: networks that change a finished picture.
 *
 * Place    after decoding in serve_generate, and alone in serve_alchemy. Weights lie in the cache
 *          folder below post/ (proto/post_weights.h says under which names); what is not there is not
 *          offered.
 * Owner    the engine; the networks of one post-processor stay open until another is asked for.
 * Failure  ERR_UNSUPPORTED when the weights are not there or the network is not one of ours.
 */
#ifndef ENGINE_POST_H
#define ENGINE_POST_H

#include "diffusion/face/restorer.h"
#include "diffusion/matte/matte.h"
#include "diffusion/upscale/upscaler.h"
#include "proto/post_weights.h"

struct post {
    struct device *device;
    char *folder; /* .../post */
    char *open;   /* the name or path of what is open */
    struct upscaler *upscaler;
    struct restorer *restorer;
    struct matte *matte;
};

struct post_job {
    const char *name;                 /* the Horde's */
    const char *path;                 /* weights to use in place of the name's own, or NULL */
    struct restorer_options restorer; /* of face fixers */
    int *faces;                       /* how many there were; NULL: nobody asks */
};

/* cache NULL: CACHE_DIRECTORY, XDG_CACHE_HOME/kiln, ~/.cache/kiln */
void post_init(struct post *p, struct device *device, const char *cache);
void post_release(struct post *p);

/* Is this post-processor (the Horde's name) one of ours with its weights here? */
bool post_available(const struct post *p, const char *name);
/* Replaces the picture by the result. */
int post_run(struct post *p, const struct post_job *job, struct pixels *picture,
             const struct pipeline_hooks *hooks, struct error *err);
/* Upscalers first, then face fixers, then what cuts the background away; else as they came. */
void post_sort(const char **names, int count);

#endif
