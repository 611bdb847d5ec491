/* serve_generate.c - one image request: model, pipeline, post-processors, check; then the finisher. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "engine/energy.h"
#include "engine/engine.h"
#include "engine/verdict.h"
#include "image/codec.h"

struct generate {
    struct engine *engine;
    const struct engine_msg *job;
    double started, deadline; /* now_seconds; deadline 0: none */
    struct buf preview;       /* a PNG that the next progress takes along */
};

static void on_progress(void *context, const struct pipeline_progress *progress)
{
    static const enum engine_phase phases[] = {
        [PHASE_LOAD] = ENGINE_PHASE_LOAD,
        [PHASE_TEXT] = ENGINE_PHASE_TEXT,
        [PHASE_SAMPLE] = ENGINE_PHASE_SAMPLE,
        [PHASE_DECODE] = ENGINE_PHASE_DECODE,
    };
    struct generate *g = context;
    struct engine_msg m;
    channel_alive(&g->engine->channel);
    engine_msg_init(&m, ENGINE_PROGRESS, g->engine->channel.launch_id, g->job->job_id);
    m.progress.phase = phases[progress->phase];
    m.progress.step = progress->step;
    m.progress.steps = progress->steps;
    m.progress.seconds = now_seconds() - g->started;
    m.progress.preview = (struct blob){g->preview.data, g->preview.length};
    channel_send(&g->engine->channel, &m, NULL);
    buf_release(&g->preview);
}

static void on_preview(void *context, const struct pixels *picture)
{
    struct generate *g = context;
    buf_release(&g->preview);
    buf_init(&g->preview, FRAME_ENGINE_MAX / 4);
    if (codec_encode(&g->preview, IMAGE_PNG, picture, 0, NULL, NULL)) buf_release(&g->preview);
}

static bool on_canceled(void *context)
{
    struct generate *g = context;
    return channel_canceled(&g->engine->channel, g->job->job_id) ||
           (g->deadline > 0 && now_seconds() > g->deadline);
}

static enum image_format format_of(enum engine_format format)
{
    return format == ENGINE_FORMAT_PNG    ? IMAGE_PNG
           : format == ENGINE_FORMAT_JPEG ? IMAGE_JPEG
                                          : IMAGE_WEBP;
}

/* A constant picture is what NaN latents end as: never an image (reliability E3). */
static bool is_constant(const struct pixels *p)
{
    size_t bytes = (size_t)p->width * (size_t)p->height * (size_t)p->channels;
    for (size_t i = (size_t)p->channels; i < bytes; i++)
        if (p->data[i] != p->data[i - (size_t)p->channels]) return false;
    return true;
}

static void on_no_memory(void *context)
{
    struct generate *g = context;
    models_make_room(&g->engine->models);
}

/* What must not leave is overwritten here, before an encoder or a file could see it (S5). */
static int judge_images(struct generate *g, struct pipeline_result *made,
                        struct engine_result *result, struct error *err)
{
    const struct engine_generate *job = &g->job->generate;
    for (int i = 0; i < made->count && job->check_safety; i++) {
        int rc = verdict_apply(g->engine, &made->images[i], &job->request, job->censor_nsfw,
                               &result->images[i], err);
        if (rc) return rc;
    }
    return 0;
}

/* Each post-processor over all images, so that its networks are opened once. */
static int post_process(struct generate *g, struct pipeline_result *made,
                        const struct pipeline_hooks *hooks, struct error *err)
{
    const struct engine_generate *job = &g->job->generate;
    const char *names[ENGINE_POST_MAX];
    for (int i = 0; i < made->count; i++)
        if (is_constant(&made->images[i]))
            return error_set(err, ERR_INTERNAL, "image %d has one colour only: its latents broke",
                             i);
    memcpy(names, job->post_processing, (size_t)job->post_count * sizeof names[0]);
    post_sort(names, job->post_count);
    int rc = 0;
    for (int j = 0; j < job->post_count && !rc; j++) {
        struct post_job post = {.name = names[j], .restorer = restorer_defaults};
        post.restorer.strength = job->facefixer_strength;
        for (int i = 0; i < made->count && !rc; i++)
            rc = post_run(&g->engine->post, &post, &made->images[i], hooks, err);
    }
    return rc;
}

static int generate(struct generate *g, struct engine_result *result, struct pipeline_result *made,
                    struct error *err)
{
    const struct engine_generate *job = &g->job->generate;
    struct pipeline_hooks hooks = {.context = g,
                                   .progress = on_progress,
                                   .canceled = on_canceled,
                                   .preview_every = job->preview_every_steps,
                                   .preview = on_preview,
                                   .annotators = g->engine->annotators,
                                   .make_room = on_no_memory};
    struct model *model;
    struct energy energy;
    energy_start(&energy, g->engine->nvml);
    on_progress(g, &(struct pipeline_progress){.phase = PHASE_LOAD});
    int rc = image_request_check(&job->request, err);
    double before = now_seconds();
    if (!rc) rc = models_get(&g->engine->models, job->request.model, &model, err);
    result->seconds[ENGINE_PHASE_LOAD] = now_seconds() - before;
    before = now_seconds();
    if (!rc) rc = pipeline_run(model, &job->request, &hooks, made, err);
    if (rc) return rc;
    /* the pipeline's own sums, and to the first all that it does between them: sources, LoRAs, noise */
    result->seconds[ENGINE_PHASE_SAMPLE] = made->sample_seconds;
    result->seconds[ENGINE_PHASE_DECODE] = made->decode_seconds;
    result->seconds[ENGINE_PHASE_TEXT] =
        now_seconds() - before - made->sample_seconds - made->decode_seconds;
    before = now_seconds();
    rc = post_process(g, made, &hooks, err);
    if (rc) return rc;
    result->seconds[ENGINE_PHASE_POST] = now_seconds() - before;
    before = now_seconds();
    rc = judge_images(g, made, result, err);
    if (rc) return rc;
    result->seconds[ENGINE_PHASE_SAFETY] = now_seconds() - before;
    result->joules = energy_since(&energy);
    result->energy_source = energy_source(&energy);
    result->peak_bytes = (int64_t)made->peak_bytes;
    result->kernels = g->engine->device->kernels->name;
    result->device = g->engine->device->label;
    return rc;
}

/* The pictures leave the pipeline's result for the answer; they are encoded beside the next job. */
static void fill(struct finish *x, struct generate *g, struct pipeline_result *made)
{
    const struct engine_generate *job = &g->job->generate;
    struct engine_result *result = &x->answer.result;
    for (int i = 0; i < made->count; i++) {
        x->images[x->image_count++] = made->images[i];
        made->images[i] = (struct pixels){0};
    }
    for (int i = 0; i < made->note_count && i < ENGINE_NOTES_MAX; i++) {
        x->notes[i] = alloc_string(made->notes[i]);
        result->notes[result->note_count++] = x->notes[i];
    }
    str_copy(x->model_sha256, sizeof x->model_sha256,
             models_hash(&g->engine->models, job->request.model, 1));
    result->model_sha256 = x->model_sha256;
    result->format = job->format;
    x->format = format_of(job->format);
    x->quality = job->quality;
    x->text = (struct image_text){.parameters = (char *)(uintptr_t)job->parameters,
                                  .xmp = (char *)(uintptr_t)job->xmp};
}

int serve_generate(struct engine *e, struct engine_msg *job)
{
    struct generate g = {.engine = e, .job = job, .started = now_seconds()};
    struct pipeline_result made = {0};
    struct error err = {0};
    struct finish *x = finish_new(&e->channel, ENGINE_RESULT, job);
    if (job->generate.deadline_seconds > 0) g.deadline = g.started + job->generate.deadline_seconds;
    int rc = generate(&g, &x->answer.result, &made, &err);
    if (rc) {
        finish_fail(x, &e->channel, &err, rc == ERR_DEVICE);
    } else {
        fill(x, &g, &made);
        finisher_give(&e->finisher, x);
    }
    pipeline_result_release(&made);
    buf_release(&g.preview);
    return rc == ERR_DEVICE ? rc : 0;
}
