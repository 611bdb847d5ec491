/* serve_train.c - one training: a LoRA on a base model, or the pocket model from nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/now.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "engine/energy.h"
#include "engine/engine.h"
#include "engine/train_options.h"

struct training {
    struct engine *engine;
    const struct engine_msg *job;
    struct energy energy;
    double started;
};

static void send_progress(struct training *t, enum engine_phase phase, int64_t step, int64_t steps,
                          double loss)
{
    struct engine_msg m;
    channel_alive(&t->engine->channel);
    engine_msg_init(&m, ENGINE_PROGRESS, t->engine->channel.launch_id, t->job->job_id);
    m.progress.phase = phase;
    m.progress.step = (int)step;
    m.progress.steps = (int)steps;
    m.progress.seconds = now_seconds() - t->started;
    m.progress.loss = loss;
    m.progress.joules = energy_since(&t->energy);
    channel_send(&t->engine->channel, &m, NULL);
}

static void on_lora(void *context, const struct lora_train_progress *p)
{
    enum engine_phase phase = !strcmp(p->phase, "train")    ? ENGINE_PHASE_TRAIN
                              : !strcmp(p->phase, "encode") ? ENGINE_PHASE_TEXT
                                                            : ENGINE_PHASE_SAMPLE;
    send_progress(context, phase, p->step, p->steps, p->loss);
}

static void on_pocket(void *context, const struct pocket_progress *p)
{
    send_progress(context, ENGINE_PHASE_TRAIN, p->step, p->steps, p->loss);
}

static void on_note(void *context, const char *sentence)
{
    fprintf(stderr, "note: %s\n", sentence);
}

static bool on_canceled(void *context)
{
    struct training *t = context;
    return channel_canceled(&t->engine->channel, t->job->job_id);
}

static double on_joules(void *context)
{
    struct training *t = context;
    return energy_since(&t->energy);
}

static int train_pocket(struct training *t, struct train_options *o, struct engine_trained *trained,
                        struct error *err)
{
    struct pocket_hooks hooks = {t, on_pocket, on_canceled};
    int rc = pocket_train(t->engine->device, &o->pocket, &hooks, err);
    trained->path = o->pocket.out;
    trained->steps = (int)o->pocket.steps;
    trained->final_loss = NAN;
    return rc;
}

static int train_lora(struct training *t, struct train_options *o, struct engine_trained *trained,
                      struct error *err)
{
    struct lora_train_hooks hooks = {t, on_lora, on_note, on_canceled, on_joules};
    struct lora_train_result result;
    struct dataset data;
    struct model *model;
    int rc = models_get(&t->engine->models, o->model, &model, err);
    if (rc) return rc;
    int resolution = o->lora.resolution ? o->lora.resolution : lora_train_resolution(model);
    o->data.min_side_px = resolution < 256 ? resolution / 2 : 256;
    o->data.warn_side_px = resolution;
    rc = dataset_open(&data, &o->data, err);
    if (rc) return rc;
    for (int i = 0; i < data.problem_count; i++) on_note(t, data.problem[i]);
    char base_hash[9];
    str_copy(model->info.sha256, sizeof model->info.sha256,
             models_hash(&t->engine->models, o->model, 1));
    file_hash_legacy(base_hash, model->info.path);
    o->lora.base_hash = base_hash;
    rc = lora_train(model, &data, &o->lora, &hooks, &result, err);
    dataset_release(&data);
    if (rc) return rc;
    trained->path = o->lora.out;
    trained->steps = (int)result.steps;
    trained->final_loss = result.final_loss;
    lora_train_result_release(&result);
    return 0;
}

int serve_train(struct engine *e, const struct engine_msg *job)
{
    struct training t = {.engine = e, .job = job, .started = now_seconds()};
    struct train_options options;
    struct engine_msg *m = calloc(1, sizeof *m);
    struct error err = {0};
    if (!m) return ERR_NO_MEMORY;
    engine_msg_init(m, ENGINE_TRAINED, e->channel.launch_id, job->job_id);
    energy_start(&t.energy, e->nvml);
    int rc = train_options_parse(&options, &job->train, &err);
    if (!rc) {
        bool lora = !strcmp(options.what, "lora");
        rc = lora ? train_lora(&t, &options, &m->trained, &err)
                  : train_pocket(&t, &options, &m->trained, &err);
        m->trained.seconds = now_seconds() - t.started;
        m->trained.joules = energy_since(&t.energy);
        if (!rc) rc = channel_send(&e->channel, m, &err);
        train_options_release(&options);
    }
    if (rc) channel_send_error(&e->channel, job->job_id, &err, rc == ERR_DEVICE);
    free(m);
    return rc == ERR_DEVICE ? rc : 0;
}
