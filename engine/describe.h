/*
 * describe.h - the networks that say something about a picture: a caption, words that fit it.
 *
 * Place    serve_alchemy, forms `caption` and `interrogation`. Weights lie in the cache folder:
 *          caption/BLIP_Large or caption/BLIP (.safetensors, .pth) with caption/vocab.txt;
 *          words/GROUP.txt; CLIP is the safety check's, safety/model.safetensors. What is not there is
 *          not offered.
 * Owner    the engine; a network stays open once a job has asked for it.
 * Failure  ERR_UNSUPPORTED naming the file when weights are not there; what the networks return.
 */
#ifndef ENGINE_DESCRIBE_H
#define ENGINE_DESCRIBE_H

#include "diffusion/alchemy/caption.h"
#include "diffusion/alchemy/interrogator.h"
#include "diffusion/safety/safety.h"

struct describe {
    struct device *device;
    char *cache;              /* NULL: none */
    enum precision precision; /* of the captioner; CLIP works in F32 */
    struct caption *caption;
    struct clip_pair *pair; /* its own, when the safety check has none */
    struct interrogator *words;
};

/* cache NULL: CACHE_DIRECTORY, XDG_CACHE_HOME/kiln, ~/.cache/kiln */
void describe_init(struct describe *d, struct device *device, enum precision precision,
                   const char *cache);
void describe_release(struct describe *d);

/* Are the weights of caption or interrogation here? safety may be NULL. Headers are read, nothing is loaded. */
bool describe_can(const struct describe *d, enum alchemy_form form, const struct safety *safety);

int describe_caption(struct describe *d, char **text, const struct pixels *picture,
                     const struct pipeline_hooks *hooks, struct error *err);
/* words: as interrogator_run's */
int describe_words(struct describe *d, struct alchemy_word **words, int *count,
                   const struct pixels *picture, struct safety *safety,
                   const struct pipeline_hooks *hooks, struct error *err);

#endif
