/* ledger_job.c - rows of jobs: made, moved through the table of states, paid. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/ledger_sql.h"

static int state_of(struct ledger *l, const char *id, enum job_state *state, struct error *err)
{
    sqlite3_stmt *s = ledger_sql(l, "SELECT state FROM job WHERE id = ?", err, "t", id);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) *state = (enum job_state)sqlite3_column_int(s, 0);
    if (s) sqlite3_reset(s);
    if (rc == 0) return error_set(err, ERR_NOT_FOUND, "the ledger knows no job %s", id);
    return rc < 0 ? rc : 0;
}

/* 1 when the row was a form that had been given back: it starts anew, its history stays */
static int given_again(struct ledger *l, const struct ledger_job *j, const void *reply,
                       size_t length, int64_t wall, struct error *err)
{
    enum job_state state = JOB_POPPED;
    int rc = j->form ? state_of(l, j->id, &state, err) : 0;
    if (rc || state != JOB_FAULTED) return rc;
    rc = ledger_event(l, j->id, JOB_EVENT_GIVEN_AGAIN, NULL, err);
    if (!rc)
        rc =
            ledger_run(l, err, NULL,
                       "UPDATE job SET popped_wall_ms = ?, popped_boot_ms = ?, boot = ?, ttl_s = ?,"
                       " spool = '', notes = '', verdict = '', fault = '', told_milli = NULL"
                       " WHERE id = ?",
                       "iitnt", j->popped_wall_ms, j->popped_boot_ms, j->boot, j->ttl_s, j->id);
    if (!rc)
        rc = ledger_run(l, err, NULL, "UPDATE pop SET popped_wall_ms = ?, reply = ? WHERE id = ?",
                        "ibt", wall, reply, length, j->pop);
    return rc ? rc : 1;
}

int ledger_popped(struct ledger *l, const char *pop, const void *reply, size_t length,
                  const struct ledger_job *jobs, int count, int *fresh, struct error *err)
{
    int64_t wall = now_wall_ms(), changed = 0;
    int made = 0;
    int rc = ledger_run(l, err, NULL,
                        "INSERT OR IGNORE INTO pop(id, popped_wall_ms, reply) VALUES(?, ?, ?)",
                        "tib", pop, wall, reply, length);
    for (int i = 0; i < count && !rc; i++) {
        const struct ledger_job *j = &jobs[i];
        rc = ledger_run(l, err, &changed,
                        "INSERT OR IGNORE INTO job(id, pop, batch_index, batch_count, form, what,"
                        " sampler, width_px, height_px, steps, seed, state, popped_wall_ms,"
                        " popped_boot_ms, boot, changed_wall_ms, ttl_s, base64)"
                        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
                        "ttnnnttnnniiitinn", j->id, pop, j->batch_index, j->batch_count,
                        (int)j->form, j->what, j->sampler, j->width_px, j->height_px, j->steps,
                        (int64_t)j->seed, j->popped_wall_ms, j->popped_boot_ms, j->boot, wall,
                        j->ttl_s, (int)j->base64);
        made += (int)changed;
        if (rc || changed) continue;
        rc = given_again(l, j, reply, length, wall, err);
        if (rc == 1) rc = 0, made++;
    }
    if (!rc && fresh) *fresh = made;
    return rc;
}

int ledger_reply(struct ledger *l, const char *pop, struct buf *reply, struct error *err)
{
    sqlite3_stmt *s =
        ledger_sql(l, "SELECT reply FROM pop WHERE id = ? AND reply IS NOT NULL", err, "t", pop);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1)
        rc = buf_append(reply, sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0), err);
    else if (rc == 0)
        rc = error_set(err, ERR_NOT_FOUND, "the reply of pop %s is not kept", pop);
    if (s) sqlite3_reset(s);
    return rc;
}

int ledger_event(struct ledger *l, const char *id, enum job_event event, const char *note,
                 struct error *err)
{
    enum job_state now = JOB_POPPED, next = JOB_POPPED;
    int64_t wall = now_wall_ms();
    int rc = state_of(l, id, &now, err);
    if (!rc) rc = job_state_next(&next, now, event, err);
    if (rc) return error_wrap(err, rc, "job %s", id);
    rc = ledger_run(l, err, NULL,
                    "UPDATE job SET state = ?, changed_wall_ms = ?, tries = tries + ?"
                    " WHERE id = ?",
                    "nint", (int)next, wall,
                    event == JOB_EVENT_SENT || event == JOB_EVENT_FAULT_SENT, id);
    if (!rc)
        rc = ledger_run(l, err, NULL,
                        "INSERT INTO step(job, event, state, wall_ms, note) VALUES(?, ?, ?, ?, ?)",
                        "tnnit", id, (int)event, (int)next, wall, note);
    if (!rc && job_state_is_final(next)) /* the prompt goes with the last job of its pop */
        rc =
            ledger_run(l, err, NULL,
                       "UPDATE pop SET reply = NULL WHERE id = (SELECT pop FROM job WHERE id = ?)"
                       " AND NOT EXISTS (SELECT 1 FROM job j WHERE j.pop = pop.id AND j.state < 6)",
                       "t", id);
    return rc;
}

int ledger_checked(struct ledger *l, const char *id, const char *spool, const char *verdict,
                   const char *notes, double seconds, double joules, struct error *err)
{
    return ledger_run(l, err, NULL,
                      "UPDATE job SET spool = ?, verdict = ?, notes = ?, seconds = ?, joules = ?"
                      " WHERE id = ?",
                      "tttddt", spool, verdict, notes, seconds, joules, id);
}

int ledger_fault(struct ledger *l, const char *id, const char *reason, struct error *err)
{
    char clean[256];
    str_clean(clean, sizeof clean, reason);
    return ledger_run(l, err, NULL, "UPDATE job SET fault = ? WHERE id = ?", "tt", clean, id);
}

int ledger_intent(struct ledger *l, const char *id, enum ledger_effect effect, struct error *err)
{
    return ledger_run(l, err, NULL,
                      "INSERT INTO effect(job, effect, intent_wall_ms) VALUES(?, ?, ?)", "tni", id,
                      (int)effect, now_wall_ms());
}

int ledger_result(struct ledger *l, const char *id, enum ledger_effect effect, int status,
                  const char *text, struct error *err)
{
    return ledger_run(l, err, NULL,
                      "UPDATE effect SET result_wall_ms = ?, status = ?, text = ? WHERE seq ="
                      " (SELECT max(seq) FROM effect WHERE job = ? AND effect = ?)",
                      "inttn", now_wall_ms(), status, text, id, (int)effect);
}

int ledger_earn(struct ledger *l, const char *id, int64_t reward_milli, int factor_milli,
                struct error *err)
{
    struct ledger_job j;
    int rc = ledger_job_get(l, id, &j, err);
    if (rc) return rc;
    struct ledger_posting p = {.milli = reward_milli, .certainty = POSTING_EXACT};
    str_copy(p.job, sizeof p.job, id);
    str_copy(p.kind, sizeof p.kind, j.form ? "alchemy" : "earned");
    if (reward_milli < 0) {
        p.milli = 0;
        p.certainty = POSTING_PENDING;
        str_copy(p.note, sizeof p.note, "paid, the amount was lost with the reply");
    }
    rc = ledger_post(l, &p, err);
    if (!rc && reward_milli >= 0)
        rc = ledger_run(l, err, NULL, "UPDATE job SET told_milli = ? WHERE id = ?", "it",
                        reward_milli, id);
    /* alchemy has no multiplier (horde-api 5.5) */
    if (!rc && reward_milli > 0 && !j.form && factor_milli != 1000) {
        str_copy(p.kind, sizeof p.kind, "corrected");
        p.milli =
            (reward_milli * factor_milli + 500) / 1000 - reward_milli; /* as the Horde rounds */
        p.certainty = POSTING_ESTIMATED;
        snprintf(p.note, sizeof p.note, "the Horde credits this bridge name %d.%03d of the reward",
                 factor_milli / 1000, factor_milli % 1000);
        rc = ledger_post(l, &p, err);
    }
    return rc;
}

/* ---- reading ---- */

#define JOB_COLUMNS                                                                                \
    "id, pop, batch_index, batch_count, form, what, sampler, width_px, height_px, steps, seed,"    \
    " state, popped_wall_ms, popped_boot_ms, boot, changed_wall_ms, ttl_s, base64, spool, notes,"  \
    " verdict, fault, seconds, joules, tries, told_milli"

static void read_job(sqlite3_stmt *s, struct ledger_job *j)
{
    int c = 0;
    memset(j, 0, sizeof *j);
    ledger_column(s, c++, j->id, sizeof j->id);
    ledger_column(s, c++, j->pop, sizeof j->pop);
    j->batch_index = sqlite3_column_int(s, c++);
    j->batch_count = sqlite3_column_int(s, c++);
    j->form = sqlite3_column_int(s, c++) != 0;
    ledger_column(s, c++, j->what, sizeof j->what);
    ledger_column(s, c++, j->sampler, sizeof j->sampler);
    j->width_px = sqlite3_column_int(s, c++);
    j->height_px = sqlite3_column_int(s, c++);
    j->steps = sqlite3_column_int(s, c++);
    j->seed = (uint64_t)sqlite3_column_int64(s, c++);
    j->state = (enum job_state)sqlite3_column_int(s, c++);
    j->popped_wall_ms = sqlite3_column_int64(s, c++);
    j->popped_boot_ms = sqlite3_column_int64(s, c++);
    ledger_column(s, c++, j->boot, sizeof j->boot);
    j->changed_wall_ms = sqlite3_column_int64(s, c++);
    j->ttl_s = sqlite3_column_int(s, c++);
    j->base64 = sqlite3_column_int(s, c++) != 0;
    ledger_column(s, c++, j->spool, sizeof j->spool);
    ledger_column(s, c++, j->notes, sizeof j->notes);
    ledger_column(s, c++, j->verdict, sizeof j->verdict);
    ledger_column(s, c++, j->fault, sizeof j->fault);
    j->seconds = ledger_column_real(s, c++);
    j->joules = ledger_column_real(s, c++);
    j->tries = sqlite3_column_int(s, c++);
    j->told_milli = sqlite3_column_type(s, c) == SQLITE_NULL ? -1 : sqlite3_column_int64(s, c);
}

int ledger_each_open(struct ledger *l, int (*each)(void *ctx, const struct ledger_job *job),
                     void *ctx, struct error *err)
{
    sqlite3_stmt *s = ledger_sql(
        l,
        "SELECT " JOB_COLUMNS " FROM job WHERE state < 6 ORDER BY popped_wall_ms, pop, batch_index",
        err, "");
    int rc = s ? 1 : ERR_IO;
    while (rc == 1 && (rc = ledger_step(l, s, err)) == 1) {
        struct ledger_job j;
        read_job(s, &j);
        int stop = each(ctx, &j);
        if (stop) rc = stop;
    }
    if (s) sqlite3_reset(s);
    return rc;
}

int ledger_job_get(struct ledger *l, const char *id, struct ledger_job *job, struct error *err)
{
    sqlite3_stmt *s = ledger_sql(l, "SELECT " JOB_COLUMNS " FROM job WHERE id = ?", err, "t", id);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) read_job(s, job);
    if (s) sqlite3_reset(s);
    if (rc == 0) return error_set(err, ERR_NOT_FOUND, "the ledger knows no job %s", id);
    return rc < 0 ? rc : 0;
}

int ledger_jobs(struct ledger *l, int state, const char *id, int limit, struct ledger_job **list,
                int *count, int64_t *total, struct error *err)
{
    sqlite3_stmt *s = ledger_sql(
        l, "SELECT count(*) FROM job WHERE (?1 < 0 OR state = ?1) AND (?2 IS NULL OR id = ?2)", err,
        "nt", state, id);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) *total = sqlite3_column_int64(s, 0);
    if (s) sqlite3_reset(s);
    if (rc < 0) return rc;
    s = ledger_sql(l,
                   "SELECT " JOB_COLUMNS
                   " FROM job WHERE (?1 < 0 OR state = ?1) AND (?2 IS NULL OR id = ?2)"
                   " ORDER BY seq DESC LIMIT ?3",
                   err, "ntn", state, id, limit);
    struct ledger_job *rows = alloc_zero((size_t)limit + 1, sizeof *rows);
    int found = 0;
    rc = s ? 1 : ERR_IO;
    while (rc == 1 && found < limit && (rc = ledger_step(l, s, err)) == 1)
        read_job(s, &rows[found++]);
    if (s) sqlite3_reset(s);
    if (rc < 0) {
        free(rows);
        return rc;
    }
    *list = rows;
    *count = found;
    return 0;
}
