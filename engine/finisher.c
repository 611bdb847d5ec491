#include "engine/finisher.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"

struct finish *finish_new(struct channel *channel, enum engine_kind kind, struct engine_msg *job)
{
    struct finish *x = alloc_zero(1, sizeof *x);
    engine_msg_init(&x->answer, kind, channel->launch_id, job->job_id);
    x->job = job;
    return x;
}

static struct engine_image *image_of(struct finish *x, int i)
{
    return x->answer.kind == ENGINE_RESULT ? &x->answer.result.images[i]
                                           : &x->answer.alchemy_result.image;
}

static void release(struct finish *x, struct channel *channel)
{
    for (int i = 0; i < x->image_count; i++) {
        free(image_of(x, i)->bytes.data);
        pixels_release(&x->images[i]);
    }
    if (x->answer.kind == ENGINE_ALCHEMY_RESULT) {
        free((char *)(uintptr_t)x->answer.alchemy_result.text);
        free(x->answer.alchemy_result.words);
    }
    for (int i = 0; i < ENGINE_NOTES_MAX; i++) free(x->notes[i]);
    channel_done(channel, x->job);
    free(x);
}

void finish_fail(struct finish *x, struct channel *channel, const struct error *why, bool fatal)
{
    channel_send_error(channel, x->job->job_id, why, fatal);
    release(x, channel);
}

static int encode(struct finish *x, struct error *err)
{
    double before = now_seconds();
    for (int i = 0; i < x->image_count; i++) {
        struct engine_image *image = image_of(x, i);
        struct buf bytes;
        buf_init(&bytes, FRAME_ENGINE_MAX / 2);
        int rc = codec_encode(&bytes, x->format, &x->images[i], x->quality,
                              image->censored ? NULL : &x->text, err);
        if (rc) {
            buf_release(&bytes);
            return rc;
        }
        image->bytes.data = buf_take(&bytes, &image->bytes.length);
        image->width_px = x->images[i].width;
        image->height_px = x->images[i].height;
        image->index = i;
        pixels_release(&x->images[i]); /* the next one needs room of its own */
    }
    if (x->answer.kind != ENGINE_RESULT) return 0;
    x->answer.result.image_count = x->image_count;
    x->answer.result.seconds[ENGINE_PHASE_ENCODE] = now_seconds() - before;
    return 0;
}

static void finish(struct finish *x, struct channel *channel)
{
    struct error err = {0};
    int rc = encode(x, &err);
    if (!rc) rc = channel_send(channel, &x->answer, &err);
    if (rc) channel_send_error(channel, x->job->job_id, &err, false);
    release(x, channel);
}

static void *work(void *context)
{
    struct finisher *f = context;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        while (!f->first && !f->stopping) pthread_cond_wait(&f->changed, &f->lock);
        struct finish *x = f->first;
        if (!x) break;
        f->first = x->next;
        if (!f->first) f->last = &f->first;
        pthread_mutex_unlock(&f->lock);
        finish(x, f->channel);
        pthread_mutex_lock(&f->lock);
        f->waiting--;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

int finisher_start(struct finisher *f, struct channel *channel, struct error *err)
{
    memset(f, 0, sizeof *f);
    f->channel = channel;
    f->last = &f->first;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    int rc = pthread_create(&f->thread, NULL, work, f);
    if (rc) return error_set_errno(err, ERR_NO_MEMORY, rc, "starting the thread that encodes");
    f->running = true;
    return 0;
}

void finisher_stop(struct finisher *f)
{
    if (!f->running) return;
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    f->running = false;
}

void finisher_give(struct finisher *f, struct finish *x)
{
    if (x->image_count) { /* the host sees that the device is free for another job */
        struct engine_msg m;
        engine_msg_init(&m, ENGINE_PROGRESS, f->channel->launch_id, x->job->job_id);
        m.progress.phase = ENGINE_PHASE_ENCODE;
        channel_send(f->channel, &m, NULL);
    }
    pthread_mutex_lock(&f->lock);
    while (f->waiting >= FINISHER_WAITING_MAX) pthread_cond_wait(&f->changed, &f->lock);
    f->waiting++;
    *f->last = x;
    f->last = &x->next;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}
