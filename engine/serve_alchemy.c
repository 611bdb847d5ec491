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
    result->text = text; /* the answer's */
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
static int answer_image(struct alchemy *a, struct pixels *picture, struct finish *x,
                        struct error *err)
{
    const struct engine_alchemy *job = &a->job->alchemy;
    struct engine_alchemy_result *result = &x->answer.alchemy_result;
    int rc = 0;
    if (job->check_safety) rc = verdict_apply(a->engine, picture, NULL, false, &result->image, err);
    if (rc) return rc;
    result->form = job->form;
    result->seconds = now_seconds() - a->started;
    x->format = IMAGE_WEBP;
    x->images[x->image_count++] = *picture;
    *picture = (struct pixels){0};
    return 0;
}

static int work(struct alchemy *a, struct finish *x, struct error *err)
{
    struct engine_alchemy_result *result = &x->answer.alchemy_result;
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
        x->quality = own_file || job->lossless ? 101 : 95;
        if (!rc) rc = answer_image(a, &picture, x, err);
    }
    if (!rc && faces >= 0) result->number = faces;
    if (!rc) result->joules = energy_since(&energy);
    pixels_release(&picture);
    return rc;
}

int serve_alchemy(struct engine *e, struct engine_msg *job)
{
    struct alchemy a = {.engine = e, .job = job, .started = now_seconds()};
    struct error err = {0};
    struct finish *x = finish_new(&e->channel, ENGINE_ALCHEMY_RESULT, job);
    int rc = work(&a, x, &err);
    if (rc)
        finish_fail(x, &e->channel, &err, rc == ERR_DEVICE);
    else
        finisher_give(&e->finisher, x);
    return rc == ERR_DEVICE ? rc : 0;
}
