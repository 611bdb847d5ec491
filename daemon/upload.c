/* upload.c - CHECKED to UPLOADED: the bytes to the object store, with Content-Length and no key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/fault_point.h"
#include "daemon/job.h"
#include "proto/horde_error.h"

static void put(struct job_image *image);

/* ---- stored: durable, and with it the intent to submit when nothing holds it back ---- */

static void on_wait_over(void *data)
{
    submit_start(data);
}

static void on_stored(void *data, int rc, const struct error *err)
{
    struct job_image *image = data;
    struct job *job = image->job;
    job->pages--;
    image->busy = false;
    if (rc) {
        image->ended = true; /* a restart finds it CHECKED and goes on */
        job_settle(job);
        return;
    }
    fault_point(FAULT_UPLOAD_STORED);
    if (image->state == JOB_SUBMITTING) { /* the same page had the intent */
        fault_point(FAULT_SUBMIT_STORED);
        submit_start(image);
        return;
    }
    image->state = JOB_UPLOADED;
    alarm_set(job->w->alarms, &image->alarm, submit_wait_ms(image), on_wait_over, image);
}

/* When nothing holds the submit back, its intent goes into the same page: a commit less. */
static void stored(struct job_image *image, int status)
{
    struct page *p = page_new();
    if (status) page_result(p, image->id, EFFECT_UPLOAD, status, NULL);
    page_event(p, image->id, JOB_EVENT_STORED, NULL);
    if (submit_wait_ms(image) == 0) {
        page_event(p, image->id, JOB_EVENT_SENT, NULL);
        page_intent(p, image->id, EFFECT_SUBMIT);
        image->state = JOB_SUBMITTING;
        image->tries++;
    }
    image->busy = true;
    image->job->pages++;
    page_give(p, image->job->w->clerk, on_stored, image);
}

/* ---- the request ---- */

static void on_again(void *data)
{
    upload_start(data);
}

static void on_put(void *data, const struct http_reply *reply)
{
    struct job_image *image = data;
    struct worker *w = image->job->w;
    image->call = NULL;
    if (reply->status >= 200 && reply->status < 300) {
        fault_point(FAULT_UPLOAD_DONE);
        backoff_reset(&image->backoff);
        free(image->bytes.data);
        image->bytes = (struct blob){0};
        stored(image, reply->status);
        return;
    }
    struct horde_error e;
    horde_error_parse(&e, reply->status, NULL, 0);
    struct horde_reaction r = horde_error_react(HORDE_CALL_UPLOAD, &e);
    bool refused = reply->status == 0 && reply->err.code == ERR_REFUSED;
    if (r.action == HORDE_ACTION_FAULT || refused) {
        char why[300];
        snprintf(why, sizeof why, "the upload was refused: %s",
                 refused ? reply->err.text : r.advice);
        job_fault_image(image, why);
        return;
    }
    int64_t wait = backoff_next_ms(&image->backoff, reply->retry_after_ms);
    log_warn("upload.retry", "job=%s status=%d wait_ms=%lld text=\"%s\"", image->id, reply->status,
             (long long)wait, reply->status ? r.advice : reply->err.text);
    if (now_ms() > image->job->popped_ms + (int64_t)image->job->ttl_s * 1000 + JOB_PAYABLE_MS)
        job_fault_image(image, "the upload never succeeded");
    else
        alarm_set(w->alarms, &image->alarm, wait, on_again, image);
}

static void put(struct job_image *image)
{
    struct http_request r = {.use = HTTP_PUT,
                             .method = "PUT",
                             .url = image->upload_url,
                             .body = image->bytes.data,
                             .body_length = image->bytes.length,
                             .total_ms = 120000,
                             .done = on_put,
                             .data = image};
    image->call = http_send(image->job->w->http, &r);
}

/* ---- after a restart the bytes are in the spool ---- */

struct reading {
    struct job_image *image;
    char name[80];
    struct buf bytes;
    void (*then)(struct job_image *image);
};

static int apply_read(struct ledger *l, void *data, struct error *err)
{
    struct reading *r = data;
    return ledger_spool_read(l, r->name, &r->bytes, err);
}

static void on_read(void *data, int rc, const struct error *err)
{
    struct reading *r = data;
    struct job_image *image = r->image;
    image->job->pages--;
    image->busy = false;
    if (!rc && r->bytes.length) {
        image->bytes.data = buf_take(&r->bytes, &image->bytes.length);
        r->then(image);
    } else {
        job_fault_image(image, "its image is not in the spool any more");
    }
    buf_release(&r->bytes);
    free(r);
}

void upload_read_spool(struct job_image *image, void (*then)(struct job_image *image))
{
    struct reading *r = alloc_zero(1, sizeof *r);
    r->image = image;
    r->then = then;
    str_copy(r->name, sizeof r->name, image->spool);
    buf_init(&r->bytes, 64 << 20);
    image->busy = true;
    image->job->pages++;
    clerk_give_alone(image->job->w->clerk, apply_read, on_read, r);
}

void upload_start(struct job_image *image)
{
    if (image->ended || image->fault[0]) return;
    if (!image->upload_url)
        stored(image, 0); /* goes as base64, or is no image */
    else if (image->bytes.data)
        put(image);
    else
        upload_read_spool(image, put);
}
