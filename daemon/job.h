/*
 * job.h - what one pop gave: some images of one request, or one alchemy form.
 *
 * Place    pop makes it, prepare fills it, dispatch gives it to an engine, upload and submit bring
 *          each image home, the ledger has the last word.
 * Owner    the worker's list; a job frees itself when all its images have ended and nothing it
 *          started is still out. Loop thread.
 * Failure  every way out of a job is an event of job_state.h: paid, given back as faulted, or
 *          forfeited. Nothing is done outside before the ledger has it (L3).
 * Source   reliability L1-L7, E1-E3, S1-S3; horde-api 9, 10.
 */
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include "daemon/ledger.h"
#include "daemon/page.h"
#include "daemon/worker.h"
#include "proto/horde_interrogate.h"
#include "proto/horde_submit.h"

#define JOB_NOTES_BYTES 2048
#define JOB_RUNS_MAX 2                      /* times an engine may die over it, or a check break */
#define JOB_DEADLINE_SPARE_S 15             /* before the Horde's own deadline */
#define JOB_PAYABLE_MS (2 * 60 * 60 * 1000) /* after its deadline nobody pays any more */

struct job;

struct job_image {
    struct job *job;
    char id[HORDE_ID_BYTES];
    int index;
    enum job_state state;
    const char *upload_url; /* in the job; NULL: base64 */
    struct blob bytes;      /* until uploaded; empty when only the spool has it */
    char spool[80];
    char verdict[16];            /* ok nsfw csam, or censored */
    char notes[JOB_NOTES_BYTES]; /* "type value ref" lines */
    char fault[256];             /* "" or why it is given up */
    char doom[256];              /* a fault that waits for the page at the clerk */
    struct backoff backoff;
    struct alarm alarm;
    struct http_call *call;
    double seconds; /* of the engine */
    int tries;      /* submits that left, also before a restart */
    bool busy;      /* the clerk has a page about it */
    bool ended;
};

struct job {
    struct worker *w;
    struct job *next, **back;
    char pop[HORDE_ID_BYTES];
    bool form;
    struct horde_job horde; /* images */
    bool has_horde;
    struct horde_forms forms; /* a form: list[0] */
    bool has_forms;
    char what[256]; /* model or form */
    int width_px, height_px, steps, work_steps;
    uint64_t seed;
    struct job_image images[HORDE_BATCH_MAX];
    int count;
    int64_t popped_ms, popped_wall_ms; /* now_ms, now_wall_ms */
    int64_t asked_ms;                  /* when the pop left; 0 when it was not this run's */
    int ttl_s;
    bool recovered;

    struct blob source, mask; /* fetched or decoded */
    struct http_call *fetch;
    int fetch_tries;
    bool fetched; /* it waited for somebody else's server */
    struct alarm fetch_alarm;
    int adapters_open; /* LoRAs and embeddings on their way (adapters.h) */
    void (*adapters_then)(struct job *job);
    struct alarm adapters_alarm;
    char notes[JOB_NOTES_BYTES]; /* of the whole job, before it has images */

    struct engine_process *engine; /* while GENERATING */
    uint64_t launch_id;
    int turn; /* times it was given: late words about an earlier turn are not about this one */
    int64_t given_ms, begun_ms; /* to the engine; when it said that it is at it */
    int runs;
    enum engine_phase phase;
    int step, step_count;
    double step_at;
    bool lean;    /* memory ran out once */
    char *result; /* a form's answer, as the body of its submit */
    int pages;    /* at the clerk */
};

/* ---- life ---- */

struct job *job_new(struct worker *w, const char *pop);
/* Frees it when nothing is left to do. Call last. */
void job_settle(struct job *job);
void job_free_all(struct worker *w);
struct job *job_find(struct worker *w, const char *pop);

/* Reads the reply; fills the job and its images. Of several forms, the job takes the one whose id is
 * its pop (the first, when it has none yet). ERR_FORMAT when it cannot be trusted. */
int job_read_reply(struct job *job, const void *reply, size_t length, struct error *err);
void job_rows(const struct job *job, struct ledger_job rows[HORDE_BATCH_MAX]);
int64_t job_deadline_ms(const struct job *job); /* now_ms; the Horde's own less the spare */
bool job_in_state(const struct job *job, enum job_state state); /* any image still open */
bool job_is_open_for_engine(const struct job *job);             /* before CHECKED */

/* ---- steps; each leads to the next by itself ---- */

void job_prepare(struct job *job); /* POPPED: sources, LoRAs, refusals; then READY */
void dispatch(struct worker *w);   /* READY jobs to engines that have room */
/* Tells the engine that is free first which model comes after what it has. */
void dispatch_foresee(struct worker *w);
/* Somebody needs the machine: jobs leave their engines at the next step and wait, models leave memory.
 * What is nearly done may finish; called again while it lasts. */
void dispatch_park(struct worker *w, const char *why);
void dispatch_unpark(struct worker *w);
/* A prepared job straight to an engine when one has room and no other waits: a commit less. */
bool dispatch_at_once(struct job *job);
/* An engine is gone (outcome.h: what one says). */
void dispatch_gone(struct worker *w, struct engine_process *e, uint64_t launch_id, const char *why);
void dispatch_ready(struct worker *w, struct engine_process *e);
/* Every few seconds: what ran out of time is given back, and an engine that sits on it replaced. */
void dispatch_overdue(struct worker *w);
/* GENERATING images with their bytes and verdicts: into spool and ledger, then up. */
void job_checked(struct job *job, double seconds, double joules);
void upload_start(struct job_image *image);
void upload_read_spool(struct job_image *image, void (*then)(struct job_image *image));
void submit_start(struct job_image *image); /* UPLOADED (or a fault): to the Horde */
/* How long the speed governor still holds it. */
int64_t submit_wait_ms(const struct job_image *image);
/* The Horde answers again: whoever waits for it tries soon. */
void submit_wake(struct worker *w);

/* The clerk is done with a page about the job's images. */
void job_page_back(struct job *job);
/* Gives an image, or all open ones, back to the Horde with a reason. */
void job_fault_image(struct job_image *image, const char *reason);
void job_fault(struct job *job, const char *reason);

void job_note(char notes[JOB_NOTES_BYTES], enum metadata_type type, enum metadata_value value,
              const char *ref);
/* Breakers: three failures in a row of a model, or of jobs with one feature, take it from the offer
 * for half an hour. */
void job_blame(struct job *job);
void job_praise(struct job *job);

/* recover.c: open rows of the ledger become jobs again; `done` when all were read. */
void recover_start(struct worker *w);

#endif
