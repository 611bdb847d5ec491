#include "daemon/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/adapters.h"
#include "daemon/fault_point.h"

struct job *job_new(struct worker *w, const char *pop)
{
    struct job *job = alloc_zero(1, sizeof *job);
    job->w = w;
    str_copy(job->pop, sizeof job->pop, pop);
    job->popped_ms = now_ms();
    job->popped_wall_ms = now_wall_ms();
    job->next = w->jobs;
    job->back = &w->jobs;
    if (job->next) job->next->back = &job->next;
    w->jobs = job;
    return job;
}

static void free_job(struct job *job)
{
    *job->back = job->next;
    if (job->next) job->next->back = job->back;
    for (int i = 0; i < job->count; i++) {
        alarm_drop(&job->images[i].alarm);
        http_cancel(job->images[i].call);
        free(job->images[i].bytes.data);
    }
    alarm_drop(&job->fetch_alarm);
    http_cancel(job->fetch);
    adapters_forget(job->w->adapters, job);
    free(job->source.data);
    free(job->mask.data);
    free(job->result);
    if (job->has_horde) horde_job_release(&job->horde);
    if (job->has_forms) horde_forms_release(&job->forms);
    free(job);
}

void job_settle(struct job *job)
{
    if (job->pages || job->fetch) return;
    for (int i = 0; i < job->count; i++)
        if (!job->images[i].ended || job->images[i].busy || job->images[i].call) return;
    struct worker *w = job->w;
    free_job(job);
    worker_look(w);
}

void job_free_all(struct worker *w)
{
    while (w->jobs) free_job(w->jobs);
}

struct job *job_find(struct worker *w, const char *pop)
{
    for (struct job *j = w->jobs; j; j = j->next)
        if (!strcmp(j->pop, pop)) return j;
    return NULL;
}

bool job_in_state(const struct job *job, enum job_state state)
{
    for (int i = 0; i < job->count; i++)
        if (!job->images[i].ended && job->images[i].state == state) return true;
    return false;
}

bool job_is_open_for_engine(const struct job *job)
{
    for (int i = 0; i < job->count; i++) {
        const struct job_image *image = &job->images[i];
        if (!image->ended && image->state < JOB_CHECKED && !image->fault[0]) return true;
    }
    return false;
}

int64_t job_deadline_ms(const struct job *job)
{
    return job->popped_ms + (int64_t)(job->ttl_s - JOB_DEADLINE_SPARE_S) * 1000;
}

/* ---- the reply ---- */

static void add_image(struct job *job, const char *id, const char *upload_url)
{
    struct job_image *image = &job->images[job->count];
    image->job = job;
    image->index = job->count++;
    image->upload_url = upload_url;
    image->backoff = (struct backoff)BACKOFF_INIT(500, 30000);
    str_copy(image->id, sizeof image->id, id);
}

static int read_images(struct job *job, const char *reply, size_t length, struct error *err)
{
    int rc = horde_pop_parse(&job->horde, reply, length, err);
    if (rc) return rc;
    job->has_horde = true;
    struct image_request *r = &job->horde.request;
    str_copy(job->what, sizeof job->what, job->horde.model ? job->horde.model : "");
    job->ttl_s = job->horde.ttl_seconds;
    job->width_px = r->width_px;
    job->height_px = r->height_px;
    job->steps = r->steps;
    job->work_steps = sampler_work_steps(r->sampler, r->steps);
    job->seed = r->seed;
    for (int i = 0; i < job->horde.count; i++)
        add_image(job, job->horde.ids[i], job->horde.upload_urls[i]);
    return 0;
}

/* Forms of one reply have nothing in common but the source: each is a job of its own, named by its
 * id, and its forms.list[0] is its own. A form has 3 minutes (horde-api 12.4). */
static int read_form(struct job *job, const char *reply, size_t length, struct error *err)
{
    int rc = horde_forms_parse(&job->forms, reply, length, err);
    if (rc) return rc;
    job->has_forms = true;
    if (!job->forms.count) return 0;
    int own = 0;
    while (job->pop[0] && own < job->forms.count && !str_equal(job->forms.list[own].id, job->pop))
        own++;
    if (own == job->forms.count)
        return error_set(err, ERR_FORMAT, "the reply has no form %s", job->pop);
    const struct horde_form *f = &job->forms.list[0];
    if (own) {
        struct horde_form first = job->forms.list[0];
        job->forms.list[0] = job->forms.list[own];
        job->forms.list[own] = first;
    }
    str_copy(job->what, sizeof job->what, f->form_name ? f->form_name : "");
    job->ttl_s = 180;
    add_image(job, f->id, f->r2_upload);
    return 0;
}

int job_read_reply(struct job *job, const void *reply, size_t length, struct error *err)
{
    return job->form ? read_form(job, reply, length, err) : read_images(job, reply, length, err);
}

void job_rows(const struct job *job, struct ledger_job rows[HORDE_BATCH_MAX])
{
    for (int i = 0; i < job->count; i++) {
        struct ledger_job *row = &rows[i];
        *row = (struct ledger_job){.batch_index = i,
                                   .batch_count = job->count,
                                   .form = job->form,
                                   .width_px = job->width_px,
                                   .height_px = job->height_px,
                                   .steps = job->steps,
                                   .seed = job->seed,
                                   .popped_wall_ms = job->popped_wall_ms,
                                   .popped_boot_ms = job->popped_ms,
                                   .ttl_s = job->ttl_s,
                                   .base64 = !job->form && !job->images[i].upload_url};
        str_copy(row->id, sizeof row->id, job->images[i].id);
        str_copy(row->pop, sizeof row->pop, job->pop);
        str_copy(row->what, sizeof row->what, job->what);
        str_copy(row->boot, sizeof row->boot, job->w->boot);
        if (!job->form)
            str_copy(row->sampler, sizeof row->sampler, sampler_name(job->horde.request.sampler));
    }
}

void job_note(char notes[JOB_NOTES_BYTES], enum metadata_type type, enum metadata_value value,
              const char *ref)
{
    char clean[256] = "";
    if (ref) str_clean(clean, sizeof clean, ref);
    size_t used = strlen(notes), lines = 0;
    for (const char *c = notes; *c; c++) lines += *c == '\n';
    if (lines + 2 >= HORDE_METADATA_MAX) return;
    int wrote = snprintf(notes + used, JOB_NOTES_BYTES - used, "%s %s %s\n",
                         metadata_type_name(type), metadata_value_name(value), clean);
    if (wrote < 0 || (size_t)wrote >= JOB_NOTES_BYTES - used) notes[used] = 0; /* no half lines */
}

/* ---- computed and judged: into the spool ---- */

static void on_checked(void *data, int rc, const struct error *err)
{
    struct job *job = data;
    job->pages--;
    if (!rc) rc = fault_point(FAULT_RESULT_STORED);
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        image->busy = false;
        if (image->ended || image->fault[0] || image->state != JOB_GENERATING) continue;
        if (rc) { /* the row still says GENERATING */
            job_fault_image(image, "the result could not be stored");
            continue;
        }
        image->state = JOB_CHECKED;
        image->spool[0] = 0;
        if (image->bytes.data) { /* the name that ledger_spool_write gave it */
            size_t length = str_copy(image->spool, sizeof image->spool, image->id);
            str_copy(image->spool + length, sizeof image->spool - length, ".image");
        }
        upload_start(image);
    }
    job_settle(job);
}

void job_checked(struct job *job, double seconds, double joules)
{
    struct page *p = page_new();
    int told = 0;
    if (joules > 0) job->w->joules_run += joules;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->ended || image->fault[0] || image->state != JOB_GENERATING) continue;
        image->busy = true;
        image->seconds = seconds / job->count;
        page_result(p, image->id, EFFECT_ENGINE, 200, NULL);
        page_checked(p, image->id, image->bytes.data, image->bytes.length, image->verdict,
                     image->notes, seconds / job->count, joules / job->count);
        page_event(p, image->id, JOB_EVENT_PASSED, NULL);
        if (image->upload_url && image->bytes.data) page_intent(p, image->id, EFFECT_UPLOAD);
        told++;
    }
    log_info("job.computed", "pop=%s images=%d seconds=%.3f", job->pop, told, seconds);
    job->pages++;
    page_give(p, job->w->clerk, on_checked, job);
    worker_look(job->w); /* the engine has room again */
}

/* ---- giving up ---- */

void job_page_back(struct job *job)
{
    job->pages--;
    for (int i = 0; i < job->count; i++) job->images[i].busy = false;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->doom[0] && image->state < JOB_CHECKED) job_fault_image(image, image->doom);
    }
}

static void on_fault_stored(void *data, int rc, const struct error *err)
{
    struct job_image *image = data;
    struct job *job = image->job;
    job->pages--;
    image->busy = false;
    if (rc) { /* the books do not take it: say nothing to the Horde, a restart will find it */
        image->ended = true;
        job_settle(job);
        return;
    }
    image->state = JOB_SUBMITTING;
    fault_point(FAULT_FAULT_STORED);
    submit_start(image);
}

void job_fault_image(struct job_image *image, const char *reason)
{
    struct job *job = image->job;
    if (image->ended || image->fault[0]) return;
    if (image->busy) { /* after the page */
        str_copy(image->doom, sizeof image->doom, reason);
        return;
    }
    str_clean(image->fault, sizeof image->fault, reason);
    alarm_drop(&image->alarm);
    http_cancel(image->call);
    image->call = NULL;
    log_warn("job.fault", "job=%s state=%s reason=\"%s\"", image->id, job_state_name(image->state),
             image->fault);
    backoff_reset(&image->backoff);
    budget_fault(&job->w->budget);
    struct page *p = page_new();
    page_fault(p, image->id, image->fault);
    page_event(p, image->id, JOB_EVENT_FAULT_SENT, image->fault);
    page_intent(p, image->id, EFFECT_SUBMIT);
    image->busy = true;
    image->tries++;
    job->pages++;
    page_give(p, job->w->clerk, on_fault_stored, image);
}

void job_fault(struct job *job, const char *reason)
{
    for (int i = 0; i < job->count; i++) job_fault_image(&job->images[i], reason);
}

#define BREAKER_FAILURES 3
#define BREAKER_MS (30 * 60 * 1000)

static bool uses(const struct job *job, enum worker_feature f)
{
    const struct horde_job *h = &job->horde;
    if (!job->has_horde) return false;
    switch (f) {
    case FEATURE_LORA: return h->lora_count > 0 || h->ti_count > 0;
    case FEATURE_CONTROL: return h->request.control_type != NULL;
    case FEATURE_POST: return h->post_count > 0;
    case FEATURE_SOURCE: return h->request.source_use != SOURCE_NONE;
    case FEATURE_COUNT: break;
    }
    return false;
}

static void break_feature(struct worker *w, enum worker_feature f)
{
    static const char *const names[] = {"lora", "controlnet", "post-processing", "source images"};
    if (++w->features[f].failures < BREAKER_FAILURES) return;
    w->features[f].failures = 0;
    w->features[f].broken_until_ms = now_ms() + BREAKER_MS;
    log_warn("feature.breaker",
             "feature=\"%s\" text=\"three failures in a row; not offered for 30 minutes\"",
             names[f]);
}

/* A job with features blames those, one without its model: each can only be judged alone. */
void job_blame(struct job *job)
{
    struct worker *w = job->w;
    bool any = false;
    for (int f = 0; f < FEATURE_COUNT; f++)
        if (uses(job, (enum worker_feature)f)) {
            break_feature(w, (enum worker_feature)f);
            any = true;
        }
    struct worker_model *m = any || job->form ? NULL : worker_find_model(w, job->what);
    if (!m || ++m->failures < BREAKER_FAILURES) return;
    m->failures = 0;
    m->broken_until_ms = now_ms() + BREAKER_MS;
    log_warn("model.breaker",
             "model=\"%s\" text=\"three failures in a row; not offered for 30 minutes\"", m->name);
}

void job_praise(struct job *job)
{
    struct worker_model *m = job->form ? NULL : worker_find_model(job->w, job->what);
    if (m) m->failures = 0;
    for (int f = 0; f < FEATURE_COUNT; f++)
        if (uses(job, (enum worker_feature)f)) job->w->features[f].failures = 0;
}
