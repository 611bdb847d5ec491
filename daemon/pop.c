#include "daemon/pop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/demand.h"
#include "daemon/fault_point.h"
#include "daemon/job.h"
#include "proto/horde_error.h"

#define LEAST_GAP_MS 1000   /* never over one pop a second (N7) ... */
#define LEAST_GAP_HERE_MS 5 /* ... but on this machine there is nobody to be polite to */
#define IDLE_FIRST_MS 1000
#define IDLE_MOST_MS 5000
#define STOPPED_MS 300000

static void on_alarm(void *data);

/* ---- may it? ---- */

static bool any_model(const struct worker *w)
{
    for (int i = 0; i < w->model_count; i++)
        if (!w->models[i].missing && w->models[i].broken_until_ms <= now_ms()) return true;
    return false;
}

static bool engines_broken(const struct worker *w)
{
    for (int i = 0; i < w->engine_count; i++)
        if (engine_process_state(w->engines[i]) != ENGINE_BROKEN) return false;
    return true;
}

static bool no(struct control_reason *r, const char *gate, char *text, size_t room,
               const char *said)
{
    r->gate = gate;
    r->text = text;
    r->blocks = true;
    str_copy(text, room, said);
    return true;
}

bool pop_blocked(const struct popper *p, struct control_reason *r, char *text, size_t room)
{
    const struct worker *w = p->w;
    *r = (struct control_reason){0};
    for (int k = 0; k < GATE_COUNT; k++)
        if (gate_is_shut(&w->gate, (enum gate_kind)k)) {
            char said[300];
            gate_tell(said, sizeof said, &w->gate, (enum gate_kind)k, &w->config);
            if (k == GATE_PAUSED && w->gate.paused_until_ms)
                r->until_wall_ms = now_wall_ms() + w->gate.paused_until_ms - now_ms();
            return no(r, gate_name((enum gate_kind)k), text, room, said);
        }
    if (p->stopped) return no(r, "key", text, room, p->why_stopped);
    if (engines_broken(w)) {
        char said[400];
        snprintf(said, sizeof said, "no engine runs: %s",
                 w->engine_count ? engine_process_trouble(w->engines[0]) : "none is configured");
        bool lost = w->engine_count && str_starts(said, "no engine runs: " ENGINE_GPU_LOST);
        return no(r, lost ? ENGINE_GPU_LOST : "engine_down", text, room, said);
    }
    struct engine_process *ready = worker_any_engine(w);
    if (!ready && (p->form || !w->config.horde_loopback))
        return no(r, "engine_down", text, room, "the engine is starting");
    if (!w->config.horde_loopback && !worker_has_safety(w))
        return no(r, "safety_unavailable", text, room,
                  "no safety model is present, and without one no stranger's job is taken");
    if (!p->form && !any_model(w))
        return no(
            r, "no_model", text, room,
            "none of the models to offer has a file here; see models_to_load and custom_models");
    if (budget_is_spent(&w->budget)) {
        char said[200];
        int64_t free_ms = budget_free_ms(&w->budget);
        r->until_wall_ms = now_wall_ms() + free_ms - now_ms();
        snprintf(said, sizeof said,
                 "%d jobs of the last hour were given back or aborted; at 20 the Horde would force "
                 "maintenance",
                 budget_faults_hour(&w->budget));
        return no(r, "faults", text, room, said);
    }
    return false;
}

static int open_before_checked(const struct worker *w)
{
    int count = 0;
    for (const struct job *j = w->jobs; j; j = j->next)
        count += job_is_open_for_engine(j) && j->phase != ENGINE_PHASE_ENCODE;
    return count;
}

/* now_ms of the next try; -1: something else must happen first */
static int64_t next_ms(const struct popper *p)
{
    struct control_reason r;
    char text[400];
    const struct worker *w = p->w;
    if (p->call || p->storing || w->phase != WORKER_RUNNING || w->recovering) return -1;
    if (p->stopped) return p->stopped_until_ms;
    if (pop_blocked(p, &r, text, sizeof text)) return -1;
    if (open_before_checked(w) >= worker_capacity(w)) return -1;
    int64_t gap_ms = w->config.horde_loopback ? LEAST_GAP_HERE_MS : LEAST_GAP_MS;
    return p->last_ms < 0 ? 0 : p->last_ms + (p->idle_ms > gap_ms ? p->idle_ms : gap_ms);
}

/* ---- the request ---- */

static int64_t max_pixels(const struct worker *w)
{
    int64_t most = w->config.max_power * 32768;
    return now_ms() < w->pixels_until_ms && w->pixels_most < most ? w->pixels_most : most;
}

static int image_body(struct popper *p, struct buf *body, struct error *err)
{
    struct worker *w = p->w;
    const struct config *c = &w->config;
    const char *models[WORKER_MODELS_MAX];
    int count = 0;
    struct capability_set able = worker_able(w);
    for (int i = 0; i < w->model_count; i++) {
        struct worker_model *m = &w->models[i];
        m->offered = !m->missing && m->broken_until_ms <= now_ms() && demand_wants(w, m);
        if (m->offered) models[count++] = m->name;
    }
    struct horde_pop pop = {
        .name = c->worker_name,
        .bridge_agent = c->bridge_agent,
        .models = models,
        .model_count = count,
        .threads = (int)c->max_threads,
        .amount = (int)c->max_batch,
        .max_pixels = max_pixels(w),
        .nsfw = c->nsfw,
        .blacklist = (const char *const *)c->blacklist.items,
        .blacklist_count = (int)c->blacklist.count,
        .priority_usernames = (const char *const *)c->priority_usernames.items,
        .priority_count = p->drop_priority ? 0 : (int)c->priority_usernames.count,
        .require_upfront_kudos = c->require_upfront_kudos,
        .extra_slow_worker = c->extra_slow_worker,
        .limit_max_steps = c->limit_max_steps,
        .allow_unsafe_ipaddr = c->allow_unsafe_ip,
    };
    capability_pop_flags(&able, &pop);
    drift_pop(&w->drift, &pop);
    return horde_pop_format(&pop, body, err);
}

/* forms of the configuration that the engines can do */
static int form_names(const struct worker *w, const char *names[HORDE_FORMS_MAX])
{
    if (!worker_any_engine(w)) return 0;
    struct capability_set able = worker_able(w);
    for (int f = 0; f < ALCHEMY_COUNT; f++)
        if (!drift_knows_form(&w->drift, alchemy_form_name((enum alchemy_form)f)))
            able.forms &= ~(1u << f);
    return capability_pop_forms(&able, (const char *const *)w->config.forms.items,
                                (int)w->config.forms.count, names);
}

static int form_body(struct popper *p, struct buf *body, struct error *err)
{
    const struct config *c = &p->w->config;
    const char *names[HORDE_FORMS_MAX];
    struct horde_alchemy_pop pop = {.name = c->alchemist_name,
                                    .bridge_agent = c->bridge_agent,
                                    .forms = names,
                                    .form_count = form_names(p->w, names),
                                    .amount = 1,
                                    .threads = (int)c->max_threads,
                                    .max_tiles = 16,
                                    .priority_usernames =
                                        (const char *const *)c->priority_usernames.items,
                                    .priority_count = (int)c->priority_usernames.count};
    if (!pop.form_count) return error_set(err, ERR_NOT_FOUND, "no engine can do any of the forms");
    return horde_alchemy_pop_format(&pop, body, err);
}

static void on_reply(void *data, const struct http_reply *reply);

static void ask(struct popper *p)
{
    struct buf body;
    struct error err = {0};
    buf_init(&body, 1 << 20);
    int rc = p->form ? form_body(p, &body, &err) : image_body(p, &body, &err);
    p->last_ms = now_ms();
    p->last_wall_ms = now_wall_ms();
    if (rc) {
        str_copy(p->notice, sizeof p->notice, err.text);
        p->idle_ms = 10000;
        alarm_set(p->w->alarms, &p->alarm, p->idle_ms, on_alarm, p);
    } else {
        struct http_request r = {.use = HTTP_API,
                                 .method = "POST",
                                 .path = p->form ? "interrogate/pop" : "generate/pop",
                                 .body = body.data,
                                 .body_length = body.length,
                                 .limit_bytes = HTTP_POP_BYTES_MAX,
                                 .total_ms = 60000,
                                 .done = on_reply,
                                 .data = p};
        p->call = http_send(p->w->http, &r);
        p->asked++;
        fault_point(FAULT_POP_SENT);
    }
    buf_release(&body);
}

static void on_alarm(void *data)
{
    pop_look(data);
}

void pop_look(struct popper *p)
{
    if (p->form && !p->w->config.forms.count) return;
    int64_t at = next_ms(p);
    if (at < 0) {
        alarm_drop(&p->alarm);
        return;
    }
    int64_t wait = at - now_ms();
    if (wait > 0)
        alarm_set(p->w->alarms, &p->alarm, wait, on_alarm, p);
    else
        ask(p);
}

/* ---- the answer ---- */

struct arrival {
    struct popper *p;
    struct job *job;
    uint8_t *reply;
    size_t length;
    struct ledger_job rows[HORDE_BATCH_MAX];
    int count, fresh;
};

static int apply_arrival(struct ledger *l, void *data, struct error *err)
{
    struct arrival *a = data;
    return ledger_popped(l, a->job->pop, a->reply, a->length, a->rows, a->count, &a->fresh, err);
}

static void on_stored(void *data, int rc, const struct error *err)
{
    struct arrival *a = data;
    struct job *job = a->job;
    struct worker *w = job->w;
    job->pages--;
    a->p->storing--;
    free(a->reply);
    if (!rc) rc = fault_point(FAULT_POP_STORED);
    if (rc || a->fresh < a->count) {
        /* not in the books, or there already: nothing of it is ours to do */
        if (rc) a->p->idle_ms = 30000; /* a ledger that cannot be written: no hurry for more */
        log_warn("pop.dropped", "pop=%s text=\"%s\"", job->pop,
                 rc ? err->text : "the same reply again");
        for (int i = 0; i < job->count; i++) job->images[i].ended = true;
        job_settle(job);
    } else {
        log_info("job.popped", "pop=%s images=%d what=\"%s\" size=%dx%d steps=%d ttl_s=%d",
                 job->pop, job->count, job->what, job->width_px, job->height_px, job->steps,
                 job->ttl_s);
        job_prepare(job);
    }
    free(a);
    worker_look(w);
}

static void take_job(struct popper *p, struct job *job, const struct http_reply *reply)
{
    struct arrival *a = alloc_zero(1, sizeof *a);
    a->p = p;
    a->job = job;
    job->asked_ms = p->last_ms;
    a->length = reply->length;
    a->reply = alloc_zero(1, reply->length + 1);
    memcpy(a->reply, reply->body, reply->length);
    a->count = job->count;
    str_copy(job->pop, sizeof job->pop, job->images[0].id);
    job_rows(job, a->rows);
    fault_point(FAULT_POP_ARRIVED);
    job->pages++;
    p->storing++;
    clerk_give(p->w->clerk, apply_arrival, on_stored, a);
}

static void take_skipped(struct popper *p, const struct horde_skipped *list, int count)
{
    p->skipped_count = 0;
    for (int i = 0; i < count && p->skipped_count < WORKER_SKIPPED_MAX; i++) {
        if (list[i].count <= 0) continue;
        struct worker_skipped *s = &p->skipped[p->skipped_count++];
        str_clean(s->name, sizeof s->name, list[i].name);
        s->count = list[i].count;
    }
}

static void take_messages(struct worker *w, const struct horde_job *h)
{
    for (int i = 0; i < h->message_count; i++) {
        const struct horde_message *m = &h->messages[i];
        bool known = false;
        char id[64];
        str_clean(id, sizeof id, m->id ? m->id : "");
        for (int k = 0; k < w->notice_count; k++) known |= str_equal(w->notices[k].id, id);
        if (known) continue;
        if (w->notice_count == WORKER_NOTICES_MAX)
            memmove(w->notices, w->notices + 1, sizeof w->notices[0] * (size_t)--w->notice_count);
        struct worker_notice *n = &w->notices[w->notice_count++];
        str_copy(n->id, sizeof n->id, id);
        str_clean(n->origin, sizeof n->origin, m->origin ? m->origin : "");
        str_clean(n->text, sizeof n->text, m->message ? m->message : "");
        str_clean(n->expiry, sizeof n->expiry, m->expiry ? m->expiry : "");
        log_info("horde.message", "from=\"%s\" text=\"%.200s\"", n->origin, n->text);
    }
}

static void empty_answer(struct popper *p)
{
    int64_t most = p->w->config.horde_loopback ? IDLE_FIRST_MS : IDLE_MOST_MS;
    p->idle_ms = p->idle_ms < IDLE_FIRST_MS ? IDLE_FIRST_MS : p->idle_ms * 3 / 2;
    if (p->idle_ms > most) p->idle_ms = most;
}

/* asked for one form, a server may still give several: each is done and told */
static void take_other_forms(struct popper *p, const struct job *first,
                             const struct http_reply *reply)
{
    for (int i = 1; i < first->forms.count; i++) {
        struct error err = {0};
        struct job *job = job_new(p->w, first->forms.list[i].id);
        job->form = true;
        if (job_read_reply(job, reply->body, reply->length, &err)) {
            log_error("pop.unreadable", "bytes=%zu text=\"%s\"", reply->length, err.text);
            job_settle(job);
        } else
            take_job(p, job, reply);
    }
}

static void good_answer(struct popper *p, const struct http_reply *reply)
{
    struct worker *w = p->w;
    struct error err = {0};
    struct job *job = job_new(w, "");
    job->form = p->form;
    backoff_reset(&p->trouble);
    p->maintenance = false;
    p->notice[0] = 0;
    if (job_read_reply(job, reply->body, reply->length, &err)) {
        log_error("pop.unreadable", "bytes=%zu text=\"%s\"", reply->length, err.text);
        str_copy(p->notice, sizeof p->notice, err.text);
        p->idle_ms = backoff_next_ms(&p->trouble, 0);
        job_settle(job);
        return;
    }
    if (job->has_horde) take_messages(w, &job->horde);
    if (job->count) {
        p->idle_ms = 0;
        p->skipped_count = 0;
        take_job(p, job, reply);
        if (p->form) take_other_forms(p, job, reply);
    } else {
        if (job->has_horde)
            take_skipped(p, job->horde.skipped, job->horde.skipped_count);
        else
            take_skipped(p, job->forms.skipped, job->forms.skipped_count);
        empty_answer(p);
        job_settle(job);
    }
}

void pop_halt(struct popper *p, const char *why)
{
    p->stopped = true;
    str_copy(p->why_stopped, sizeof p->why_stopped, why);
    p->stopped_until_ms = now_ms() + STOPPED_MS;
}

static void bad_answer(struct popper *p, const struct http_reply *reply)
{
    struct horde_error e;
    horde_error_parse(&e, reply->status, (const char *)reply->body, reply->length);
    struct horde_reaction r = horde_error_react(HORDE_CALL_POP, &e);
    char said[256];
    snprintf(said, sizeof said, "%s%s%s", r.advice, e.message[0] || !reply->status ? ": " : "",
             e.message[0]    ? e.message
             : reply->status ? ""
                             : reply->err.text);
    if (!str_equal(p->notice, said)) /* once, not at every try */
        log_warn("pop.refused", "status=%d rc=%s action=\"%s\" text=\"%s\"", reply->status, e.rc,
                 horde_action_word(r.action), said);
    str_copy(p->notice, sizeof p->notice, said);
    p->maintenance =
        str_equal(e.rc, "WorkerMaintenance") || str_equal(e.rc, "WorkerFlaggedMaintenance");
    int64_t asked = reply->retry_after_ms;
    if (r.wait_seconds * 1000LL > asked) asked = r.wait_seconds * 1000LL;
    switch (r.action) {
    case HORDE_ACTION_STOP: pop_halt(p, said); break;
    case HORDE_ACTION_DROP_PRIORITY:
        if (p->drop_priority) pop_halt(p, said);
        p->drop_priority = true;
        p->idle_ms = IDLE_FIRST_MS;
        break;
    case HORDE_ACTION_SLOW:
    case HORDE_ACTION_WAIT:
    case HORDE_ACTION_SCHEMA:
    case HORDE_ACTION_FIX_MODELS: p->idle_ms = asked > 30000 ? asked : 30000; break;
    default:
        p->trouble.most_ms = reply->status >= 500 ? 60000 : 30000;
        p->idle_ms = backoff_next_ms(&p->trouble, asked);
    }
}

static void on_reply(void *data, const struct http_reply *reply)
{
    struct popper *p = data;
    struct worker *w = p->w;
    p->call = NULL;
    p->stopped = false;
    worker_heard(w, reply->status);
    if (reply->status == 200)
        good_answer(p, reply);
    else
        bad_answer(p, reply);
    pop_look(p);
}

/* ---- life ---- */

void pop_start(struct popper *p, struct worker *w, bool form)
{
    *p = (struct popper){.w = w, .form = form, .last_ms = -1, .trouble = BACKOFF_INIT(1000, 30000)};
}

void pop_stop(struct popper *p)
{
    alarm_drop(&p->alarm);
    http_cancel(p->call);
    p->call = NULL;
}

void pop_forgive(struct popper *p)
{
    p->stopped = p->drop_priority = false;
    p->idle_ms = 0;
    backoff_reset(&p->trouble);
    pop_look(p);
}
