/* control_docs.c - what kilnd knows about itself, as the documents of proto/control_msg.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/control.h"
#include "daemon/job.h"
#include "daemon/pop.h"

#define REASONS_MAX 48

struct reasons {
    struct arena *memory;
    struct control_reason *list;
    int count;
};

static void add_reason(struct reasons *r, struct control_reason reason)
{
    if (r->count == REASONS_MAX) return;
    reason.text = arena_string(r->memory, reason.text ? reason.text : "");
    reason.gate = arena_string(r->memory, reason.gate ? reason.gate : "");
    r->list[r->count++] = reason;
}

/* the server's counters are about requests it passed over; each with what would help */
static const char *skipped_advice(const char *name)
{
    static const struct {
        const char *name, *advice;
    } table[] = {
        {"models", "requests wait for models that are not offered here"},
        {"bridge_version", "requests need what the Horde does not know this worker's name can do "
                           "(docs/upstream-row.md)"},
        {"max_pixels", "requests are larger than max_power allows"},
        {"nsfw", "requests are NSFW and nsfw is false"},
        {"blacklist", "requests hold a word of the blacklist"},
        {"untrusted", "requests want trusted workers; trust comes with time and kudos"},
        {"kudos", "requests cannot be paid upfront and require_upfront_kudos is true"},
        {"step_count", "requests have more steps than limit_max_steps lets in"},
        {"unsafe_ip", "requests come from VPNs and allow_unsafe_ip is false"},
        {"img2img", "requests have a source image and allow_img2img is false"},
        {"painting", "requests are inpainting and allow_painting is false"},
        {"post-processing", "requests want post-processing that is not offered"},
        {"lora", "requests want LoRAs and allow_lora is false"},
        {"controlnet", "requests want ControlNet and allow_controlnet is false"},
        {"performance", "requests want faster workers"},
        {"worker_id", "requests name other workers"},
    };
    for (unsigned i = 0; i < COUNT_OF(table); i++)
        if (str_equal(table[i].name, name)) return table[i].advice;
    return "requests were passed over for this";
}

static void popper_reasons(const struct popper *p, struct reasons *r)
{
    struct control_reason reason;
    char text[400];
    if (pop_blocked(p, &reason, text, sizeof text)) add_reason(r, reason);
    if (p->maintenance)
        add_reason(
            r, (struct control_reason){.gate = "maintenance", .text = p->notice, .blocks = true});
    else if (p->notice[0])
        add_reason(r, (struct control_reason){.gate = "server", .text = p->notice});
    for (int i = 0; i < p->skipped_count; i++) {
        char gate[48];
        snprintf(gate, sizeof gate, "server:%s", p->skipped[i].name);
        add_reason(r, (struct control_reason){.gate = gate,
                                              .text = skipped_advice(p->skipped[i].name),
                                              .count = p->skipped[i].count});
    }
}

static void all_reasons(const struct worker *w, struct reasons *r)
{
    r->list = arena_zero(r->memory, REASONS_MAX, sizeof *r->list);
    if (w->phase != WORKER_RUNNING)
        add_reason(r, (struct control_reason){
                          .gate = "draining", .text = "kilnd is about to end", .blocks = true});
    popper_reasons(&w->images, r);
    if (w->config.forms.count) popper_reasons(&w->forms, r);
    if (!capability_agent_known(w->config.bridge_agent) && !w->config.horde_loopback && !w->jobs)
        add_reason(r,
                   (struct control_reason){
                       .gate = "server:bridge_version",
                       .text = "the Horde does not know this worker's name, so it is given plain "
                               "requests with r2 off, and alchemy (docs/upstream-row.md)"});
    if (w->account_known && w->account_last.alarm)
        add_reason(r, (struct control_reason){.gate = "ledger", .text = w->account_last.verdict});
}

/* the last word the server said about itself, or why there is none */
static const char *drift_text(const struct worker *w)
{
    return w->drift.text[0] ? w->drift.text : w->drift.trouble;
}

static const char *state_word(const struct worker *w)
{
    if (w->phase != WORKER_RUNNING) return "draining";
    if (w->gate.paused) return "paused";
    if (w->images.maintenance) return "maintenance";
    return worker_any_engine(w) ? "running" : "starting";
}

static const char *engine_word(const struct engine_process *e, const struct job *job)
{
    switch (engine_process_state(e)) {
    case ENGINE_STARTING: return "starting";
    case ENGINE_READY:
        if (!job) return "idle";
        return job->phase == ENGINE_PHASE_LOAD ? "loading" : "busy";
    case ENGINE_DEAD:
    case ENGINE_BROKEN: return "dead";
    case ENGINE_STOPPED: break;
    }
    return "stopped";
}

static struct control_engine engine_doc(const struct worker *w, struct engine_process *e)
{
    const struct engine_hello *h = engine_process_hello(e);
    const struct engine_heartbeat *beat = engine_process_heartbeat(e);
    const struct job *job = NULL;
    for (const struct job *j = w->jobs; j; j = j->next)
        if (j->engine == e) job = j; /* the oldest */
    struct control_engine d = {.device = engine_process_device(e),
                               .title = h->device_count ? h->devices[0].title : "",
                               .state = engine_word(e, job),
                               .model = job ? job->what : "",
                               .job = job ? job->pop : "",
                               .phase = job ? engine_phase_name(job->phase) : "",
                               .pid = engine_process_pid(e),
                               .launch_id = (int64_t)engine_process_launch(e),
                               .restarts = engine_process_restarts(e),
                               .step = job ? job->step : 0,
                               .steps = job ? job->step_count : 0,
                               .temperature_c = NAN,
                               .watts = NAN};
    if (h->device_count) {
        d.memory_bytes = h->devices[0].memory_bytes;
        d.free_bytes = h->devices[0].free_bytes;
    }
    if (beat) {
        d.memory_bytes = beat->memory_bytes ? beat->memory_bytes : d.memory_bytes;
        d.free_bytes = beat->free_bytes ? beat->free_bytes : d.free_bytes;
        d.temperature_c = beat->temperature_c;
        d.watts = beat->watts;
    }
    return d;
}

static int64_t resident_bytes(void)
{
    long long total, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%lld %lld", &total, &resident) != 2) resident = 0;
        fclose(f);
    }
    return resident * sysconf(_SC_PAGESIZE);
}

void control_fill_status(struct worker *w, const struct ledger_totals *t,
                         const struct ledger_account *account, struct control_reply *reply)
{
    struct reasons reasons = {.memory = &reply->memory};
    all_reasons(w, &reasons);
    struct control_engine *engines =
        arena_zero(&reply->memory, (size_t)w->engine_count + 1, sizeof *engines);
    for (int i = 0; i < w->engine_count; i++) engines[i] = engine_doc(w, w->engines[i]);
    struct control_notice *notices =
        arena_zero(&reply->memory, (size_t)w->notice_count + 1, sizeof *notices);
    for (int i = 0; i < w->notice_count; i++)
        notices[i] = (struct control_notice){.id = w->notices[i].id,
                                             .origin = w->notices[i].origin,
                                             .text = w->notices[i].text,
                                             .expiry = w->notices[i].expiry};
    int64_t up_ms = now_ms() - w->started_ms;
    int64_t open = 0;
    for (int s = 0; s < JOB_SETTLED; s++) open += t->by_state[s];
    reply->doc = CONTROL_DOC_STATUS;
    reply->status = (struct control_status){
        .version = KILN_VERSION,
        .state = state_word(w),
        .horde_url = w->config.horde_url,
        .worker_name = w->config.worker_name,
        .alchemist_name = w->config.forms.count ? w->config.alchemist_name : "",
        .bridge_agent = w->config.bridge_agent,
        .user = w->user,
        .server_version = w->server_version,
        .server_knows = drift_text(w),
        .pid = getpid(),
        .uptime_seconds = up_ms / 1000,
        .started_wall_ms = w->started_wall_ms,
        .last_pop_wall_ms = w->images.last_wall_ms,
        .last_job_wall_ms = w->last_job_wall_ms,
        .paused_until_wall_ms = w->gate.paused && w->gate.paused_until_ms
                                    ? now_wall_ms() + w->gate.paused_until_ms - now_ms()
                                    : 0,
        .jobs_open = open,
        .jobs_settled = t->by_state[JOB_SETTLED],
        .jobs_faulted = t->by_state[JOB_FAULTED],
        .jobs_forfeited = t->by_state[JOB_FORFEITED],
        .jobs_hour = budget_jobs_hour(&w->budget),
        .faults_hour = budget_faults_hour(&w->budget),
        .balance_milli = w->balance_milli,
        .earned_milli = t->credited_milli,
        .today_milli = t->today_milli,
        .unexplained_milli = account->unexplained_milli,
        .pending_milli = account->pending_milli,
        .kudos_per_hour = budget_kudos_hour(&w->budget),
        .joules_per_image = t->joules_mean,
        .device_busy = up_ms > 0 && w->engine_count
                           ? (double)w->busy_ms / (double)up_ms / w->engine_count
                           : NAN,
        .resident_bytes = resident_bytes(),
        .engines = engines,
        .engine_count = w->engine_count,
        .reasons = reasons.list,
        .reason_count = reasons.count,
        .notices = notices,
        .notice_count = w->notice_count,
    };
}

void control_fill_why(struct worker *w, struct control_reply *reply)
{
    struct reasons reasons = {.memory = &reply->memory};
    all_reasons(w, &reasons);
    const char *text = NULL;
    for (int i = 0; i < reasons.count && !text; i++)
        if (reasons.list[i].blocks) text = reasons.list[i].text;
    bool busy = false;
    for (const struct job *j = w->jobs; j; j = j->next) busy |= j->engine != NULL;
    if (busy && !text) text = "it is not idle: an engine is at work";
    if (!text && reasons.count)
        text = "the Horde has requests, but none that it would give this worker";
    if (!text) text = "nothing blocks: the Horde has no request for this worker at the moment";
    if (*drift_text(w))
        add_reason(&reasons,
                   (struct control_reason){.gate = "server:swagger", .text = drift_text(w)});
    reply->doc = CONTROL_DOC_WHY;
    reply->why = (struct control_why){.state = state_word(w),
                                      .text = text,
                                      .reasons = reasons.list,
                                      .reason_count = reasons.count};
}

void control_fill_models(struct worker *w, struct control_reply *reply)
{
    struct control_model *list =
        arena_zero(&reply->memory, (size_t)w->model_count + 1, sizeof *list);
    for (int i = 0; i < w->model_count; i++) {
        struct worker_model *m = &w->models[i];
        bool broken = m->broken_until_ms > now_ms();
        list[i] = (struct control_model){.name = m->name,
                                         .family = family_name(m->family),
                                         .path = m->path ? m->path : "",
                                         .state = m->missing ? "missing"
                                                  : broken   ? "quarantined"
                                                             : "ready",
                                         .sha256 = m->sha256,
                                         .jobs = m->jobs,
                                         .offered = m->offered,
                                         .queued_mps = w->demand_known ? m->queued_mps : NAN,
                                         .eta_seconds = w->demand_known ? m->eta_s : NAN,
                                         .kudos_per_second =
                                             m->kudos_per_second > 0 ? m->kudos_per_second : NAN,
                                         .note = broken ? "three failures in a row" : ""};
    }
    reply->doc = CONTROL_DOC_MODELS;
    reply->models = (struct control_models){.list = list, .count = w->model_count};
}
