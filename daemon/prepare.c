/* prepare.c - POPPED to READY: what must be refused, and what must be fetched first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/adapters.h"
#include "daemon/fault_point.h"
#include "daemon/job.h"

#define FETCH_TRIES_MAX 4

static void on_ready(void *data, int rc, const struct error *err)
{
    struct job *job = data;
    for (int i = 0; i < job->count; i++) {
        struct job_image *image = &job->images[i];
        if (!rc && !image->ended && image->state == JOB_POPPED) image->state = JOB_READY;
    }
    job_page_back(job);
    if (rc) job_fault(job, "the ledger did not take it");
    fault_point(FAULT_JOB_READY);
    dispatch(job->w);
    job_settle(job);
}

/* how long it takes to get one, when nobody else's server is waited for */
static void learn_lead(struct job *job)
{
    double lead_ms = (double)(now_ms() - job->asked_ms), *lead = &job->w->lead_ms;
    if (job->asked_ms && !job->fetched) *lead = *lead > 0 ? 0.8 * *lead + 0.2 * lead_ms : lead_ms;
}

static void now_ready(struct job *job)
{
    if (!job_is_open_for_engine(job)) return; /* given back meanwhile */
    learn_lead(job);
    if (dispatch_at_once(job)) return;
    struct page *p = page_new();
    for (int i = 0; i < job->count; i++) {
        if (job->images[i].ended || job->images[i].state != JOB_POPPED) continue;
        job->images[i].busy = true;
        page_event(p, job->images[i].id, JOB_EVENT_PREPARED, NULL);
    }
    job->pages++;
    page_give(p, job->w->clerk, on_ready, job);
}

/* ---- source images ---- */

static void fetch_next(struct job *job);

static void on_fetch_alarm(void *data)
{
    fetch_next(data);
}

static void on_fetched(void *data, const struct http_reply *reply)
{
    struct job *job = data;
    struct blob *to = job->source.data ? &job->mask : &job->source;
    job->fetch = NULL;
    if (reply->status == 200 && reply->length) {
        to->data = alloc_zero(1, reply->length);
        memcpy(to->data, reply->body, reply->length);
        to->length = reply->length;
        job->fetch_tries = 0;
        fetch_next(job);
    } else if (reply->err.code == ERR_REFUSED || ++job->fetch_tries >= FETCH_TRIES_MAX) {
        char why[300];
        snprintf(why, sizeof why, "its source image cannot be fetched: %s",
                 reply->status ? "the store refused" : reply->err.text);
        job_fault(job, why);
        job_settle(job);
    } else {
        alarm_set(job->w->alarms, &job->fetch_alarm, 500 * job->fetch_tries, on_fetch_alarm, job);
    }
}

static const char *wanted_url(struct job *job, struct blob **to)
{
    *to = NULL;
    const char *source = job->form ? job->forms.list[0].source_image : job->horde.source_image;
    const char *mask = job->form ? NULL : job->horde.source_mask;
    if (!job->form && job->horde.request.source_use == SOURCE_NONE) return NULL;
    if (source && !job->source.data) return *to = &job->source, source;
    if (mask && !job->mask.data) return *to = &job->mask, mask;
    return NULL;
}

static void fetch_next(struct job *job)
{
    struct blob *to;
    struct error err = {0};
    for (const char *from; (from = wanted_url(job, &to));) {
        if (horde_source_is_url(from)) {
            struct http_request r = {.use = HTTP_FETCH,
                                     .method = "GET",
                                     .url = from,
                                     .limit_bytes = HTTP_SOURCE_BYTES_MAX,
                                     .total_ms = (int)job->w->config.download_timeout_s * 1000,
                                     .done = on_fetched,
                                     .data = job};
            job->fetched = true;
            job->fetch = http_send(job->w->http, &r);
            return;
        }
        if (horde_source_decode(to, from, HTTP_SOURCE_BYTES_MAX, &err)) {
            job_fault(job, "its source image is no base64 of an image");
            job_settle(job);
            return;
        }
    }
    now_ready(job);
}

/* ---- the weights beside the model: a ControlNet is here or is not offered, the others are fetched ---- */

static char *control_file(const struct worker *w, const char *name)
{
    char *path = alloc_printf("%s/controlnet/%s.safetensors", w->folders.cache, name);
    if (worker_may_use(w, path)) return path;
    free(path);
    return NULL;
}

/* The Horde's names. */
static const char *qr_network(const struct job *job)
{
    const struct worker_model *m = worker_find_model(job->w, job->what);
    return m && m->family == FAMILY_SDXL ? "control_qr_sdxl" : "control_qr";
}

static void take_extras(struct job *job)
{
    struct image_request *r = &job->horde.request;
    if (r->control_type && !r->return_control_map)
        r->control_path = control_file(job->w, r->control_type);
    if (r->qr.text) r->control_path = control_file(job->w, qr_network(job));
    if (r->qr.text && !r->control_path) {
        job_fault(job, "this worker has no ControlNet for QR codes for that model");
        job_settle(job);
        return;
    }
    adapters_need(job->w->adapters, job, fetch_next);
}

static int refuse_image(struct job *job, struct error *err)
{
    struct worker *w = job->w;
    struct worker_model *m = worker_find_model(w, job->what);
    struct capability_set able = worker_able(w);
    if (job->horde.refusal.code)
        return error_set(err, job->horde.refusal.code, "%s", job->horde.refusal.text);
    if (!m || m->missing)
        return error_set(err, ERR_NOT_FOUND, "the model was not offered, or its file is gone");
    if ((int64_t)job->width_px * job->height_px > w->config.max_power * 32768)
        return error_set(err, ERR_UNSUPPORTED, "%dx%d is larger than max_power %lld allows",
                         job->width_px, job->height_px, (long long)w->config.max_power);
    if (job->seed > INT64_MAX) /* no submit could carry it */
        return error_set(err, ERR_UNSUPPORTED, "this worker cannot do seeds above 2^63-1");
    int rc = capability_refuse(&able, &job->horde, m->family, err);
    if (!rc) rc = image_request_check(&job->horde.request, err);
    return rc;
}

void job_prepare(struct job *job)
{
    struct error err = {0};
    struct worker *w = job->w;
    struct capability_set able = worker_able(w);
    int rc = job->form ? capability_refuse_form(&able, &job->forms.list[0], &err)
                       : refuse_image(job, &err);
    if (rc) {
        job_fault(job, err.text);
        job_settle(job);
        return;
    }
    if (job->form)
        fetch_next(job);
    else
        take_extras(job);
    dispatch_foresee(w);
}
