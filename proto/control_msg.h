/*
 * control_msg.h - what kiln asks kilnd, and the documents it gets back.
 *
 * Place    one JSON document a frame (frame.h, FRAME_CONTROL_MAX) on the Unix socket `control`.
 *          A client sends one request a connection or many, each is answered once, in order.
 * Owner    To send: fill a zeroed struct with borrowed pointers. Received: *_release.
 * Failure  ERR_FORMAT naming the field. A request the daemon cannot serve is answered by the
 *          error document: CONTROL_DOC_ERROR.
 *
 * The document is JSON as the structs below say: a member has the name of its field; lists are
 * arrays; times are UTC milliseconds since 1970 (`*_wall_ms`), kudos are integer thousandths
 * (`*_milli`); NAN is null; every document has "document" with its name. `kiln X --json` prints it
 * as it came. Never a key, a prompt or an upload URL.
 *
 * A live view of progress: CONTROL_STATUS again; no push.
 */
#ifndef PROTO_CONTROL_MSG_H
#define PROTO_CONTROL_MSG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

#define CONTROL_KIND_TABLE(X)                                                                      \
    X(STATUS, "status")                                                                            \
    X(JOBS, "jobs")     /* limit, state */                                                         \
    X(LEDGER, "ledger") /* limit, since_wall_ms */                                                 \
    X(WORKERS, "workers")                                                                          \
    X(MODELS, "models")                                                                            \
    X(WHY, "why")                                                                                  \
    X(PAUSE, "pause") /* now, for_seconds, text = reason */                                        \
    X(RESUME, "resume")                                                                            \
    X(RELOAD, "reload")                                                                            \
    X(MAINTENANCE, "maintenance") /* now = on or off, text = message */                            \
    X(SPENT, "spent") /* kudos_milli, job, text: a request the CLI paid for, to be booked */

enum control_kind {
#define X(name, text) CONTROL_##name,
    CONTROL_KIND_TABLE(X)
#undef X
        CONTROL_KIND_COUNT
};
const char *control_kind_name(enum control_kind k);

struct control_request { /* {"request": "pause", "now": true, "for_seconds": 600} */
    struct arena memory; /* received ones */
    enum control_kind kind;
    bool now;
    int64_t for_seconds;   /* 0: until resume */
    int64_t limit;         /* rows; 0: the daemon's default (100) */
    int64_t since_wall_ms; /* 0: no bound */
    int64_t kudos_milli;
    const char *state; /* jobs in this state only; NULL: all */
    const char *job;   /* NULL: all */
    const char *text;  /* NULL: none */
};

int control_request_encode(const struct control_request *r, struct buf *out, struct error *err);
int control_request_decode(struct control_request *r, const uint8_t *payload, size_t length,
                           struct error *err);
void control_request_release(struct control_request *r);

/* ---- documents -------------------------------------------------------------------------- */

#define CONTROL_DOC_TABLE(X)                                                                       \
    X(DONE, "done")                                                                                \
    X(ERROR, "error")                                                                              \
    X(STATUS, "status")                                                                            \
    X(JOBS, "jobs")                                                                                \
    X(LEDGER, "ledger")                                                                            \
    X(WORKERS, "workers")                                                                          \
    X(MODELS, "models")                                                                            \
    X(WHY, "why")

enum control_doc {
#define X(name, text) CONTROL_DOC_##name,
    CONTROL_DOC_TABLE(X)
#undef X
        CONTROL_DOC_COUNT
};

struct control_reason { /* one gate that keeps the worker from working, or a hint from `skipped` */
    const char *gate;   /* fixed word: paused schedule battery disk temperature foreign_use
                           user_active   no_model safety_unavailable engine_down maintenance key faults
                           server:bridge_version ... */
    const char *text;   /* a sentence */
    bool blocks;        /* false: only a hint */
    int64_t count;      /* of `skipped`; 0 */
    int64_t until_wall_ms; /* 0: unknown */
};

struct control_done { /* pause, resume, reload, maintenance, spent */
    const char *text;
};

struct control_failure {
    const char *code; /* error_word(): "not found" ... */
    const char *text;
};

struct control_engine {
    const char *device, *title, *state; /* starting idle loading busy stopped dead */
    const char *model;                  /* "" when none */
    const char *job;                    /* "" when idle */
    const char *phase;                  /* engine_phase_name */
    int64_t pid, launch_id, restarts;
    int64_t step, steps;
    int64_t memory_bytes, free_bytes;
    double temperature_c, watts; /* NAN: not measured */
};

struct control_notice { /* messages from the Horde's moderators, cleaned */
    const char *id, *origin, *text, *expiry;
};

struct control_status {
    const char *version, *state; /* running paused draining maintenance starting */
    const char *horde_url, *worker_name, *alchemist_name, *bridge_agent, *user;
    const char *server_version;
    const char *server_knows; /* what its description said, in a sentence; "" */
    int64_t pid, uptime_seconds, started_wall_ms;
    int64_t last_pop_wall_ms, last_job_wall_ms;
    int64_t paused_until_wall_ms; /* 0: not paused, or without end */
    int64_t jobs_open, jobs_settled, jobs_faulted, jobs_forfeited; /* counts since ever but open */
    int64_t jobs_hour, faults_hour;
    int64_t balance_milli;             /* last figure from the Horde; 0 until known */
    int64_t earned_milli, today_milli; /* own books */
    int64_t unexplained_milli, pending_milli;
    double kudos_per_hour, joules_per_image, device_busy; /* busy 0..1 over the last hour; NAN */
    int64_t resident_bytes;                               /* of kilnd */
    struct control_engine *engines;
    int engine_count;
    struct control_reason *reasons; /* why it is idle; none while it works */
    int reason_count;
    struct control_notice *notices;
    int notice_count;
};

struct control_job {
    const char *id;
    const char *kind; /* image, form, own */
    const char
        *state; /* POPPED READY GENERATING CHECKED UPLOADED SUBMITTING SETTLED FAULTED FORFEITED */
    const char *model, *form, *sampler;
    int64_t width, height, steps, batch_index, batch_count;
    int64_t popped_wall_ms, changed_wall_ms, ttl_seconds;
    int64_t reward_milli;   /* as told */
    int64_t credited_milli; /* as we expect it */
    const char *certainty;  /* exact, estimated, reconciled; "" before the end */
    double seconds, joules; /* of the engine; NAN */
    const char *error;      /* "" or why it faulted */
};

struct control_jobs {
    struct control_job *list; /* newest first */
    int count;
    int64_t total;
};

struct control_posting {
    int64_t id, wall_ms;
    const char *kind;    /* earned alchemy uptime spent transferred corrected */
    const char *job;     /* "" when none */
    int64_t kudos_milli; /* signed */
    const char *certainty;
    const char *note;
};

struct control_sum {
    const char *kind;
    int64_t kudos_milli, count;
};

struct control_ledger {
    struct control_posting *list; /* newest first */
    int count;
    int64_t total;
    struct control_sum *sums; /* by kind, over everything */
    int sum_count;
    int64_t balance_milli;              /* own books: sum of all postings */
    int64_t told_milli, credited_milli; /* of settled jobs */
    int64_t server_milli;               /* the Horde's figure at the last reconciliation */
    int64_t explained_milli, pending_milli, unexplained_milli;
    int64_t reconciled_wall_ms; /* 0: never */
    const char *verdict;        /* a sentence about the reconciliation; "" */
};

struct control_worker {
    const char *id, *name, *type, *team, *info;
    bool online, maintenance, trusted, ours; /* ours: this daemon's */
    int64_t fulfilled, uncompleted, uptime_seconds, models;
    double kudos, speed_mps;
};

struct control_workers {
    struct control_worker *list;
    int count;
    const char *user;
    int64_t balance_milli;
};

struct control_model {
    const char *name, *family, *path,
        *state; /* resident ready missing quarantined loading refused */
    const char *sha256;
    int64_t bytes, jobs;
    bool offered;
    double queued_mps, eta_seconds, kudos_per_second; /* NAN: unknown */
    const char *note;
};

struct control_models {
    struct control_model *list;
    int count;
};

struct control_why {
    const char *state;
    const char *text; /* one sentence: the answer */
    struct control_reason *reasons;
    int reason_count;
};

struct control_reply {
    struct arena memory; /* received ones */
    enum control_doc doc;
    union {
        struct control_done done;
        struct control_failure error;
        struct control_status status;
        struct control_jobs jobs;
        struct control_ledger ledger;
        struct control_workers workers;
        struct control_models models;
        struct control_why why;
    };
};

/* Appends one whole frame. NULL texts go out as "". ERR_NO_MEMORY when it would pass the cap. */
int control_reply_encode(const struct control_reply *r, struct buf *out, struct error *err);
/* The same document as readable JSON with a line end, no frame: `--json` without a daemon. */
int control_reply_print(const struct control_reply *r, struct buf *out, struct error *err);
int control_reply_decode(struct control_reply *r, const uint8_t *payload, size_t length,
                         struct error *err);
void control_reply_release(struct control_reply *r);

#endif
