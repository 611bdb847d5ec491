/*
 * together.h - equal jobs that wait become one run, where that was measured to be faster.
 *
 * Place    serve_generate asks before it begins a job; the channel's queue is where the others wait.
 * Owner    the engine; its thread only.
 * Failure  cannot fail: what is not known to be faster runs alone.
 *
 * A kind of job (model, size, steps, sampler and what else costs time) first runs alone, which gives
 * its seconds an image; then once together; from then on the faster way, the slower one again after
 * TOGETHER_TRY_EVERY chances, because machines change. A time kept is the least of the latest ones:
 * a first run that captures or tunes says little.
 */
#ifndef ENGINE_TOGETHER_H
#define ENGINE_TOGETHER_H

#include "engine/channel.h"
#include "engine/models.h"

#define TOGETHER_KINDS 64
#define TOGETHER_TRY_EVERY 16
#define TOGETHER_GAIN 0.97     /* of the time alone: less is not worth a later first image */
#define TOGETHER_TTL_SPARE 1.2 /* on the estimate, against every member's deadline */

struct together_kind {
    uint64_t key;             /* 0: free */
    double alone_s, shared_s; /* an image; 0: not known */
    unsigned skipped;
    uint64_t used;
};

struct together {
    struct together_kind kinds[TOGETHER_KINDS];
    uint64_t uses;
};

/* More jobs like `job` out of the queue: at most `most` of them, into taken. They are the
 * caller's to end. */
int together_gather(struct together *t, struct channel *c, const struct models *models,
                    const struct engine_msg *job, struct engine_msg **taken, int most);

/* Would jobs of that kind run together now? Counts a chance that was not taken. */
bool together_wanted(struct together *t, uint64_t key);
uint64_t together_key(const struct engine_generate *g);
/* A run of that many jobs took so long an image. */
void together_learn(struct together *t, uint64_t key, int jobs, double image_seconds);
double together_image_seconds(const struct together *t, uint64_t key, int jobs); /* 0: not known */

#endif
