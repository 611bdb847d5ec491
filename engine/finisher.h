/*
 * finisher.h - results become bytes and leave, while the device computes the next job.
 *
 * Place    between serve_generate, serve_alchemy and the channel. Only pictures whose verdict is in
 *          come here: what must not leave was overwritten before (reliability S5).
 * Owner    finisher_start / finisher_stop around the caller's struct; a thread of its own. finish_new
 *          and finisher_give from the engine's thread.
 * Failure  an image that cannot be encoded ends its job with an error; a host that has gone ends
 *          nothing here, the channel knows it.
 */
#ifndef ENGINE_FINISHER_H
#define ENGINE_FINISHER_H

#include <pthread.h>

#include "engine/channel.h"
#include "image/codec.h"

#define FINISHER_WAITING_MAX 4 /* jobs whose pixels may wait here; then the engine waits */

/* One job's answer, its images still as pixels. */
struct finish {
    struct finish *next;
    struct engine_msg *job;   /* ended here: channel_done */
    struct engine_msg answer; /* RESULT or ALCHEMY_RESULT; verdicts are in, bytes are not */
    struct pixels images[REQUEST_COUNT_MAX];
    int image_count;
    enum image_format format;
    int quality;
    struct image_text text; /* in the job's message, or nothing */
    char *notes[ENGINE_NOTES_MAX];
    char model_sha256[65];
};

struct finisher {
    struct channel *channel;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct finish *first, **last;
    int waiting;
    bool running, stopping;
};

int finisher_start(struct finisher *f, struct channel *channel, struct error *err);
/* Works off what waits, then ends the thread. */
void finisher_stop(struct finisher *f);

/* `kind` of the answer; takes the job's message. Memory for answers is the program's last need. */
struct finish *finish_new(struct channel *channel, enum engine_kind kind, struct engine_msg *job);
/* The job failed: says so and ends it. */
void finish_fail(struct finish *x, struct channel *channel, const struct error *why, bool fatal);
/* Takes x; returns at once unless FINISHER_WAITING_MAX wait. Says phase ENCODE to the host first. */
void finisher_give(struct finisher *f, struct finish *x);

#endif
