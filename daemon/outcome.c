#include "daemon/outcome.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/dispatch.h"
#include "daemon/fault_point.h"

static void learn_speed(struct worker *w, const struct engine_process *e, const struct job *job,
                        double seconds)
{
    double *speed = &w->speed[worker_engine_index(w, e)];
    double now = seconds > 0 ? dispatch_work(job) / seconds : 0;
    if (now > 0) *speed = *speed > 0 ? 0.7 * *speed + 0.3 * now : now;
    w->busy_ms += (int64_t)(seconds * 1000);
    double *pace = &w->pace_ms[worker_engine_index(w, e)];
    *pace = *pace > 0 ? 0.8 * *pace + 0.2 * seconds * 1000 : seconds * 1000;
}

/* "lora:download_failed:name", in the Horde's words; the pipeline may add a tab and a sentence */
static void take_note(struct job *job, const char *note)
{
    char type[32], value[32], code[160];
    int used = 0;
    /* behind a tab is a sentence for people here, with paths of this machine */
    str_copy(code, sizeof code, note);
    code[strcspn(code, "\t")] = 0;
    note = code;
    if (sscanf(note, "%31[^:]:%31[^:]%n", type, value, &used) != 2) return;
    for (int t = 0; t < METADATA_TYPE_COUNT; t++)
        for (int v = 0; v < METADATA_VALUE_COUNT; v++)
            if (str_equal(type, metadata_type_name((enum metadata_type)t)) &&
                str_equal(value, metadata_value_name((enum metadata_value)v)))
                job_note(job->notes, (enum metadata_type)t, (enum metadata_value)v,
                         note[used] == ':' ? note + used + 1 : NULL);
}

/* S2, S3: 0, or ERR_* when the image must not leave */
static int judge(struct job *job, struct job_image *image, const struct engine_image *from,
                 struct error *err)
{
    bool exempt = job->w->config.horde_loopback && !worker_has_safety(job->w);
    if (from->verdict == ENGINE_VERDICT_FAILED || (from->verdict == ENGINE_VERDICT_NONE && !exempt))
        return error_set(err, ERR_UNSUPPORTED, "the safety check broke");
    if (!from->bytes.data || !from->bytes.length)
        return error_set(err, ERR_FORMAT, "the engine gave an empty image");
    str_copy(image->notes, sizeof image->notes, job->notes);
    if (from->verdict == ENGINE_VERDICT_CSAM) {
        if (!from->censored)
            return error_set(err, ERR_INTERNAL, "flagged pixels were not replaced");
        str_copy(image->verdict, sizeof image->verdict, "csam");
        job_note(image->notes, METADATA_CENSORSHIP, METADATA_VALUE_CSAM, NULL);
    } else if (from->censored) {
        str_copy(image->verdict, sizeof image->verdict, "censored");
        job_note(image->notes, METADATA_CENSORSHIP, METADATA_VALUE_NSFW, NULL);
    } else if (from->verdict == ENGINE_VERDICT_NSFW) {
        str_copy(image->verdict, sizeof image->verdict, "nsfw");
        job_note(image->notes, METADATA_INFORMATION, METADATA_VALUE_NSFW, NULL);
    } else {
        str_copy(image->verdict, sizeof image->verdict, "ok");
    }
    if (job->count > 1 || image->index) {
        char number[8];
        snprintf(number, sizeof number, "%d", image->index);
        job_note(image->notes, METADATA_BATCH_INDEX, METADATA_VALUE_SEE_REF, number);
    }
    return 0;
}

static void once_more_or_fault(struct job *job, const char *why)
{
    job->engine = NULL;
    if (++job->runs < JOB_RUNS_MAX) {
        dispatch_take_back(job, why);
        return;
    }
    job_blame(job);
    job_fault(job, why);
    job_settle(job);
    dispatch(job->w);
}

static void take_result(struct job *job, struct engine_process *e, struct engine_msg *m)
{
    struct engine_result *r = &m->result;
    struct error err = {0};
    double seconds = 0;
    if (fault_point(FAULT_RESULT_ARRIVED)) {
        once_more_or_fault(job, "a test's fault");
        return;
    }
    if (r->image_count != job->count) {
        once_more_or_fault(job, "the engine gave another number of images than asked");
        return;
    }
    for (int i = 0; i < r->note_count; i++) take_note(job, r->notes[i]);
    /* the device's: encoding goes on beside the next job */
    for (int p = 0; p < ENGINE_PHASE_COUNT; p++)
        if (p != ENGINE_PHASE_QUEUED && p != ENGINE_PHASE_ENCODE) seconds += r->seconds[p];
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (judge(job, image, &r->images[i], &err)) {
            once_more_or_fault(job, err.text);
            return;
        }
    }
    for (int i = 0; i < job->count; i++) {
        job->images[i].bytes = r->images[i].bytes;
        r->images[i].bytes.data = NULL; /* taken */
    }
    double computing = seconds - r->seconds[ENGINE_PHASE_LOAD];
    learn_speed(job->w, e, job,
                computing > 0 ? computing : (double)(now_ms() - job->given_ms) / 1000);
    struct worker_model *model = worker_find_model(job->w, job->what);
    job_praise(job);
    if (model) {
        model->jobs += job->count;
        if (r->model_sha256 && *r->model_sha256)
            str_copy(model->sha256, sizeof model->sha256, r->model_sha256);
    }
    if (r->together)
        log_info("job.together", "pop=%s images=%d others=%d", job->pop, job->count, r->together);
    job->engine = NULL;
    struct worker *w = job->w;
    job_checked(job, seconds, r->joules);
    dispatch(w); /* what waits behind it */
}

static void take_form_result(struct job *job, struct engine_msg *m)
{
    struct engine_alchemy_result *r = &m->alchemy_result;
    struct job_image *image = &job->images[0];
    struct horde_alchemy_submit s = {.id = image->id,
                                     .form = job->what,
                                     .kind = alchemy_form_result(job->forms.list[0].form),
                                     .text = r->text,
                                     .flag = r->flag,
                                     .number = r->number,
                                     .words = r->words,
                                     .word_count = r->word_count};
    struct buf body;
    struct error err = {0};
    buf_init(&body, 4 << 20);
    int rc = 0;
    if (s.kind == ALCHEMY_IMAGE) {
        rc = judge(job, image, &r->image, &err);
        if (!rc && !image->upload_url)
            rc = error_set(&err, ERR_FORMAT, "the Horde gave no upload URL");
    }
    if (!rc) rc = horde_alchemy_submit_format(&s, &body, &err);
    if (rc) {
        buf_release(&body);
        once_more_or_fault(job, err.text);
        return;
    }
    if (s.kind == ALCHEMY_IMAGE) {
        image->bytes = r->image.bytes;
        r->image.bytes.data = NULL;
    } else {
        str_copy(image->verdict, sizeof image->verdict, "ok");
    }
    size_t length;
    free(job->result);
    job->result = (char *)buf_take(&body, &length);
    /* the answer is small: it stands in the ledger's notes, so that a restart can send it */
    if (length < sizeof image->notes) str_copy(image->notes, sizeof image->notes, job->result);
    job->engine = NULL;
    struct worker *w = job->w;
    job_checked(job, r->seconds, r->joules);
    dispatch(w);
}

static void take_error(struct job *job, struct engine_process *e, const struct engine_failure *f)
{
    char why[256];
    str_clean(why, sizeof why, f->text ? f->text : error_word(f->code));
    if (f->code == ERR_DEVICE || f->fatal) return; /* its end follows, and takes the job back */
    if (f->code == ERR_NO_MEMORY && !job->lean) {  /* E2: once more, alone and lean */
        job->lean = true;
        job->engine = NULL;
        dispatch_take_back(job, why);
        return;
    }
    job->engine = NULL;
    if (f->code == ERR_NO_MEMORY) { /* twice: no larger ones for an hour */
        job->w->pixels_most = (int64_t)job->width_px * job->height_px * 3 / 4;
        job->w->pixels_until_ms = now_ms() + 3600000;
        log_warn("memory.short", "max_pixels=%lld text=\"for an hour\"",
                 (long long)job->w->pixels_most);
    }
    if (f->code == ERR_CANCELED) {
        job_fault(job, "it was not done in the time");
    } else {
        if (f->code != ERR_INVALID && f->code != ERR_UNSUPPORTED) job_blame(job);
        job_fault(job, why);
    }
    dispatch(job->w);
    job_settle(job);
}

static void take_loaded(struct worker *w, const struct engine_loaded *l)
{
    struct worker_model *m = worker_find_model(w, l->model ? l->model : "");
    if (!m) return;
    if (l->family) family_find(l->family, &m->family);
    if (l->sha256 && *l->sha256) str_copy(m->sha256, sizeof m->sha256, l->sha256);
}

void outcome_message(struct worker *w, struct engine_process *e, struct engine_msg *m)
{
    if (m->kind == ENGINE_LOADED) {
        take_loaded(w, &m->loaded);
        return;
    }
    struct job *job = dispatch_find(w, m->job_id);
    if (!job || job->engine != e || job->launch_id != m->launch_id) {
        if (m->kind == ENGINE_ERROR && m->error.fatal &&
            str_starts(m->error.text ? m->error.text : "", ENGINE_GPU_LOST))
            engine_process_break(e, m->error.text);
        else if (m->kind == ENGINE_ERROR && m->error.code != ERR_CANCELED)
            log_warn("engine.error", "device=%s text=\"%s\"", engine_process_device(e),
                     m->error.text ? m->error.text : "");
        return;
    }
    switch (m->kind) {
    case ENGINE_PROGRESS:
        if (m->progress.phase == ENGINE_PHASE_SAMPLE && m->progress.step > job->step &&
            job->phase == ENGINE_PHASE_SAMPLE)
            engine_process_step(e, (m->progress.seconds - job->step_at) /
                                       (m->progress.step - job->step));
        if (job->phase == ENGINE_PHASE_QUEUED) job->begun_ms = now_ms();
        job->phase = m->progress.phase;
        job->step = m->progress.step;
        job->step_count = m->progress.steps;
        job->step_at = m->progress.seconds;
        if (job->phase == ENGINE_PHASE_ENCODE) { /* the device is free */
            dispatch(w);
            worker_look(w);
        }
        break;
    case ENGINE_RESULT: take_result(job, e, m); break;
    case ENGINE_ALCHEMY_RESULT: take_form_result(job, m); break;
    case ENGINE_ERROR: take_error(job, e, &m->error); break;
    default: break;
    }
}
