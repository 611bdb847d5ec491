/* submit.c - UPLOADED (or a fault) to the end: handing it in until it is paid or worth nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/demand.h"
#include "daemon/fault_point.h"
#include "daemon/job.h"
#include "daemon/pop.h"
#include "proto/capability.h"
#include "proto/horde_error.h"

static void hand_in(struct job_image *image);

/* ---- the end ---- */

static void on_booked(void *data, int rc, const struct error *err)
{
    struct job_image *image = data;
    struct job *job = image->job;
    job->pages--;
    image->busy = false;
    image->ended = true;
    if (!rc) fault_point(FAULT_SUBMIT_BOOKED);
    job->w->last_job_wall_ms = now_wall_ms();
    job_settle(job);
}

static void end(struct job_image *image, enum job_event event, int status, const char *text,
                int64_t reward_milli)
{
    struct worker *w = image->job->w;
    struct page *p = page_new();
    enum job_state next = JOB_SUBMITTING;
    job_state_next(&next, image->state, event, NULL);
    page_result(p, image->id, EFFECT_SUBMIT, status, text);
    page_event(p, image->id, event, text);
    if (event == JOB_EVENT_PAID) {
        page_earn(p, image->id, reward_milli,
                  capability_agent_factor_milli(w->config.bridge_agent));
        budget_end(&w->budget, reward_milli);
        demand_learn(w, image->job->what, reward_milli, image->seconds);
        w->settled_run++;
        w->told_run_milli += reward_milli > 0 ? reward_milli : 0;
    } else {
        w->faulted_run++;
    }
    page_spool_remove(p, image->spool);
    log_info("job.ended", "job=%s state=%s reward_milli=%lld model=\"%s\" tries=%d text=\"%s\"",
             image->id, job_state_name(next), (long long)reward_milli, image->job->what,
             image->tries, text ? text : "");
    image->state = next;
    image->busy = true;
    image->job->pages++;
    page_give(p, w->clerk, on_booked, image);
}

/* ---- what the Horde said ---- */

static void on_again(void *data)
{
    struct job_image *image = data;
    struct worker *w = image->job->w;
    int64_t wait = outage_ask_ms(&w->outage);
    if (wait > 0)
        alarm_set(w->alarms, &image->alarm, wait, on_again, image);
    else
        hand_in(image);
}

void submit_wake(struct worker *w)
{
    for (struct job *j = w->jobs; j; j = j->next)
        for (int i = 0; i < j->count; i++) {
            struct job_image *image = &j->images[i];
            if (image->state == JOB_SUBMITTING && image->alarm.set && !image->call && !image->busy)
                alarm_set(w->alarms, &image->alarm, (int64_t)backoff_random(2000), on_again, image);
        }
}

static void again(struct job_image *image, int64_t at_least_ms, const char *why, int status)
{
    struct job *job = image->job;
    struct worker *w = job->w;
    if (now_ms() > job->popped_ms + (int64_t)job->ttl_s * 1000 + JOB_PAYABLE_MS) {
        end(image, JOB_EVENT_EXPIRED, status, why, 0);
        return;
    }
    int64_t wait = backoff_next_ms(&image->backoff, at_least_ms);
    log_warn("submit.retry", "job=%s status=%d wait_ms=%lld text=\"%s\"", image->id, status,
             (long long)wait, why);
    alarm_set(w->alarms, &image->alarm, wait, on_again, image);
}

static void accepted(struct job_image *image, const struct http_reply *reply)
{
    int64_t reward = 0;
    struct error err = {0};
    int rc = horde_submit_parse(&reward, (const char *)reply->body, reply->length, &err);
    fault_point(image->fault[0] ? FAULT_FAULT_ANSWERED : FAULT_SUBMIT_ANSWERED);
    if (rc) { /* a page of HTML with 200: somebody in between; the same again finds out */
        again(image, 1000, err.text, 200);
    } else if (image->fault[0]) {
        end(image, JOB_EVENT_FAULT_TAKEN, 200, image->fault, 0);
    } else { /* 0 never means "earned 0" (reliability section 1) */
        end(image, JOB_EVENT_PAID, 200, NULL, reward > 0 ? reward : -1);
    }
}

static void refused(struct job_image *image, const struct http_reply *reply)
{
    struct worker *w = image->job->w;
    struct horde_error e;
    char text[128];
    horde_error_parse(&e, reply->status, (const char *)reply->body, reply->length);
    struct horde_reaction r = horde_error_react(HORDE_CALL_SUBMIT, &e);
    snprintf(text, sizeof text, "%s", e.rc[0] ? e.rc : r.advice);
    switch (r.action) {
    case HORDE_ACTION_SETTLED: /* an earlier try arrived */
        if (image->fault[0])
            end(image, JOB_EVENT_FAULT_TAKEN, reply->status, text, 0);
        else
            end(image, JOB_EVENT_PAID, reply->status, text, -1);
        break;
    case HORDE_ACTION_FORFEIT:
        if (str_equal(e.rc, "AbortedGen")) budget_fault(&w->budget);
        end(image, JOB_EVENT_UNPAYABLE, reply->status, text, 0);
        break;
    case HORDE_ACTION_KEEP:
    case HORDE_ACTION_STOP:
        pop_halt(&w->images, text);
        pop_halt(&w->forms, text);
        again(image, 60000, text, reply->status);
        break;
    case HORDE_ACTION_RETRY:
    case HORDE_ACTION_WAIT:
    case HORDE_ACTION_SLOW:
        again(image, reply->retry_after_ms ? reply->retry_after_ms : (int64_t)r.wait_seconds * 1000,
              text, reply->status);
        break;
    default: /* our request is wrong for this server: the same again would be, too */
        log_error("submit.schema", "job=%s status=%d rc=%s fields=\"%s\"", image->id, reply->status,
                  e.rc, e.fields);
        if (image->fault[0])
            end(image, JOB_EVENT_UNPAYABLE, reply->status, text, 0);
        else
            job_fault_image(image, text);
    }
}

static void on_answer(void *data, const struct http_reply *reply)
{
    struct job_image *image = data;
    struct worker *w = image->job->w;
    image->call = NULL;
    worker_heard(w, reply->status);
    if (reply->status == 200)
        accepted(image, reply);
    else if (reply->status == 0)
        again(image, 0, reply->err.text, 0);
    else
        refused(image, reply);
}

/* ---- the request ---- */

/* "type value ref" lines back into entries; the text is cut in place */
static int read_notes(const struct drift *d, char *notes,
                      struct horde_metadata list[HORDE_METADATA_MAX])
{
    int count = 0;
    for (char *line = strtok(notes, "\n"); line && count < HORDE_METADATA_MAX;
         line = strtok(NULL, "\n")) {
        char *value = strchr(line, ' '), *ref = value ? strchr(value + 1, ' ') : NULL;
        if (!ref) continue;
        *value++ = 0;
        *ref++ = 0;
        int type = 0, what = 0;
        while (type < METADATA_TYPE_COUNT &&
               strcmp(line, metadata_type_name((enum metadata_type)type)))
            type++;
        while (what < METADATA_VALUE_COUNT &&
               strcmp(value, metadata_value_name((enum metadata_value)what)))
            what++;
        if (type == METADATA_TYPE_COUNT || what == METADATA_VALUE_COUNT) continue;
        if (!drift_knows_note(d, (enum metadata_type)type, (enum metadata_value)what)) continue;
        list[count++] = (struct horde_metadata){.type = (enum metadata_type)type,
                                                .value = (enum metadata_value)what,
                                                .ref = *ref ? ref : NULL};
    }
    return count;
}

static char *base64_of(const struct blob *bytes)
{
    char *text = alloc_zero(bytes->length / 3 * 4 + 5, 1);
    EVP_EncodeBlock((unsigned char *)text, bytes->data, (int)bytes->length);
    return text;
}

static int image_body(struct job_image *image, struct buf *body, struct error *err)
{
    char notes[JOB_NOTES_BYTES];
    struct horde_metadata list[HORDE_METADATA_MAX];
    char *inside = NULL;
    struct horde_submit s = {
        .id = image->id, .generation = HORDE_GENERATION_R2, .seed = image->job->seed};
    if (image->fault[0]) {
        s.state = SUBMIT_FAULTED;
        s.generation = "faulted";
        s.seed = 0;
    } else {
        str_copy(notes, sizeof notes, image->notes);
        s.metadata = list;
        s.metadata_count = read_notes(&image->job->w->drift, notes, list);
        if (str_equal(image->verdict, "csam")) s.state = SUBMIT_CSAM;
        if (str_equal(image->verdict, "censored")) s.state = SUBMIT_CENSORED;
        if (!image->upload_url) s.generation = inside = base64_of(&image->bytes);
    }
    int rc = horde_submit_format(&s, body, err);
    free(inside);
    return rc;
}

static int form_body(struct job_image *image, struct buf *body, struct error *err)
{
    struct job *job = image->job;
    struct horde_alchemy_submit s = {.id = image->id, .form = job->what, .faulted = true};
    if (!image->fault[0])
        return buf_append_string(body, job->result ? job->result : image->notes, err);
    return horde_alchemy_submit_format(&s, body, err);
}

static void hand_in(struct job_image *image)
{
    struct job *job = image->job;
    struct buf body;
    struct error err = {0};
    if (image->ended || image->call) return;
    bool inside = !job->form && !image->upload_url && !image->fault[0];
    if (inside && !image->bytes.data) {
        upload_read_spool(image, hand_in);
        return;
    }
    buf_init(&body, 64 << 20);
    int rc = job->form ? form_body(image, &body, &err) : image_body(image, &body, &err);
    if (rc) {
        buf_release(&body);
        if (image->fault[0])
            end(image, JOB_EVENT_EXPIRED, 0, err.text, 0);
        else
            job_fault_image(image, err.text);
        return;
    }
    struct http_request r = {.use = HTTP_API,
                             .method = "POST",
                             .path = job->form ? "interrogate/submit" : "generate/submit",
                             .body = body.data,
                             .body_length = body.length,
                             .total_ms = 60000,
                             .done = on_answer,
                             .data = image};
    image->call = http_send(job->w->http, &r);
    buf_release(&body);
    if (image->tries == 1 && !image->fault[0] && job->asked_ms) {
        double computing_s = image->seconds * job->count;
        job->w->added_s += (double)(now_ms() - job->popped_ms) / 1000 - computing_s;
        job->w->added_count++;
    }
}

int64_t submit_wait_ms(const struct job_image *image)
{
    const struct job *job = image->job;
    if (job->form) return 0;
    return budget_wait_ms(job->popped_ms, job->width_px, job->height_px, job->work_steps,
                          job->w->trusted);
}

static void on_intent(void *data, int rc, const struct error *err)
{
    struct job_image *image = data;
    struct job *job = image->job;
    job->pages--;
    image->busy = false;
    if (rc) {
        image->ended = true; /* a restart finds it UPLOADED and goes on */
        job_settle(job);
        return;
    }
    image->state = JOB_SUBMITTING;
    fault_point(FAULT_SUBMIT_STORED);
    hand_in(image);
}

void submit_start(struct job_image *image)
{
    struct job *job = image->job;
    if (image->ended) return;
    if (image->state == JOB_SUBMITTING) { /* the intent stands already */
        hand_in(image);
        return;
    }
    struct page *p = page_new();
    page_event(p, image->id, JOB_EVENT_SENT, NULL);
    page_intent(p, image->id, EFFECT_SUBMIT);
    image->busy = true;
    image->tries++;
    job->pages++;
    page_give(p, job->w->clerk, on_intent, image);
}
