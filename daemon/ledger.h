/*
 * ledger.h - the books: what was popped, what became of it, what it earned.
 *
 * Place    last step of a job, and the first: nothing happens to a job before it stands here.
 * Owner    ledger_open / ledger_close; one connection, ever, on the clerk's thread (clerk.h).
 *          Tests use it directly.
 * Failure  ERR_IO for the disk (the sentence has SQLite's word), ERR_BUSY when another kilnd holds
 *          the folder, ERR_UNSUPPORTED for a newer schema, ERR_INTERNAL for what the table of
 *          states refuses, ERR_NOT_FOUND for a job nobody knows.
 * Source   reliability section 2 (L1-L11). SQLite: WAL, synchronous=FULL, STRICT, trusted_schema
 *          off, no mmap.
 *
 * Kudos are integer thousandths. Postings are only ever added, one of a kind for a job. A file
 * `postings.journal` beside the database repeats each posting, flushed before the commit, so that a
 * damaged database loses none (L9). Times are wall clock; a deadline that must survive a restart
 * also keeps the boot's id and its clock.
 *
 * Every writing call belongs into ledger_begin ... ledger_commit; ledger_mark/ledger_back_to undo
 * one of several tasks that share a commit.
 */
#ifndef DAEMON_LEDGER_H
#define DAEMON_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "daemon/job_state.h"

#define LEDGER_SCHEMA 1
#define LEDGER_ID_BYTES 64
#define LEDGER_BACKUPS_KEPT 7
#define LEDGER_BALLAST_BYTES (4 << 20)

enum posting_certainty { POSTING_EXACT, POSTING_ESTIMATED, POSTING_RECONCILED, POSTING_PENDING };
const char *posting_certainty_name(enum posting_certainty c);

struct ledger;

struct ledger_options {
    size_t ballast_bytes; /* 0: LEDGER_BALLAST_BYTES */
};

int ledger_open(struct ledger **l, const char *folder, const struct ledger_options *options,
                struct error *err);
void ledger_close(struct ledger *l);
/* What happened while opening that a person should know ("restored from ..."); NULL: nothing. */
const char *ledger_news(const struct ledger *l);

int ledger_begin(struct ledger *l, struct error *err);
int ledger_commit(struct ledger *l, struct error *err);
void ledger_rollback(struct ledger *l);
int ledger_mark(struct ledger *l, struct error *err);
void ledger_drop_mark(struct ledger *l);
void ledger_back_to(struct ledger *l);

/* ---- jobs ---- */

struct ledger_job { /* one image of a pop, or one form */
    char id[LEDGER_ID_BYTES], pop[LEDGER_ID_BYTES];
    int batch_index, batch_count;
    bool form;        /* alchemy */
    char what[256];   /* model, or the form's name */
    char sampler[32]; /* "" for forms */
    int width_px, height_px, steps;
    uint64_t seed;
    enum job_state state;
    int64_t popped_wall_ms, popped_boot_ms, changed_wall_ms;
    char boot[40];
    int ttl_s;
    bool base64;            /* the Horde gave no upload URL */
    char spool[80];         /* file name below spool/; "" none */
    char notes[2048];       /* gen_metadata, "type value ref" lines */
    char verdict[16];       /* ok nsfw csam censored; "" before */
    char fault[256];        /* "" or why it is given up */
    double seconds, joules; /* NAN until measured */
    int tries;              /* submits that left */
    int64_t told_milli;     /* -1: none */
};

/* The reply as it came and a row for each id, all POPPED (L2). Ids already known are kept as they
 * are: the same reply twice is one job; only a form that was given back (FAULTED) and is given again
 * starts anew. `fresh` rows that are to be done. */
int ledger_popped(struct ledger *l, const char *pop, const void *reply, size_t length,
                  const struct ledger_job *jobs, int count, int *fresh, struct error *err);
/* ERR_NOT_FOUND once every job of the pop has ended: the reply holds a prompt and is not kept. */
int ledger_reply(struct ledger *l, const char *pop, struct buf *reply, struct error *err);

/* Applies the table; `note` may be NULL. */
int ledger_event(struct ledger *l, const char *id, enum job_event event, const char *note,
                 struct error *err);
/* Before a PASSED event. */
int ledger_checked(struct ledger *l, const char *id, const char *spool, const char *verdict,
                   const char *notes, double seconds, double joules, struct error *err);
int ledger_fault(struct ledger *l, const char *id, const char *reason, struct error *err);

/* L3: what is about to be done outside, and what came of it. */
enum ledger_effect { EFFECT_ENGINE, EFFECT_UPLOAD, EFFECT_SUBMIT };
int ledger_intent(struct ledger *l, const char *id, enum ledger_effect effect, struct error *err);
int ledger_result(struct ledger *l, const char *id, enum ledger_effect effect, int status,
                  const char *text, struct error *err);

/* A job's told reward and its posting(s): `earned` (or `alchemy`) as told, and the factor that
 * the server applies to our bridge name as an estimated correction. reward_milli < 0: paid, but
 * the amount was lost: pending. */
int ledger_earn(struct ledger *l, const char *id, int64_t reward_milli, int factor_milli,
                struct error *err);

/* ---- postings ---- */

struct ledger_posting {
    int64_t seq, wall_ms;
    char job[LEDGER_ID_BYTES]; /* "" when none: then several of a kind are fine */
    char kind[16];             /* earned alchemy uptime spent transferred corrected */
    int64_t milli;
    enum posting_certainty certainty;
    char note[200];
};
/* The same (job, kind) again is no error and adds nothing. */
int ledger_post(struct ledger *l, const struct ledger_posting *p, struct error *err);

/* ---- reading ---- */

/* Calls `each` for every open job, oldest first, batches together. */
int ledger_each_open(struct ledger *l, int (*each)(void *ctx, const struct ledger_job *job),
                     void *ctx, struct error *err);
int ledger_job_get(struct ledger *l, const char *id, struct ledger_job *job, struct error *err);
/* Newest first. state < 0: all; id NULL: all. Returns rows; *total of all that match. */
int ledger_jobs(struct ledger *l, int state, const char *id, int limit, struct ledger_job **list,
                int *count, int64_t *total, struct error *err);
int ledger_postings(struct ledger *l, int64_t since_wall_ms, int limit,
                    struct ledger_posting **list, int *count, int64_t *total, struct error *err);

struct ledger_sum {
    char kind[16];
    int64_t milli, count;
};
struct ledger_totals {
    struct ledger_sum sums[8];
    int sum_count;
    int64_t balance_milli; /* of all postings */
    int64_t told_milli, credited_milli, pending_count;
    int64_t today_milli;
    int64_t by_state[JOB_STATE_COUNT];
    double joules_mean; /* of settled images that were measured; NAN */
};
int ledger_totals(struct ledger *l, int64_t today_wall_ms, struct ledger_totals *t,
                  struct error *err);

/* ---- reconciliation (L11) ---- */

struct ledger_figure { /* what the Horde shows at one moment */
    int64_t wall_ms, kudos_milli;
    bool trusted;
};
struct ledger_account {
    int64_t wall_ms, server_milli, server_delta_milli;
    int64_t told_milli, explained_milli, pending_milli, unexplained_milli;
    bool alarm;
    char verdict[200];
};
/* Compares with the figure before. The first figure only starts the series. */
int ledger_reconcile(struct ledger *l, const struct ledger_figure *figure,
                     struct ledger_account *account, struct error *err);
/* The last one; ERR_NOT_FOUND before the first. */
int ledger_account(struct ledger *l, struct ledger_account *account, struct error *err);

/* ---- keeping ---- */

/* Outside a transaction: VACUUM INTO, fsync, rename; the oldest beyond LEDGER_BACKUPS_KEPT go. */
int ledger_backup(struct ledger *l, struct error *err);
int64_t ledger_last_backup_wall_ms(const struct ledger *l);
/* Free bytes of the ledger's disk; -1 when unknown. */
int64_t ledger_free_bytes(const struct ledger *l);
/* After ERR_NO_MEMORY: gives the ballast up, so that the same transaction can be tried again and
 * the jobs in flight end well. ledger_refill takes it back when there is room. */
void ledger_make_room(struct ledger *l);
bool ledger_is_tight(const struct ledger *l);
void ledger_refill(struct ledger *l);

/* ---- the spool: checked images on their way (L6) ---- */

/* Writes, fsyncs, and names the file after the job. */
int ledger_spool_write(struct ledger *l, const char *id, const void *bytes, size_t length,
                       char name[80], struct error *err);
int ledger_spool_read(struct ledger *l, const char *name, struct buf *bytes, struct error *err);
void ledger_spool_remove(struct ledger *l, const char *name);
/* Removes files that belong to no open job; how many. */
int ledger_spool_sweep(struct ledger *l);

#endif
