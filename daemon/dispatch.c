/* dispatch.c - READY to GENERATING and back: which engine gets which job. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/adapters.h"
#include "daemon/dispatch.h"
#include "daemon/fault_point.h"

#define ADMISSION_SPARE 1.2
#define PARK_FINISH_S                                                                              \
    2 /* a job with less to go is let finish when somebody needs the machine ... */
#define PARK_GRACE_MS 5000 /* ... if it does so in that time */
#define OVERDUE_MS 3000    /* what an engine gets to give up by itself */

/* ---- choosing ---- */

/* One that is being encoded takes no room: the device is at the next. */
static int jobs_at(const struct worker *w, const struct engine_process *e, const struct job **first)
{
    int count = 0;
    for (const struct job *j = w->jobs; j; j = j->next)
        if (j->engine == e && j->phase != ENGINE_PHASE_ENCODE) {
            count++;
            if (first) *first = j; /* the oldest: the list has the newest first */
        }
    return count;
}

static int room_at(const struct worker *w, const struct engine_process *e)
{
    int ahead = worker_ahead(w, worker_engine_index(w, e)), queue = (int)w->config.queue_size;
    /* one behind the running ones; the others of the queue stay here, where they can be chosen from */
    int most = (int)w->config.max_threads + (queue > 0) + (ahead > queue ? ahead - queue : 0);
    return !w->parked && engine_process_state(e) == ENGINE_READY ? most - jobs_at(w, e, NULL) : 0;
}

double dispatch_work(const struct job *job)
{
    return (double)job->width_px * job->height_px * job->work_steps * job->count;
}

/* An engine draws equal requests in one run (engine/together.h judges what is equal, and whether it
 * pays): likely partners of a job that waits there may wait with it, as many as max_batch allows. */
static bool looks_equal(const struct job *a, const struct job *b)
{
    const struct image_request *x = &a->horde.request, *y = &b->horde.request;
    return a->has_horde && b->has_horde && a->count == b->count && str_equal(a->what, b->what) &&
           a->width_px == b->width_px && a->height_px == b->height_px && a->steps == b->steps &&
           x->sampler == y->sampler && x->cfg == y->cfg && x->source_use == y->source_use &&
           a->horde.lora_count == b->horde.lora_count &&
           a->horde.post_count == b->horde.post_count && str_equal(x->prompt, y->prompt) &&
           str_equal(x->negative, y->negative);
}

static bool joins_one_that_waits(const struct worker *w, const struct engine_process *e,
                                 const struct job *job)
{
    int images = job->count, partners = 0;
    if (w->parked || engine_process_state(e) != ENGINE_READY) return false;
    for (const struct job *j = w->jobs; j; j = j->next)
        if (j->engine == e && j->phase == ENGINE_PHASE_QUEUED && looks_equal(j, job)) {
            images += j->count;
            partners++;
        }
    return partners && images <= (int)w->config.max_batch;
}

/* seconds it should take there; 0 unknown */
static double estimate_s(const struct worker *w, const struct engine_process *e,
                         const struct job *job)
{
    double speed = w->speed[worker_engine_index(w, e)];
    return !job->form && speed > 0 ? dispatch_work(job) / speed : 0;
}

/* seconds until it would get to one more job */
static double queue_s(const struct worker *w, const struct engine_process *e)
{
    double sum = 0;
    for (const struct job *j = w->jobs; j; j = j->next) {
        if (j->engine != e) continue;
        double s = estimate_s(w, e, j);
        if (j->phase != ENGINE_PHASE_QUEUED) s -= (double)(now_ms() - j->given_ms) / 1000;
        sum += s > 0 ? s : 0;
    }
    return sum;
}

static bool form_fits(const struct engine_process *e, const struct job *job)
{
    const struct engine_hello *h = engine_process_hello(e);
    for (int i = 0; i < h->form_count; i++)
        if (str_equal(h->forms[i], job->what)) return true;
    return false;
}

/* The oldest READY job, but one that needs the model the engine holds goes first while the oldest
 * has spent less than a quarter of its time. */
static struct job *choose(struct worker *w, const struct engine_process *e)
{
    struct job *oldest = NULL, *same = NULL;
    const struct job *running = NULL;
    jobs_at(w, e, &running);
    for (struct job *j = w->jobs; j; j = j->next) {
        if (j->engine || j->pages || !job_in_state(j, JOB_READY)) continue;
        if (j->form && !form_fits(e, j)) continue;
        oldest = j;
        if (running && str_equal(running->what, j->what)) same = j;
    }
    if (!oldest || !same) return oldest;
    return now_ms() - oldest->popped_ms > (int64_t)oldest->ttl_s * 250 ? oldest : same;
}

/* ---- giving ---- */

/* LOAD or PREPARE */
static int send_model(struct worker *w, struct engine_process *e, const struct worker_model *m,
                      enum engine_kind kind, struct error *err)
{
    struct engine_msg load;
    engine_msg_init(&load, kind, engine_process_launch(e), "");
    load.load.model = m->name;
    load.load.path = m->path;
    load.load.precision = w->config.precision;
    return engine_process_send(e, &load, err);
}

static void to_engine(struct job *job);

static void on_started(void *data, int rc, const struct error *err)
{
    struct job *job = data;
    if (job_in_state(job, JOB_POPPED)) fault_point(FAULT_JOB_READY); /* the same page had both */
    for (int i = 0; i < job->count; i++)
        if (!rc && job->images[i].state <= JOB_READY && !job->images[i].ended)
            job->images[i].state = JOB_GENERATING;
    job_page_back(job);
    fault_point(FAULT_JOB_STARTED);
    if (rc) {
        job->engine = NULL;
        job_fault(job, "the ledger did not take it");
        job_settle(job);
        return;
    }
    to_engine(job);
}

/* POPPED or READY: what is given at once is both in one page */
static void give(struct job *job, struct engine_process *e)
{
    struct page *p = page_new();
    job->engine = e;
    job->launch_id = engine_process_launch(e);
    job->given_ms = now_ms();
    job->w->foreseen[worker_engine_index(job->w, e)].model = NULL;
    job->turn++;
    job->phase = ENGINE_PHASE_QUEUED;
    job->step = job->step_count = 0;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->ended || image->state > JOB_READY) continue;
        image->busy = true;
        if (image->state == JOB_POPPED) page_event(p, image->id, JOB_EVENT_PREPARED, NULL);
        page_event(p, image->id, JOB_EVENT_STARTED, NULL);
        page_intent(p, image->id, EFFECT_ENGINE);
    }
    job->pages++;
    page_give(p, job->w->clerk, on_started, job);
}

static bool in_time(const struct worker *w, const struct engine_process *e, const struct job *job)
{
    double left_s = (double)(job_deadline_ms(job) - now_ms()) / 1000;
    return left_s > 0 && (queue_s(w, e) + estimate_s(w, e, job)) * ADMISSION_SPARE <= left_s;
}

bool dispatch_at_once(struct job *job)
{
    struct worker *w = job->w;
    for (int i = 0; i < w->engine_count; i++) {
        struct engine_process *e = w->engines[i];
        if (room_at(w, e) <= 0 || choose(w, e) || !in_time(w, e, job)) continue;
        if (job->form && !form_fits(e, job)) continue;
        give(job, e);
        return true;
    }
    return false;
}

/* nothing will compute what waits: others may */
static void give_all_back(struct worker *w)
{
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) != ENGINE_BROKEN) return;
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        if (!j->pages && job_in_state(j, JOB_READY)) job_fault(j, "no engine runs any more");
    }
}

void dispatch(struct worker *w)
{
    give_all_back(w);
    for (int i = 0; i < w->engine_count; i++) {
        struct engine_process *e = w->engines[i];
        struct job *job;
        while ((job = choose(w, e)) && (room_at(w, e) > 0 || joins_one_that_waits(w, e, job))) {
            if (!in_time(w, e, job)) {
                job_fault(job, job_deadline_ms(job) <= now_ms()
                                   ? "its time is over"
                                   : "it cannot be done in the time left");
                continue;
            }
            give(job, e);
        }
    }
    dispatch_foresee(w);
}

static bool has_model(const struct worker *w, const struct engine_process *e, const char *what)
{
    for (const struct job *j = w->jobs; j; j = j->next)
        if (j->engine == e && str_equal(j->what, what)) return true;
    return false;
}

/* What no engine has yet, the oldest first, goes to the engine that is free first, which may get the model
 * beside its work. */
void dispatch_foresee(struct worker *w)
{
    struct engine_process *soonest = NULL;
    struct job *next = NULL;
    for (int i = 0; i < w->engine_count; i++) {
        struct engine_process *e = w->engines[i];
        if (w->parked || engine_process_state(e) != ENGINE_READY) continue;
        if (!soonest || queue_s(w, e) < queue_s(w, soonest)) soonest = e;
    }
    for (struct job *j = w->jobs; j; j = j->next)
        if (!j->engine && !j->form && (job_in_state(j, JOB_POPPED) || job_in_state(j, JOB_READY)))
            next = j;
    struct worker_model *m = soonest && next ? worker_find_model(w, next->what) : NULL;
    if (!m || m->missing || !jobs_at(w, soonest, NULL) || has_model(w, soonest, m->name)) return;
    int index = worker_engine_index(w, soonest);
    uint64_t launch = engine_process_launch(soonest);
    if (w->foreseen[index].model == m && w->foreseen[index].launch_id == launch) return;
    w->foreseen[index].model = m;
    w->foreseen[index].launch_id = launch;
    send_model(w, soonest, m, ENGINE_PREPARE, NULL);
}

/* back to READY: its engine is gone or asked to try once more */
static void on_returned(void *data, int rc, const struct error *err)
{
    struct job *job = data;
    for (int i = 0; i < job->count; i++)
        if (!rc && job->images[i].state == JOB_GENERATING && !job->images[i].ended)
            job->images[i].state = JOB_READY;
    job_page_back(job);
    if (job->runs >= JOB_RUNS_MAX) {
        job_blame(job);
        job_fault(job, "engines ended over it twice");
    } else if (rc) {
        job_fault(job, "the ledger did not take it");
    }
    dispatch(job->w);
    job_settle(job);
}

void dispatch_take_back(struct job *job, const char *why)
{
    struct page *p = page_new();
    int count = 0;
    job->engine = NULL;
    job->phase = ENGINE_PHASE_QUEUED;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (image->ended || image->state != JOB_GENERATING || image->fault[0]) continue;
        image->busy = true;
        page_result(p, image->id, EFFECT_ENGINE, 0, why);
        page_event(p, image->id, JOB_EVENT_RETURNED, why);
        count++;
    }
    log_info("job.returned", "pop=%s images=%d reason=\"%s\"", job->pop, count, why);
    job->pages++;
    page_give(p, job->w->clerk, on_returned, job);
}

/* ---- the messages ---- */

static bool word_in(const struct config_list *words, const char *prompt)
{
    for (unsigned i = 0; i < words->count; i++)
        if (strcasestr(prompt, words->items[i])) return true;
    return false;
}

/* what the engine calls it: the pop's id, and which turn when it is not the first */
static void engine_id(const struct job *job, char id[ENGINE_JOB_BYTES])
{
    if (job->turn > 1)
        snprintf(id, ENGINE_JOB_BYTES, "%.54s~%d", job->pop, job->turn);
    else
        str_copy(id, ENGINE_JOB_BYTES, job->pop);
}

struct job *dispatch_find(struct worker *w, const char *id)
{
    char pop[ENGINE_JOB_BYTES], again[ENGINE_JOB_BYTES];
    str_copy(pop, sizeof pop, id);
    pop[strcspn(pop, "~")] = 0;
    struct job *job = *pop ? job_find(w, pop) : NULL;
    if (job) engine_id(job, again);
    return job && str_equal(again, id) ? job : NULL;
}

static int send_load(struct job *job, struct worker_model *m, struct error *err)
{
    return send_model(job->w, job->engine, m, ENGINE_LOAD, err);
}

/* The lean way after memory ran out (E2): nothing but its own model is on the device. */
static void unload_others(const struct job *job, const struct worker_model *m)
{
    const struct worker *w = job->w;
    for (int i = 0; i < w->model_count; i++) {
        struct engine_msg unload;
        engine_msg_init(&unload, ENGINE_UNLOAD, job->launch_id, "");
        unload.load.model = w->models[i].name;
        if (&w->models[i] != m) engine_process_send(job->engine, &unload, NULL);
    }
}

static int send_generate(struct job *job, struct error *err)
{
    struct worker *w = job->w;
    struct horde_job *h = &job->horde;
    struct worker_model *m = worker_find_model(w, job->what);
    struct engine_msg g;
    if (!m) return error_set(err, ERR_NOT_FOUND, "its model is not offered any more");
    if (job->lean) unload_others(job, m);
    int rc = send_load(job, m, err);
    if (rc) return rc;
    char id[ENGINE_JOB_BYTES];
    engine_id(job, id);
    engine_msg_init(&g, ENGINE_GENERATE, job->launch_id, id);
    struct image_request empty = g.generate.request;
    g.generate.request = h->request; /* borrowed: what it owns stays the job's */
    g.generate.request.model = m->name;
    g.generate.request.count = job->count;
    g.generate.request.source = job->source;
    g.generate.request.mask = job->mask;
    for (int i = 0; i < h->post_count && i < ENGINE_POST_MAX; i++)
        g.generate.post_processing[g.generate.post_count++] = h->post_processing[i];
    g.generate.facefixer_strength = h->facefixer_strength;
    g.generate.format = ENGINE_FORMAT_WEBP;
    g.generate.together_max = (int)w->config.max_batch;
    g.generate.check_safety = !w->config.horde_loopback || worker_has_safety(w);
    g.generate.censor_nsfw = !w->config.nsfw || w->config.censor_nsfw || h->use_nsfw_censor ||
                             word_in(&w->config.censorlist, h->request.prompt);
    g.generate.deadline_seconds = (double)(job_deadline_ms(job) - now_ms()) / 1000;
    if (g.generate.deadline_seconds > (double)w->config.process_timeout_s)
        g.generate.deadline_seconds = (double)w->config.process_timeout_s;
    if (g.generate.deadline_seconds < 0.1) g.generate.deadline_seconds = 0.1;
    rc = engine_process_send(job->engine, &g, err);
    g.generate.request = empty;
    image_request_release(&g.generate.request);
    return rc;
}

static int send_form(struct job *job, struct error *err)
{
    struct engine_msg a;
    char id[ENGINE_JOB_BYTES];
    engine_id(job, id);
    engine_msg_init(&a, ENGINE_ALCHEMY, job->launch_id, id);
    a.alchemy.form = job->forms.list[0].form;
    a.alchemy.control_type = job->forms.list[0].control_type;
    a.alchemy.source = job->source;
    a.alchemy.check_safety = !job->w->config.horde_loopback || worker_has_safety(job->w);
    return engine_process_send(job->engine, &a, err);
}

static void to_engine(struct job *job)
{
    struct error err = {0};
    if (job->w->parked) {
        dispatch_take_back(job, "somebody needs the machine");
        return;
    }
    /* it may have died while the ledger wrote */
    if (job->launch_id != engine_process_launch(job->engine) ||
        engine_process_state(job->engine) != ENGINE_READY) {
        dispatch_take_back(job, "its engine ended before it began");
        return;
    }
    int rc = job->form ? send_form(job, &err) : send_generate(job, &err);
    if (rc == ERR_DEVICE) {
        dispatch_take_back(job, err.text);
    } else if (rc) {
        job->engine = NULL;
        job_fault(job, err.text);
        job_settle(job);
    } else {
        fault_point(FAULT_JOB_SENT);
    }
}

/* ---- looking after ---- */

void dispatch_overdue(struct worker *w)
{
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        int64_t late_ms = now_ms() - job_deadline_ms(j);
        if (j->engine && now_ms() - j->given_ms > w->config.process_timeout_s * 1000 + OVERDUE_MS)
            late_ms = OVERDUE_MS;
        if (late_ms < OVERDUE_MS || !job_is_open_for_engine(j)) continue;
        struct engine_process *e = j->engine;
        const struct job *oldest = NULL;
        if (e) jobs_at(w, e, &oldest);
        bool running = e && (j == oldest || j->phase != ENGINE_PHASE_QUEUED);
        j->engine = NULL;
        http_cancel(j->fetch);
        j->fetch = NULL;
        alarm_drop(&j->fetch_alarm);
        adapters_forget(w->adapters, j);
        job_fault(j, "its time is over");
        job_settle(j);
        /* it was told the deadline and does not keep it */
        if (running) engine_process_replace(e, "a job did not end in its time");
    }
}

void dispatch_gone(struct worker *w, struct engine_process *e, uint64_t launch_id, const char *why)
{
    const struct job *oldest = NULL;
    jobs_at(w, e, &oldest);
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        if (j->engine != e || j->launch_id != launch_id) continue;
        /* only the one it was working on is to blame */
        if (j == oldest || j->phase != ENGINE_PHASE_QUEUED) j->runs++;
        if (j->pages) continue; /* on_started or to_engine will see it */
        dispatch_take_back(j, why);
    }
    worker_look(w);
}

/* the first model is loaded before a job asks for it, and its family known */
static void preload(struct worker *w, struct engine_process *e)
{
    for (int i = 0; i < w->model_count; i++) {
        struct worker_model *m = &w->models[i];
        if (m->missing) continue;
        send_model(w, e, m, ENGINE_LOAD, NULL);
        return;
    }
}

static void take_from_engine(struct job *j, const char *why)
{
    struct engine_msg cancel;
    char id[ENGINE_JOB_BYTES];
    engine_id(j, id);
    engine_msg_init(&cancel, ENGINE_CANCEL, j->launch_id, id);
    engine_process_send(j->engine, &cancel, NULL);
    dispatch_take_back(j, why);
}

/* By what such jobs took so far. What is thrown away would be computed again from the beginning. */
static bool is_nearly_done(const struct worker *w, const struct job *j)
{
    if (!j->engine || j->phase == ENGINE_PHASE_QUEUED) return false;
    double estimate = estimate_s(w, j->engine, j);
    double left = estimate - (double)(now_ms() - j->begun_ms) / 1000;
    return estimate > 0 && left < PARK_FINISH_S;
}

void dispatch_park(struct worker *w, const char *why)
{
    bool again = w->parked;
    if (!again) {
        w->parked = true;
        w->parked_ms = now_ms();
        log_info("engine.parked", "text=\"%s\"", why);
    }
    bool patient = now_ms() - w->parked_ms < PARK_GRACE_MS;
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        if (patient && is_nearly_done(w, j)) continue;
        /* encoded pictures need no device: their results come by themselves */
        if (j->engine && !j->pages && j->phase != ENGINE_PHASE_ENCODE) take_from_engine(j, why);
    }
    if (again) return;
    for (int i = 0; i < w->engine_count; i++)
        for (int k = 0; k < w->model_count; k++) {
            struct engine_process *e = w->engines[i];
            struct engine_msg unload;
            engine_msg_init(&unload, ENGINE_UNLOAD, engine_process_launch(e), "");
            unload.load.model = w->models[k].name;
            if (engine_process_state(e) == ENGINE_READY) engine_process_send(e, &unload, NULL);
        }
}

void dispatch_unpark(struct worker *w)
{
    if (!w->parked) return;
    w->parked = false;
    log_info("engine.unparked", "text=\"the machine is free again\"");
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) == ENGINE_READY) preload(w, w->engines[i]);
    dispatch(w);
}

void dispatch_ready(struct worker *w, struct engine_process *e)
{
    if (!w->parked) preload(w, e);
    dispatch(w);
    worker_look(w);
}
