/* serve_generate.c - one image request: model, pipeline, post-processors, check; then the finisher. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "engine/energy.h"
#include "engine/engine.h"
#include "engine/verdict.h"
#include "image/codec.h"

/* One run: a job, or several that are equal but for their seed (together.h). */
struct generate {
    struct engine *engine;
    struct engine_msg *jobs[REQUEST_COUNT_MAX]; /* the first one's request is everybody's */
    bool over[REQUEST_COUNT_MAX];               /* taken back, or its time is over */
    int count;
    double started;
    double seconds[ENGINE_PHASE_COUNT]; /* of all jobs */
    struct buf preview;                 /* a PNG that the next progress takes along */
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
    if (progress->phase == PHASE_SAMPLE || progress->phase == PHASE_DECODE)
        engine_foresee(g->engine, progress->phase == PHASE_SAMPLE && progress->step == 0);
    engine_msg_init(&m, ENGINE_PROGRESS, g->engine->channel.launch_id, "");
    m.progress.phase = phases[progress->phase];
    m.progress.step = progress->step;
    m.progress.steps = progress->steps;
    m.progress.seconds = now_seconds() - g->started;
    m.progress.preview = (struct blob){g->preview.data, g->preview.length};
    for (int k = 0; k < g->count; k++) {
        str_copy(m.job_id, sizeof m.job_id, g->jobs[k]->job_id);
        channel_send(&g->engine->channel, &m, NULL);
    }
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
    bool all = true;
    for (int k = 0; k < g->count; k++) {
        double deadline = g->jobs[k]->generate.deadline_seconds;
        g->over[k] = g->over[k] || channel_canceled(&g->engine->channel, g->jobs[k]->job_id) ||
                     (deadline > 0 && channel_age(g->jobs[k]) > deadline);
        all = all && g->over[k];
    }
    return all;
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

/* ---- the run: one for all ---- */

static int run_pipeline(struct generate *g, struct model *model, const struct pipeline_hooks *hooks,
                        struct pipeline_result *made, struct error *err)
{
    struct pipeline_share shares[REQUEST_COUNT_MAX];
    struct image_request all = g->jobs[0]->generate.request; /* borrowed */
    if (g->count == 1) return pipeline_run(model, &all, hooks, made, err);
    all.count = 0;
    for (int k = 0; k < g->count; k++) {
        const struct image_request *r = &g->jobs[k]->generate.request;
        shares[k] = (struct pipeline_share){.seed = r->seed, .count = r->count};
        all.count += r->count;
    }
    return pipeline_run_shared(model, &all, shares, g->count, hooks, made, err);
}

static int draw(struct generate *g, const struct pipeline_hooks *hooks,
                struct pipeline_result *made, struct error *err)
{
    const struct engine_generate *first = &g->jobs[0]->generate;
    struct engine *e = g->engine;
    struct model *model;
    on_progress(g, &(struct pipeline_progress){.phase = PHASE_LOAD});
    int rc = image_request_check(&first->request, err);
    double before = now_seconds();
    if (!rc) rc = models_get(&e->models, first->request.model, &model, err);
    g->seconds[ENGINE_PHASE_LOAD] = now_seconds() - before;
    before = now_seconds();
    if (!rc) rc = run_pipeline(g, model, hooks, made, err);
    if (rc) return rc;
    double took = now_seconds() - before;
    /* the pipeline's own sums, and to the first all that it does between them: sources, LoRAs, noise */
    g->seconds[ENGINE_PHASE_SAMPLE] = made->sample_seconds;
    g->seconds[ENGINE_PHASE_DECODE] = made->decode_seconds;
    g->seconds[ENGINE_PHASE_TEXT] = took - made->sample_seconds - made->decode_seconds;
    if (made->count)
        together_learn(&e->together, together_key(first), g->count, took / made->count);
    return 0;
}

/* ---- the answers: one for each job; a job that fails here fails alone ---- */

/* Each post-processor over all images, so that its networks are opened once. */
static int post_process(struct generate *g, struct finish *x, const struct pipeline_hooks *hooks,
                        struct error *err)
{
    const struct engine_generate *job = &x->job->generate;
    const char *names[ENGINE_POST_MAX];
    for (int i = 0; i < x->image_count; i++)
        if (is_constant(&x->images[i]))
            return error_set(err, ERR_INTERNAL, "image %d has one colour only: its latents broke",
                             i);
    memcpy(names, job->post_processing, (size_t)job->post_count * sizeof names[0]);
    post_sort(names, job->post_count);
    int rc = 0;
    for (int j = 0; j < job->post_count && !rc; j++) {
        struct post_job post = {.name = names[j], .restorer = restorer_defaults};
        post.restorer.strength = job->facefixer_strength;
        for (int i = 0; i < x->image_count && !rc; i++)
            rc = post_run(&g->engine->post, &post, &x->images[i], hooks, err);
    }
    return rc;
}

/* What must not leave is overwritten here, before an encoder or a file could see it (S5). */
static int judge_images(struct generate *g, struct finish *x, struct error *err)
{
    const struct engine_generate *job = &x->job->generate;
    for (int i = 0; i < x->image_count && job->check_safety; i++) {
        int rc = verdict_apply(g->engine, &x->images[i], &job->request, job->censor_nsfw,
                               &x->answer.result.images[i], err);
        if (rc) return rc;
    }
    return 0;
}

/* The pictures leave the pipeline's result for the answers; they are encoded beside the next job. */
static void fill(struct finish *x, struct generate *g, struct pipeline_result *made, int first)
{
    const struct engine_generate *job = &x->job->generate;
    struct engine_result *result = &x->answer.result;
    /* what is asked of a batch is a number of images; a map is one, whatever was asked */
    int count = g->count > 1 ? job->request.count : made->count;
    for (int i = 0; i < count; i++) {
        x->images[x->image_count++] = made->images[first + i];
        made->images[first + i] = (struct pixels){0};
    }
    for (int i = 0; i < made->note_count && i < ENGINE_NOTES_MAX; i++) {
        x->notes[i] = alloc_string(made->notes[i]);
        result->notes[result->note_count++] = x->notes[i];
    }
    str_copy(x->model_sha256, sizeof x->model_sha256,
             models_hash(&g->engine->models, job->request.model, 1));
    result->model_sha256 = x->model_sha256;
    for (int p = 0; p < ENGINE_PHASE_COUNT; p++)
        result->seconds[p] = g->seconds[p] * count / made->count;
    result->together = made->count - count;
    result->peak_bytes = (int64_t)made->peak_bytes;
    result->kernels = g->engine->device->kernels->name;
    result->device = g->engine->device->label;
    result->format = job->format;
    x->format = format_of(job->format);
    x->quality = job->quality;
    x->text = (struct image_text){.parameters = (char *)(uintptr_t)job->parameters,
                                  .xmp = (char *)(uintptr_t)job->xmp};
}

static int finish_job(struct generate *g, struct finish *x, const struct pipeline_hooks *hooks,
                      struct error *err)
{
    struct engine_result *result = &x->answer.result;
    double before = now_seconds();
    int rc = post_process(g, x, hooks, err);
    result->seconds[ENGINE_PHASE_POST] = now_seconds() - before;
    before = now_seconds();
    if (!rc) rc = judge_images(g, x, err);
    result->seconds[ENGINE_PHASE_SAFETY] = now_seconds() - before;
    return rc;
}

/* Ends the job at `k`. */
static int answer(struct generate *g, int k, struct pipeline_result *made, int first,
                  const struct pipeline_hooks *hooks, double joules, const char *source)
{
    struct engine *e = g->engine;
    struct finish *x = finish_new(&e->channel, ENGINE_RESULT, g->jobs[k]);
    struct error err = {0};
    struct energy own;
    /* from here on the others have no say in what is canceled */
    struct generate alone = {.engine = e, .jobs = {g->jobs[k]}, .count = 1, .started = g->started};
    struct pipeline_hooks its = *hooks;
    its.context = &alone;
    fill(x, g, made, first);
    energy_start(&own, e->nvml);
    int rc = g->over[k] ? error_set(&err, ERR_CANCELED, "stopped on request")
                        : finish_job(g, x, &its, &err);
    x->answer.result.joules =
        joules * x->image_count / (made->count ? made->count : 1) + energy_since(&own);
    x->answer.result.energy_source = source;
    buf_release(&alone.preview);
    if (rc)
        finish_fail(x, &e->channel, &err, rc == ERR_DEVICE);
    else
        finisher_give(&e->finisher, x);
    return rc;
}

/* ---- serving ---- */

static int serve(struct engine *e, struct engine_msg **jobs, int count);

/* What several could not do together each may do alone: no job pays for another. */
static int serve_each(struct engine *e, struct engine_msg **jobs, int count)
{
    int rc = 0;
    for (int k = 0; k < count; k++) {
        if (rc == ERR_DEVICE) /* unsaid: the engine's end gives them back */
            channel_done(&e->channel, jobs[k]);
        else
            rc = serve(e, &jobs[k], 1);
    }
    return rc;
}

static int serve(struct engine *e, struct engine_msg **jobs, int count)
{
    struct generate g = {.engine = e, .count = count, .started = now_seconds()};
    struct pipeline_hooks hooks = {.context = &g,
                                   .progress = on_progress,
                                   .canceled = on_canceled,
                                   .preview_every = jobs[0]->generate.preview_every_steps,
                                   .preview = on_preview,
                                   .annotators = e->annotators,
                                   .layered = e->layered,
                                   .make_room = on_no_memory};
    struct pipeline_result made = {0};
    struct energy energy;
    struct error err = {0};
    memcpy(g.jobs, jobs, (size_t)count * sizeof *jobs);
    energy_start(&energy, e->nvml);
    int rc = draw(&g, &hooks, &made, &err), first = 0;
    buf_release(&g.preview);
    if (rc && rc != ERR_DEVICE && count > 1 && !on_canceled(&g)) {
        log_warn("engine.together", "jobs=%d reason=\"%s\"", count, err.text);
        return serve_each(e, jobs, count);
    }
    if (rc) {
        for (int k = 0; k < count; k++)
            finish_fail(finish_new(&e->channel, ENGINE_RESULT, jobs[k]), &e->channel, &err,
                        rc == ERR_DEVICE);
        return rc;
    }
    double joules = energy_since(&energy);
    for (int k = 0; k < count; k++) {
        int images = jobs[k]->generate.request.count;
        if (rc == ERR_DEVICE)
            channel_done(&e->channel, jobs[k]);
        else
            rc = answer(&g, k, &made, first, &hooks, joules, energy_source(&energy));
        first += images;
    }
    pipeline_result_release(&made);
    return rc;
}

/* Some of what was gathered may have been taken back while it waited. */
static int still_wanted(struct engine *e, struct engine_msg **jobs, int count)
{
    int kept = 1; /* the first was asked about when it was taken */
    for (int k = 1; k < count; k++) {
        struct error err = {0};
        if (!channel_canceled(&e->channel, jobs[k]->job_id)) {
            jobs[kept++] = jobs[k];
            continue;
        }
        error_set(&err, ERR_CANCELED, "taken back before it began");
        finish_fail(finish_new(&e->channel, ENGINE_RESULT, jobs[k]), &e->channel, &err, false);
    }
    return kept;
}

int serve_generate(struct engine *e, struct engine_msg *job)
{
    struct engine_msg *jobs[REQUEST_COUNT_MAX] = {job};
    int count = 1 + together_gather(&e->together, &e->channel, &e->models, job, jobs + 1,
                                    REQUEST_COUNT_MAX - 1);
    int rc = serve(e, jobs, still_wanted(e, jobs, count));
    return rc == ERR_DEVICE ? rc : 0;
}
