/*
 * post.h - post-processors: networks that change a finished picture.
 *
 * Place    after decoding in serve_generate, and alone in serve_alchemy. Weights lie in the cache
 *          folder as post/NAME.safetensors or post/NAME.pth; what is not there is not offered.
 * Owner    the engine; one network stays open until another is asked for.
 * Failure  ERR_UNSUPPORTED when the weights are not there or the network is not one of ours.
 */
#ifndef ENGINE_POST_H
#define ENGINE_POST_H

#include "diffusion/upscale/upscaler.h"

struct post {
    struct device *device;
    char *folder; /* .../post */
    char *name;   /* of the open one */
    struct upscaler *upscaler;
};

/* cache NULL: CACHE_DIRECTORY, XDG_CACHE_HOME/kiln, ~/.cache/kiln */
void post_init(struct post *p, struct device *device, const char *cache);
void post_release(struct post *p);

/* Is this post-processor (the Horde's name) one of ours with its weights here? */
bool post_available(const struct post *p, const char *name);
/* Replaces the picture by the result. A path to weights is taken as a name too. */
int post_run(struct post *p, const char *name, struct pixels *picture,
             const struct pipeline_hooks *hooks, struct error *err);

#endif
