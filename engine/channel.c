#include "engine/channel.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"

struct channel_item {
    struct channel_item *next;
    double came; /* now_seconds */
    struct engine_msg msg;
};

static void note_canceled(struct channel *c, const char *job_id)
{
    char *slot = c->canceled[c->canceled_next++ % CHANNEL_CANCELED_MAX];
    str_copy(slot, ENGINE_JOB_BYTES, job_id);
}

static void end_input(struct channel *c, bool gone)
{
    pthread_mutex_lock(&c->lock);
    c->ended = true;
    c->gone = c->gone || gone;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Keeps the hint instead of the last one. */
static void keep_hint(struct channel *c, struct channel_item *item)
{
    pthread_mutex_lock(&c->lock);
    struct channel_item *last = c->hint;
    c->hint = item;
    c->news++;
    pthread_mutex_unlock(&c->lock);
    if (last) engine_msg_release(&last->msg);
    free(last);
}

/* Takes the message over. */
static void accept_message(struct channel *c, struct channel_item *item)
{
    struct engine_msg *m = &item->msg;
    if (m->launch_id != c->launch_id) {
        log_warn("engine.message", "kind=%s reason=\"of another launch\"",
                 engine_kind_name(m->kind));
    } else if (m->kind == ENGINE_CANCEL) {
        pthread_mutex_lock(&c->lock);
        note_canceled(c, m->job_id);
        pthread_mutex_unlock(&c->lock);
    } else if (m->kind == ENGINE_SHUTDOWN) {
        end_input(c, false);
    } else if (m->kind == ENGINE_PREPARE) {
        keep_hint(c, item);
        return;
    } else {
        pthread_mutex_lock(&c->lock);
        if (c->last)
            c->last->next = item;
        else
            c->first = item;
        c->last = item;
        c->queued++;
        c->news++;
        pthread_cond_broadcast(&c->changed);
        pthread_mutex_unlock(&c->lock);
        return;
    }
    engine_msg_release(m);
    free(item);
}

/* 0, or ERR_FORMAT: the stream is lost. */
static int accept_frames(struct channel *c, struct buf *in, struct error *err)
{
    const uint8_t *payload;
    size_t length;
    int rc;
    while ((rc = frame_next(in, FRAME_ENGINE_MAX, &payload, &length, err)) > 0) {
        struct channel_item *item = alloc_zero(1, sizeof *item);
        item->came = now_seconds();
        int bad = engine_msg_decode(&item->msg, payload, length, err);
        frame_drop(in, length);
        if (bad) {
            log_warn("engine.message", "reason=\"%s\"", err->text);
            free(item);
            continue;
        }
        accept_message(c, item);
    }
    return rc;
}

static void *read_messages(void *context)
{
    struct channel *c = context;
    struct buf in;
    struct error err = {0};
    buf_init(&in, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    for (;;) {
        size_t room = in.limit - in.length;
        if (room > 1 << 18) room = 1 << 18;
        uint8_t *to = buf_reserve(&in, room, &err);
        if (!to) break;
        ssize_t got = read(c->in_fd, to, room);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        buf_commit(&in, (size_t)got);
        if (accept_frames(c, &in, &err) < 0) {
            log_error("engine.channel", "reason=\"%s\"", err.text);
            break;
        }
    }
    buf_release(&in);
    end_input(c, true);
    return NULL;
}

static void send_heartbeat(struct channel *c)
{
    struct engine_msg m;
    engine_msg_init(&m, ENGINE_HEARTBEAT, c->launch_id, "");
    pthread_mutex_lock(&c->lock);
    m.heartbeat.busy = c->running[0] != 0;
    m.heartbeat.queued = c->queued;
    pthread_mutex_unlock(&c->lock);
    if (c->measure) c->measure(c->measure_context, &m.heartbeat);
    m.heartbeat.idle_seconds = (double)(now_ms() - c->last_step_ms) / 1000;
    channel_send(c, &m, NULL);
}

static void *beat(void *context)
{
    struct channel *c = context;
    pthread_mutex_lock(&c->lock);
    while (!c->stopping && !c->gone) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += ENGINE_HEARTBEAT_SECONDS;
        int rc = 0;
        while (rc == 0 && !c->stopping && !c->gone)
            rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
        if (c->stopping || c->gone) break;
        pthread_mutex_unlock(&c->lock);
        send_heartbeat(c);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int channel_start(struct channel *c, int in_fd, int out_fd, uint64_t launch_id, struct error *err)
{
    memset(c, 0, sizeof *c);
    c->in_fd = in_fd;
    c->out_fd = out_fd;
    c->launch_id = launch_id;
    c->last_step_ms = now_ms();
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->send_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    int rc = pthread_create(&c->reader, NULL, read_messages, c);
    if (rc) return error_set_errno(err, ERR_NO_MEMORY, rc, "starting the reader thread");
    rc = pthread_create(&c->beater, NULL, beat, c);
    if (rc) {
        pthread_cancel(c->reader);
        pthread_join(c->reader, NULL);
        return error_set_errno(err, ERR_NO_MEMORY, rc, "starting the heartbeat thread");
    }
    return 0;
}

void channel_stop(struct channel *c)
{
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->beater, NULL);
    pthread_cancel(c->reader); /* it may still wait in read() after a shutdown message */
    pthread_join(c->reader, NULL);
    if (c->hint) {
        c->hint->next = c->first;
        c->first = c->hint;
    }
    while (c->first) {
        struct channel_item *item = c->first;
        c->first = item->next;
        engine_msg_release(&item->msg);
        free(item);
    }
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->send_lock);
    pthread_mutex_destroy(&c->lock);
}

struct engine_msg *channel_take(struct channel *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->first && !c->ended) pthread_cond_wait(&c->changed, &c->lock);
    struct channel_item *item = c->gone ? NULL : c->first;
    if (item) {
        c->first = item->next;
        if (!c->first) c->last = NULL;
        c->queued--;
        memcpy(c->running, item->msg.job_id, sizeof c->running);
    }
    pthread_mutex_unlock(&c->lock);
    channel_alive(c);
    return item ? &item->msg : NULL;
}

static struct channel_item *item_of(const struct engine_msg *job)
{
    return (struct channel_item *)((char *)(uintptr_t)job - offsetof(struct channel_item, msg));
}

double channel_age(const struct engine_msg *job)
{
    return now_seconds() - item_of(job)->came;
}

int channel_gather(struct channel *c, struct engine_msg **taken, int most,
                   enum channel_look (*look)(void *context, const struct engine_msg *m),
                   void *context)
{
    int count = 0;
    pthread_mutex_lock(&c->lock);
    struct channel_item *before = NULL, **at = &c->first;
    while (*at && count < most) {
        struct channel_item *item = *at;
        enum channel_look said = look(context, &item->msg);
        if (said == CHANNEL_STOP) break;
        if (said == CHANNEL_TAKE) {
            *at = item->next;
            if (c->last == item) c->last = before;
            c->queued--;
            taken[count++] = &item->msg;
        } else {
            before = item;
            at = &item->next;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return count;
}

void channel_done(struct channel *c, struct engine_msg *job)
{
    pthread_mutex_lock(&c->lock);
    if (str_equal(c->running, job->job_id)) c->running[0] = 0; /* the next may run already */
    pthread_mutex_unlock(&c->lock);
    struct channel_item *item = item_of(job);
    engine_msg_release(job);
    free(item);
}

bool channel_waiting(struct channel *c)
{
    pthread_mutex_lock(&c->lock);
    bool waiting = c->queued > 0;
    pthread_mutex_unlock(&c->lock);
    return waiting;
}

bool channel_foresee(struct channel *c, uint64_t *seen, channel_wanted wanted, void *context)
{
    if (c->news == *seen) return false;
    pthread_mutex_lock(&c->lock);
    *seen = c->news;
    bool taken = false;
    for (const struct channel_item *i = c->first; i && !taken; i = i->next) {
        const struct engine_msg *m = &i->msg;
        struct engine_load load = {.model = m->generate.request.model};
        if (m->kind == ENGINE_LOAD)
            load = m->load;
        else if (m->kind != ENGINE_GENERATE)
            continue;
        taken = wanted(context, &load);
    }
    if (!taken && c->hint) wanted(context, &c->hint->msg.load);
    pthread_mutex_unlock(&c->lock);
    return true;
}

bool channel_canceled(struct channel *c, const char *job_id)
{
    bool found = false;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < CHANNEL_CANCELED_MAX && !found; i++)
        found = job_id[0] && strcmp(c->canceled[i], job_id) == 0;
    found = found || c->gone;
    pthread_mutex_unlock(&c->lock);
    return found;
}

void channel_alive(struct channel *c)
{
    c->last_step_ms = now_ms();
}

int channel_send(struct channel *c, const struct engine_msg *m, struct error *err)
{
    struct buf out;
    buf_init(&out, FRAME_ENGINE_MAX + FRAME_HEAD_BYTES);
    int rc = engine_msg_encode(m, &out, err);
    if (!rc) {
        pthread_mutex_lock(&c->send_lock);
        if (write_fully(c->out_fd, out.data, out.length))
            rc = error_set_errno(err, ERR_NETWORK, errno, "writing to the host");
        pthread_mutex_unlock(&c->send_lock);
    }
    buf_release(&out);
    return rc;
}

void channel_send_error(struct channel *c, const char *job_id, const struct error *why, bool fatal)
{
    struct engine_msg m;
    if (fatal) log_error("engine.fatal", "reason=\"%s\"", why->text); /* the process ends next */
    engine_msg_init(&m, ENGINE_ERROR, c->launch_id, job_id);
    m.error.code = why->code ? why->code : ERR_INTERNAL;
    m.error.text = why->text;
    m.error.fatal = fatal;
    channel_send(c, &m, NULL);
}
