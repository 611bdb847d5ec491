#include "daemon/worker.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/account.h"
#include "daemon/adapters.h"
#include "daemon/choice.h"
#include "daemon/control.h"
#include "daemon/demand.h"
#include "daemon/job.h"
#include "daemon/metrics.h"
#include "daemon/notify.h"
#include "daemon/outcome.h"
#include "daemon/pop.h"
#include "daemon/recheck.h"
#include "daemon/seat.h"

#define LOOK_MS 1000
#define BACKUP_LOOK_MS (10 * 60 * 1000)
#define BACKUP_EVERY_MS (24 * 60 * 60 * 1000LL)
#define FAULTS_GRACE_MS 1500 /* for the faults of a drain that is over */
#define ENGINE_GRACE_MS 1500

static void leave(struct worker *w);

/* ---- making ---- */

static void read_boot(struct worker *w)
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && fgets(w->boot, sizeof w->boot, f)) w->boot[strcspn(w->boot, "\n")] = 0;
    if (f) fclose(f);
}

static void list_hosts(struct worker *w)
{
    unsigned count = w->config.upload_hosts.count;
    free(w->upload_hosts);
    w->upload_hosts = alloc_zero(count + 1, sizeof *w->upload_hosts);
    for (unsigned i = 0; i < count; i++) w->upload_hosts[i] = w->config.upload_hosts.items[i];
}

static struct http_options http_options_of(const struct worker *w)
{
    return (struct http_options){.horde_url = w->config.horde_url,
                                 .api_key = w->config.api_key,
                                 .client_agent = KILN_BRIDGE_AGENT,
                                 .rule = {.loopback = w->config.horde_loopback,
                                          .hosts = (const char *const *)w->upload_hosts}};
}

static enum log_level level_of(const char *word)
{
    static const char *const words[] = {"error", "warn", "info", "debug"};
    for (int i = 0; i < 4; i++)
        if (str_equal(words[i], word)) return (enum log_level)i;
    return LOG_INFO;
}

/* the configured one, else the one that lies beside this program or its installation, else by PATH */
static char *engine_program(const struct worker *w)
{
    if (*w->config.engine_path) return alloc_string(w->config.engine_path);
    char *path = data_path_program("kiln-engine");
    return path ? path : alloc_string("kiln-engine");
}

static void on_ready(void *data, struct engine_process *e)
{
    dispatch_ready(data, e);
}

static void on_message(void *data, struct engine_process *e, struct engine_msg *m)
{
    outcome_message(data, e, m);
}

static void on_gone(void *data, struct engine_process *e, uint64_t launch_id, const char *why)
{
    dispatch_gone(data, e, launch_id, why);
}

static void make_engines(struct worker *w)
{
    static const struct engine_events events = {on_ready, on_message, on_gone};
    const struct config_list *d = &w->config.devices;
    char *program = engine_program(w);
    const char *usual = access("/dev/nvidia0", F_OK) ? "cpu" : "cuda:0";
    w->engine_count = d->count ? (int)d->count : 1;
    for (int i = 0; i < w->engine_count; i++) {
        struct engine_options o = {.program = program,
                                   .device = d->count ? d->items[i] : usual,
                                   .precision = w->config.precision,
                                   .cache = w->folders.cache};
        w->engines[i] = engine_process_new(w->loop, w->alarms, &o, &events, w);
    }
    free(program);
}

int worker_check_config(const struct config *c, struct error *err)
{
    struct capability_set built = capability_built();
    int rc = capability_check_agent(&built, c->bridge_agent, err);
    /* exit 78, not 77: it is the configuration that is wrong */
    return rc ? error_wrap(err, ERR_INVALID, "bridge_agent") : 0;
}

int worker_new(struct worker **worker, uv_loop_t *loop, const char *config_path, struct error *err)
{
    struct worker *w = alloc_zero(1, sizeof *w);
    w->loop = loop;
    w->config_path = alloc_string(config_path);
    w->started_ms = now_ms();
    w->started_wall_ms = now_wall_ms();
    int rc = config_load(&w->config, config_path, true, err);
    if (!rc) rc = worker_check_config(&w->config, err);
    if (rc) {
        config_release(&w->config);
        free(w->config_path);
        free(w);
        return rc;
    }
    log_set_level(level_of(w->config.log_level));
    if (w->config.ignored) log_warn("config.ignored", "keys=\"%s\"", w->config.ignored);
    if (w->config
            .safety_on_gpu) /* the check runs where the model runs: there is nothing to choose */
        log_info("config.without_effect",
                 "key=safety_on_gpu text=\"the safety check runs on the engine's device\"");
    read_boot(w);
    list_hosts(w);
    *worker = w;
    return 0;
}

/* ---- the regular looks ---- */

/* What is urgent puts jobs aside at once; they come back when no gate is shut, or end by their time. */
static void look_after_parking(struct worker *w)
{
    for (int k = 0; k < GATE_COUNT; k++)
        if (gate_is_urgent((enum gate_kind)k) && gate_is_shut(&w->gate, (enum gate_kind)k)) {
            char said[300];
            gate_tell(said, sizeof said, &w->gate, (enum gate_kind)k, &w->config);
            dispatch_park(w, said);
            return;
        }
    if (gate_is_open(&w->gate))
        dispatch_unpark(w);
    else if (w->parked)
        dispatch_park(w, "somebody needs the machine"); /* what was let finish and does not */
}

/* Both kinds of people: at terminals, at the desktop; NAN when there are none. */
static double user_idle_s(const struct worker *w)
{
    if (!w->config.user_idle_min) return NAN;
    return fmin(gate_user_idle_s("/dev"),
                seat_idle_s(w->seat)); /* fmin takes the one that is known */
}

static void look_at_seat(struct worker *w)
{
    struct error err = {0};
    if (w->config.user_idle_min && !w->seat && seat_start(&w->seat, &err))
        log_info("gate.user", "text=\"%s\"", err.text);
    if (!w->config.user_idle_min) {
        seat_stop(w->seat);
        w->seat = NULL;
    }
}

static void on_look(void *data)
{
    struct worker *w = data;
    struct gate_facts facts = {.disk_free_bytes = clerk_disk_free_bytes(w->clerk),
                               .disk_tight = clerk_disk_tight(w->clerk),
                               .foreign_use = NAN,
                               .temperature_c = NAN,
                               .user_idle_s = user_idle_s(w)};
    for (int i = 0; i < w->engine_count; i++) {
        const struct engine_heartbeat *beat = engine_process_heartbeat(w->engines[i]);
        if (beat && !isnan(beat->foreign_use) && !(facts.foreign_use > beat->foreign_use))
            facts.foreign_use = beat->foreign_use;
        if (beat && !isnan(beat->temperature_c) && !(facts.temperature_c > beat->temperature_c))
            facts.temperature_c = beat->temperature_c;
    }
    bool changed = gate_look(&w->gate, &w->config, &facts);
    if (changed)
        for (int k = 0; k < GATE_COUNT; k++)
            if (gate_is_shut(&w->gate, (enum gate_kind)k))
                log_info("gate.shut", "gate=%s", gate_name((enum gate_kind)k));
    look_after_parking(w);
    alarm_set(w->alarms, &w->dispatching, LOOK_MS, on_look, w);
    dispatch_overdue(w);
    dispatch(w);
    worker_look(w);
}

static void on_stats(void *data)
{
    struct worker *w = data;
    log_info("stats", "settled=%lld faulted=%lld kudos_hour=%.1f faults_hour=%d",
             (long long)w->settled_run, (long long)w->faulted_run, budget_kudos_hour(&w->budget),
             budget_faults_hour(&w->budget));
    alarm_set(w->alarms, &w->stats, w->config.stats_output_s * 1000, on_stats, w);
}

static void on_watchdog(void *data)
{
    struct worker *w = data;
    if (clerk_quiet_ms(w->clerk) < 30000) notify_send("WATCHDOG=1");
    alarm_set(w->alarms, &w->watchdog, notify_watchdog_ms(), on_watchdog, w);
}

static int apply_backup(struct ledger *l, void *data, struct error *err)
{
    if (now_wall_ms() - ledger_last_backup_wall_ms(l) < BACKUP_EVERY_MS) return 0;
    return ledger_backup(l, err);
}

static void on_backup(void *data)
{
    struct worker *w = data;
    clerk_give_alone(w->clerk, apply_backup, NULL, NULL);
    alarm_set(w->alarms, &w->backup, BACKUP_LOOK_MS, on_backup, w);
}

void worker_look(struct worker *w)
{
    if (w->phase == WORKER_LEAVING) return;
    pop_look(&w->images);
    pop_look(&w->forms);
    worker_maybe_end(w);
}

void worker_heard(struct worker *w, int status)
{
    if (status == 0 || status >= 500) {
        if (outage_silent(&w->outage))
            log_warn("horde.silent",
                     "status=%d text=\"three tries without an answer; one at a time now\"", status);
    } else if (outage_answered(&w->outage)) {
        log_info("horde.back", "text=\"the Horde answers again\"");
        submit_wake(w);
        worker_look(w);
    }
}

/* ---- starting ---- */

int worker_start(struct worker *w, struct error *err)
{
    struct ledger *ledger = NULL;
    const char *state = *w->config.state_dir ? w->config.state_dir : NULL;
    const char *cache = *w->config.cache_home ? w->config.cache_home : NULL;
    int rc = folders_init(&w->folders, state, cache, err);
    if (!rc) rc = folders_make(&w->folders, err);
    if (!rc) rc = ledger_open(&ledger, w->folders.state, NULL, err);
    if (rc) return rc;
    if (ledger_news(ledger)) log_warn("ledger.mended", "text=\"%s\"", ledger_news(ledger));
    rc = clerk_start(&w->clerk, w->loop, ledger, err);
    if (rc) {
        ledger_close(ledger);
        return rc;
    }
    w->alarms = alarms_start(w->loop);
    recover_start(w); /* the clerk reads while the rest starts */
    struct http_options options = http_options_of(w);
    rc = http_start(&w->http, w->loop, &options, err);
    if (!rc) rc = adapters_start(&w->adapters, w, err);
    if (!rc) rc = control_start(&w->control, w, err);
    if (rc) return rc;
    pop_start(&w->images, w, false);
    pop_start(&w->forms, w, true);
    worker_read_models(w);
    look_at_seat(w);
    make_engines(w);
    for (int i = 0; i < w->engine_count; i++) engine_process_start(w->engines[i]);
    on_look(w);
    account_start(w);
    demand_start(w);
    choice_start(w);
    drift_start(w);
    recheck_start(w);
    metrics_start(&w->metrics, w, (int)w->config.metrics_port);
    if (w->config.stats_output_s)
        alarm_set(w->alarms, &w->stats, w->config.stats_output_s * 1000, on_stats, w);
    if (notify_watchdog_ms()) on_watchdog(w);
    alarm_set(w->alarms, &w->backup, BACKUP_LOOK_MS, on_backup, w);
    log_info("kilnd.started", "version=%s horde=%s worker=\"%s\" agent=\"%s\" models=%d engines=%d",
             KILN_VERSION, w->config.horde_url, w->config.worker_name, w->config.bridge_agent,
             w->model_count, w->engine_count);
    notify_send("READY=1\nSTATUS=Waiting for jobs of %s", w->config.horde_url);
    return 0;
}

/* ---- reloading: all or nothing ---- */

int worker_reload(struct worker *w, struct error *err)
{
    struct config fresh;
    notify_send("RELOADING=1");
    int rc = config_load(&fresh, w->config_path, true, err);
    if (!rc && (rc = worker_check_config(&fresh, err))) config_release(&fresh);
    if (!rc && *fresh.state_dir && !str_equal(fresh.state_dir, w->config.state_dir)) {
        config_release(&fresh);
        rc = error_set(err, ERR_INVALID, "state_dir cannot change while kilnd runs");
    }
    notify_send("READY=1");
    if (rc) {
        log_error("config.kept", "text=\"%s\"", err ? err->text : "");
        return rc;
    }
    bool engines = fresh.devices.count != w->config.devices.count ||
                   !str_equal(fresh.engine_path, w->config.engine_path) ||
                   !str_equal(fresh.precision, w->config.precision);
    bool port = fresh.metrics_port != w->config.metrics_port;
    struct config old = w->config;
    w->config = fresh;
    list_hosts(w);
    config_release(&old);
    struct http_options options = http_options_of(w);
    http_change(w->http, &options, NULL);
    worker_read_models(w);
    if (port) {
        metrics_stop(w->metrics);
        w->metrics = NULL;
        metrics_start(&w->metrics, w, (int)w->config.metrics_port);
    }
    look_at_seat(w);
    log_set_level(level_of(w->config.log_level));
    log_info("config.read", "models=%d%s", w->model_count,
             engines ? " text=\"devices, engine_path and precision count from the next start\""
                     : "");
    for (int i = 0; i < w->engine_count; i++) engine_process_mend(w->engines[i]);
    pop_forgive(&w->images);
    pop_forgive(&w->forms);
    return 0;
}

/* ---- leaving ---- */

static void on_grace_over(void *data)
{
    leave(data);
}

static void on_drain_over(void *data)
{
    struct worker *w = data;
    if (w->drain_over) return;
    w->drain_over = true;
    pop_stop(&w->images);
    pop_stop(&w->forms);
    for (struct job *j = w->jobs, *next; j; j = next) {
        next = j->next;
        if (job_is_open_for_engine(j)) job_fault(j, "kilnd is stopping");
    }
    /* what is checked and cannot be handed in now is in the spool: the next start goes on */
    alarm_set(w->alarms, &w->drain, FAULTS_GRACE_MS, on_grace_over, w);
    worker_maybe_end(w);
}

void worker_leave(struct worker *w)
{
    if (w->phase == WORKER_LEAVING) return;
    if (w->phase == WORKER_DRAINING) {
        log_info("kilnd.drain", "text=\"second signal: what is left is given back now\"");
        on_drain_over(w);
        return;
    }
    w->phase = WORKER_DRAINING;
    int jobs = 0;
    for (struct job *j = w->jobs; j; j = j->next) jobs++;
    log_info("kilnd.drain", "jobs=%d seconds=%lld", jobs, (long long)w->config.drain_s);
    notify_send("STOPPING=1\nSTATUS=Finishing %d jobs\nEXTEND_TIMEOUT_USEC=%lld", jobs,
                (long long)(w->config.drain_s + 10) * 1000000);
    alarm_set(w->alarms, &w->drain, w->config.drain_s * 1000, on_drain_over, w);
    worker_maybe_end(w);
}

/* from the loop, not from inside the callback that finished the last job */
static void on_nothing_left(void *data)
{
    struct worker *w = data;
    if (w->jobs || w->images.call || w->forms.call || clerk_waiting(w->clerk))
        worker_maybe_end(w);
    else
        leave(w);
}

void worker_maybe_end(struct worker *w)
{
    if (w->phase != WORKER_DRAINING || w->recovering) return;
    if (w->jobs || w->images.call || w->forms.call) return;
    alarm_set(w->alarms, &w->ending, 5, on_nothing_left, w);
}

static void on_engine_freed(void *data)
{
    struct worker *w = data;
    if (--w->engine_count) return;
    alarms_stop(w->alarms);
    w->alarms = NULL;
    uv_stop(w->loop);
}

static void leave(struct worker *w)
{
    if (w->phase == WORKER_LEAVING) return;
    w->phase = WORKER_LEAVING;
    clerk_stop(w->clerk); /* what is written is written; its last answers come now */
    w->clerk = NULL;
    adapters_stop(w->adapters);
    w->adapters = NULL;
    job_free_all(w);
    pop_stop(&w->images);
    pop_stop(&w->forms);
    control_stop(w->control);
    metrics_stop(w->metrics);
    seat_stop(w->seat);
    w->seat = NULL;
    http_stop(w->http);
    struct alarm *all[] = {&w->dispatching, &w->account,     &w->stats,     &w->drain,
                           &w->watchdog,    &w->backup,      &w->probe,     &w->demand,
                           &w->ending,      &w->drift.alarm, &w->rechecking};
    for (unsigned i = 0; i < COUNT_OF(all); i++) alarm_drop(all[i]);
    log_info("kilnd.leaving", "settled=%lld faulted=%lld", (long long)w->settled_run,
             (long long)w->faulted_run);
    for (int i = 0, count = w->engine_count; i < count; i++)
        engine_process_stop(w->engines[i], ENGINE_GRACE_MS, on_engine_freed, w);
}

void worker_free(struct worker *w)
{
    if (!w) return;
    for (int i = 0; i < w->model_count; i++) {
        free(w->models[i].name);
        free(w->models[i].path);
    }
    free(w->models);
    free(w->upload_hosts);
    drift_release(&w->drift);
    folders_release(&w->folders);
    config_release(&w->config);
    free(w->config_path);
    free(w);
}
