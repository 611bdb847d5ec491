/*
 * worker.h - kilnd's one owner: configuration, loop, network, ledger, engines, jobs.
 *
 * Place    made by kilnd.c; every other file of the daemon works on a part of it.
 * Owner    worker_new / worker_free. The loop's thread alone; the ledger behind it is the clerk's.
 * Failure  worker_start: as config, ledger and socket fail; main turns it into an exit code.
 */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <uv.h>

#include "config/config.h"
#include "config/folders.h"
#include "daemon/alarm.h"
#include "daemon/backoff.h"
#include "daemon/budget.h"
#include "daemon/clerk.h"
#include "daemon/drift.h"
#include "daemon/engine_process.h"
#include "daemon/gate.h"
#include "daemon/http.h"
#include "daemon/outage.h"
#include "proto/capability.h"
#include "proto/horde_pop.h"

#define WORKER_ENGINES_MAX 16
#define WORKER_MODELS_MAX HORDE_MODELS_MAX
#define WORKER_NOTICES_MAX 16
#define WORKER_SKIPPED_MAX 24
#define WORKER_AHEAD_MAX 16

struct job;
struct control;
struct adapters;
struct metrics;
struct recheck;
struct seat;

enum worker_phase { WORKER_RUNNING, WORKER_DRAINING, WORKER_LEAVING };

struct worker_model { /* something the worker may offer */
    char *name, *path;
    enum family family;
    bool missing; /* no file */
    int failures; /* in a row; 3 open the breaker */
    int64_t broken_until_ms;
    int64_t jobs;
    bool offered;                               /* in the last pop */
    double queued_mps, eta_s, kudos_per_second; /* the Horde's demand; what it earns here */
    char sha256[68];
};

/* What a job may use beside its model: three failures in a row of jobs that use one take it from the
 * offer for half an hour. */
enum worker_feature { FEATURE_LORA, FEATURE_CONTROL, FEATURE_POST, FEATURE_SOURCE, FEATURE_COUNT };

struct worker_notice {
    char id[64], origin[64], text[512], expiry[64];
};

struct worker_skipped {
    char name[32];
    int64_t count;
};

/* One per kind of work: the image worker and the alchemist pop on their own. */
struct popper {
    struct worker *w;
    bool form;
    struct alarm alarm;
    struct http_call *call;
    int storing; /* jobs on their way into the ledger: at most one reply can be lost */
    struct backoff trouble;
    int64_t idle_ms; /* wait after an empty reply */
    int64_t last_ms; /* when the last left; -1 never */
    int64_t last_wall_ms, asked;
    bool stopped; /* only the operator can change that */
    int64_t stopped_until_ms;
    char why_stopped[256];
    bool maintenance; /* the Horde has this worker in maintenance */
    char notice[256]; /* what the Horde said last; "" when all is well */
    bool drop_priority;
    struct worker_skipped skipped[WORKER_SKIPPED_MAX];
    int skipped_count;
};

struct worker {
    uv_loop_t *loop;
    char *config_path;
    struct config config;
    struct folders folders;
    const char **upload_hosts; /* NULL-terminated, into config */
    struct alarms *alarms;
    struct http *http;
    struct clerk *clerk;
    struct control *control;
    struct adapters *adapters;
    struct metrics *metrics; /* NULL: off */
    struct seat *seat;       /* NULL: user_idle_minutes is 0, or logind cannot be asked */
    struct recheck *recheck; /* NULL: no file is being read again */
    struct alarm rechecking;
    struct engine_process *engines[WORKER_ENGINES_MAX];
    int engine_count;
    struct worker_model *models;
    int model_count;
    struct popper images, forms;
    struct gate gate;
    struct budget budget;
    struct job *jobs; /* newest first */
    struct alarm dispatching, account, stats, drain, watchdog, backup, probe, demand, choice,
        ending;
    struct outage outage;
    struct drift drift;
    enum worker_phase phase;
    bool drain_over, recovering, parked;
    int64_t parked_ms; /* since when */
    int exit_code;

    /* what the Horde says about the owner */
    char user[128], server_version[32];
    bool known, trusted, demand_known;
    int64_t balance_milli;
    struct ledger_account account_last;
    bool account_known;
    int64_t postings_at_account;
    struct worker_notice notices[WORKER_NOTICES_MAX];
    int notice_count;

    int64_t started_ms, started_wall_ms, last_job_wall_ms;
    int64_t settled_run, faulted_run, told_run_milli; /* since the start */
    double added_s, joules_run; /* from pop to submit beside the computing; measured */
    int64_t added_count;
    char boot[40];
    double speed[WORKER_ENGINES_MAX];   /* pixel-steps a second, smoothed; 0 unknown */
    double pace_ms[WORKER_ENGINES_MAX]; /* an engine's time for a job, smoothed; 0 unknown */
    struct {
        const struct worker_model *model;
        uint64_t launch_id;
    } foreseen[WORKER_ENGINES_MAX]; /* what each engine was told last to prepare */
    double lead_ms;                 /* from asking for a job to having it ready, smoothed */
    struct {
        int failures;
        int64_t broken_until_ms;
    } features[FEATURE_COUNT];
    int64_t pixels_most, pixels_until_ms; /* after memory ran out: less for an hour (E2) */
    int64_t busy_ms;                      /* engines' computing time since the start */
};

int worker_new(struct worker **w, uv_loop_t *loop, const char *config_path, struct error *err);
int worker_start(struct worker *w, struct error *err);
void worker_free(struct worker *w); /* after the loop ended */

/* What config_load cannot know: a bridge_agent that promises more than Kiln can do. */
int worker_check_config(const struct config *c, struct error *err);
/* The Horde answered (anything below 500) or did not; wakes who waits when an outage is over. */
void worker_heard(struct worker *w, int status);
/* SIGTERM: the first drains, the second faults what is left at once. */
void worker_leave(struct worker *w);
/* All or nothing; the old configuration stays when the new one does not do. */
int worker_reload(struct worker *w, struct error *err);
/* Something changed (capacity, gates, engines): look again at what can be done. */
void worker_look(struct worker *w);
/* Engines are gone, books are closed: the loop ends. */
void worker_maybe_end(struct worker *w);

/* What can be done now: built, by the engines present, allowed by the configuration. */
/* Readable, and not marked as fetched without a known hash (reliability F5), unless the Horde is ours. */
bool worker_may_use(const struct worker *w, const char *path);
/* The same for a post-processor's weights; true where there are none: the engine knows that. */
bool worker_may_use_post(const struct worker *w, const char *name);
struct capability_set worker_able(const struct worker *w);
bool worker_has_safety(const struct worker *w);
struct worker_model *worker_find_model(struct worker *w, const char *name);
int worker_capacity(const struct worker *w); /* images or forms that may be open before CHECKED */
/* Jobs that wait behind the running ones of that engine: queue_size, and more while jobs are so short
 * that getting the next takes longer. */
int worker_ahead(const struct worker *w, int engine);
struct engine_process *worker_any_engine(const struct worker *w); /* READY, or NULL */
int worker_engine_index(const struct worker *w, const struct engine_process *e);
/* Where a model of that name lies here, for the caller to free; NULL: nowhere. */
char *worker_model_path(const struct worker *w, const char *name);
void worker_read_models(struct worker *w);

#endif
