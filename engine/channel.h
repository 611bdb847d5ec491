/*
 * channel.h - the engine's end of the pipe: frames in and out, a queue of jobs, cancellations.
 *
 * Place    between the host (kilnd, kiln) and engine/serve. Four threads touch it: a reader that
 *          never computes, a beater that sends heartbeats, the engine's own thread, which takes jobs,
 *          and the finisher, which sends what they gave.
 * Owner    start/stop around the caller's struct.
 * Failure  channel_send: ERR_NETWORK when the host has gone. The end of input is a shutdown and
 *          cancels whatever runs.
 */
#ifndef ENGINE_CHANNEL_H
#define ENGINE_CHANNEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "proto/engine_msg.h"

#define CHANNEL_CANCELED_MAX 64

struct channel_item;

struct channel {
    int in_fd, out_fd;
    uint64_t launch_id;
    pthread_t reader, beater;
    pthread_mutex_t lock, send_lock;
    pthread_cond_t changed;
    struct channel_item *first, *last;
    int queued;
    struct channel_item *hint; /* the last `prepare`; NULL: none */
    _Atomic uint64_t news;     /* rises with every message that tells of later work */
    bool ended;                /* no more jobs will come */
    bool gone;                 /* the host has closed its end: nobody listens */
    bool stopping;
    char running[ENGINE_JOB_BYTES];
    char canceled[CHANNEL_CANCELED_MAX][ENGINE_JOB_BYTES]; /* a ring of recent ones */
    int canceled_next;
    _Atomic int64_t last_step_ms;
    /* fills what a heartbeat says of the device; the beater's thread. Set before the first beat or NULL. */
    void (*measure)(void *context, struct engine_heartbeat *heartbeat);
    void *measure_context;
};

int channel_start(struct channel *c, int in_fd, int out_fd, uint64_t launch_id, struct error *err);
/* Joins both threads; safe after the end of input only. */
void channel_stop(struct channel *c);

/* The next job in the order of arrival; blocks. NULL: shutdown. Free with channel_done, from any
 * thread. */
struct engine_msg *channel_take(struct channel *c);
void channel_done(struct channel *c, struct engine_msg *job);

/* What comes next, asked by the engine's thread while a job runs: `wanted` is called, under the lock, for
 * the models of waiting jobs in their order until it says true, else for the last hint. False, and nothing
 * is called, when no message came since *seen. */
typedef bool (*channel_wanted)(void *context, const struct engine_load *load);
bool channel_foresee(struct channel *c, uint64_t *seen, channel_wanted wanted, void *context);

/* Seconds since a job came. */
double channel_age(const struct engine_msg *job);

enum channel_look { CHANNEL_STOP, CHANNEL_SKIP, CHANNEL_TAKE };
/* Goes through what waits, oldest first, until `look` says STOP or `most` are taken; what it takes is
 * the caller's to end. Returns how many. `look` runs under the channel's lock. */
int channel_gather(struct channel *c, struct engine_msg **taken, int most,
                   enum channel_look (*look)(void *context, const struct engine_msg *m),
                   void *context);

bool channel_waiting(struct channel *c); /* is there another job? */

/* Has the host taken this job back, or gone away? Also notes that the engine is alive. */
bool channel_canceled(struct channel *c, const char *job_id);
void channel_alive(struct channel *c);

int channel_send(struct channel *c, const struct engine_msg *m, struct error *err);
/* The one error message that ends a job. */
void channel_send_error(struct channel *c, const char *job_id, const struct error *why, bool fatal);

#endif
