/* serve_alchemy.c - work on a picture that already exists. */
#include <math.h>
#include <stdlib.h>

#include "base/now.h"
#include "engine/energy.h"
#include "engine/engine.h"
#include "image/apart.h"

struct alchemy {
    struct engine *engine;
    const struct engine_msg *job;
    double started;
};

static void on_progress(void *context, const struct pipeline_progress *progress)
{
    struct alchemy *a = context;
    struct engine_msg m;
    channel_alive(&a->engine->channel);
    engine_msg_init(&m, ENGINE_PROGRESS, a->engine->channel.launch_id, a->job->job_id);
    m.progress.phase = ENGINE_PHASE_POST;
    m.progress.step = progress->step;
    m.progress.steps = progress->steps;
    m.progress.seconds = now_seconds() - a->started;
    channel_send(&a->engine->channel, &m, NULL);
}

static bool on_canceled(void *context)
{
    struct alchemy *a = context;
    return channel_canceled(&a->engine->channel, a->job->job_id);
}

static int work(struct alchemy *a, struct engine_alchemy_result *result, struct error *err)
{
    const struct engine_alchemy *job = &a->job->alchemy;
    struct pipeline_hooks hooks = {a, on_progress, on_canceled};
    struct pixels picture;
    struct energy energy;
    struct buf bytes;
    /* local work may name a file of weights in place of the form's own */
    bool own_file = job->control_type && *job->control_type == '/';
    const char *name = own_file ? job->control_type : alchemy_form_name(job->form);
    energy_start(&energy);
    int rc = apart_decode(&picture, "of the form", job->source.data, job->source.length, err);
    if (rc) return rc;
    rc = post_run(&a->engine->post, name, &picture, &hooks, err);
    buf_init(&bytes, FRAME_ENGINE_MAX / 2);
    if (!rc) rc = codec_encode(&bytes, IMAGE_WEBP, &picture, own_file ? 101 : 95, NULL, err);
    if (!rc) {
        result->form = job->form;
        result->image.width_px = picture.width;
        result->image.height_px = picture.height;
        result->image.verdict = job->check_safety ? ENGINE_VERDICT_FAILED : ENGINE_VERDICT_NONE;
        result->image.bytes.data = buf_take(&bytes, &result->image.bytes.length);
        result->seconds = now_seconds() - a->started;
        result->joules = energy_since(&energy);
    }
    buf_release(&bytes);
    pixels_release(&picture);
    return rc;
}

int serve_alchemy(struct engine *e, const struct engine_msg *job)
{
    struct alchemy a = {.engine = e, .job = job, .started = now_seconds()};
    struct engine_msg m;
    struct error err = {0};
    engine_msg_init(&m, ENGINE_ALCHEMY_RESULT, e->channel.launch_id, job->job_id);
    int rc = work(&a, &m.alchemy_result, &err);
    if (rc)
        channel_send_error(&e->channel, job->job_id, &err, rc == ERR_DEVICE);
    else if (channel_send(&e->channel, &m, &err))
        channel_send_error(&e->channel, job->job_id, &err, false);
    free(m.alchemy_result.image.bytes.data);
    return rc == ERR_DEVICE ? rc : 0;
}
