/* serve_alchemy.c - work on a picture that already exists. */
#include <math.h>
#include <stdlib.h>

#include "base/now.h"
#include "engine/energy.h"
#include "engine/engine.h"
#include "engine/verdict.h"
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

/* The form that asks for nothing but the verdict. */
static int answer_nsfw(struct alchemy *a, const struct pixels *picture,
                       struct engine_alchemy_result *result, struct error *err)
{
    enum safety_verdict verdict;
    if (!a->engine->safety)
        return error_set(err, ERR_UNSUPPORTED, "nsfw: no safety model is present");
    int rc = verdict_find(a->engine, picture, NULL, &verdict, err);
    if (rc) return rc;
    if (verdict == SAFETY_FAILED)
        return error_set(err, ERR_UNSUPPORTED, "nsfw: the safety check broke");
    result->form = ALCHEMY_NSFW;
    result->flag = verdict != SAFETY_OK;
    result->seconds = now_seconds() - a->started;
    return 0;
}

static int answer_caption(struct alchemy *a, const struct pixels *picture,
                          const struct pipeline_hooks *hooks, struct engine_alchemy_result *result,
                          struct error *err)
{
    char *text;
    int rc = describe_caption(&a->engine->describe, &text, picture, hooks, err);
    if (rc) return rc;
    result->form = ALCHEMY_CAPTION;
    result->text = text; /* serve_alchemy frees it */
    result->seconds = now_seconds() - a->started;
    return 0;
}

static int answer_words(struct alchemy *a, const struct pixels *picture,
                        const struct pipeline_hooks *hooks, struct engine_alchemy_result *result,
                        struct error *err)
{
    int rc = describe_words(&a->engine->describe, &result->words, &result->word_count, picture,
                            a->engine->safety, hooks, err);
    if (rc) return rc;
    result->form = ALCHEMY_INTERROGATION;
    result->seconds = now_seconds() - a->started;
    return 0;
}

/* A changed picture, judged and encoded. */
static int answer_image(struct alchemy *a, struct pixels *picture, bool lossless,
                        struct engine_alchemy_result *result, struct error *err)
{
    const struct engine_alchemy *job = &a->job->alchemy;
    struct buf bytes;
    int rc = 0;
    if (job->check_safety) rc = verdict_apply(a->engine, picture, NULL, false, &result->image, err);
    buf_init(&bytes, FRAME_ENGINE_MAX / 2);
    if (!rc) rc = codec_encode(&bytes, IMAGE_WEBP, picture, lossless ? 101 : 95, NULL, err);
    if (!rc) {
        result->form = job->form;
        result->image.width_px = picture->width;
        result->image.height_px = picture->height;
        result->image.bytes.data = buf_take(&bytes, &result->image.bytes.length);
        result->seconds = now_seconds() - a->started;
    }
    buf_release(&bytes);
    return rc;
}

static int work(struct alchemy *a, struct engine_alchemy_result *result, struct error *err)
{
    const struct engine_alchemy *job = &a->job->alchemy;
    struct pipeline_hooks hooks = {a, on_progress, on_canceled};
    struct pixels picture;
    int faces = -1;
    struct energy energy;
    /* local work may name a file of weights in place of the form's own */
    bool own_file = job->control_type && *job->control_type == '/';
    struct post_job post = {.name = alchemy_form_name(job->form),
                            .path = own_file ? job->control_type : NULL,
                            .restorer = {job->strength, job->fidelity},
                            .faces = &faces};
    energy_start(&energy, a->engine->nvml);
    int rc = apart_decode(&picture, "of the form", job->source.data, job->source.length, err);
    if (rc) return rc;
    if (job->form == ALCHEMY_NSFW) {
        rc = answer_nsfw(a, &picture, result, err);
    } else if (job->form == ALCHEMY_CAPTION) {
        rc = answer_caption(a, &picture, &hooks, result, err);
    } else if (job->form == ALCHEMY_INTERROGATION) {
        rc = answer_words(a, &picture, &hooks, result, err);
    } else {
        rc = post_run(&a->engine->post, &post, &picture, &hooks, err);
        if (!rc) rc = answer_image(a, &picture, own_file || job->lossless, result, err);
    }
    if (!rc && faces >= 0) result->number = faces;
    if (!rc) result->joules = energy_since(&energy);
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
    free((char *)(uintptr_t)m.alchemy_result.text);
    free(m.alchemy_result.words);
    return rc == ERR_DEVICE ? rc : 0;
}
