/* ledger_post.c - postings, their sums, and whether the Horde's figure agrees with them (L4, L11).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/ledger_sql.h"

int ledger_post(struct ledger *l, const struct ledger_posting *posting, struct error *err)
{
    struct ledger_posting p = *posting;
    int64_t changed = 0;
    if (!p.wall_ms) p.wall_ms = now_wall_ms();
    int rc = ledger_run(l, err, &changed,
                        "INSERT INTO posting(job, kind, milli, certainty, wall_ms, note)"
                        " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        "ttinit", p.job[0] ? p.job : NULL, p.kind, p.milli, (int)p.certainty,
                        p.wall_ms, p.note);
    if (rc || !changed) return rc;
    p.seq = sqlite3_last_insert_rowid(l->db);
    return ledger_journal_note(l, &p, err);
}

int ledger_postings(struct ledger *l, int64_t since_wall_ms, int limit,
                    struct ledger_posting **list, int *count, int64_t *total, struct error *err)
{
    sqlite3_stmt *s =
        ledger_sql(l, "SELECT count(*) FROM posting WHERE wall_ms >= ?", err, "i", since_wall_ms);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) *total = sqlite3_column_int64(s, 0);
    if (s) sqlite3_reset(s);
    if (rc < 0) return rc;
    s = ledger_sql(l,
                   "SELECT seq, wall_ms, job, kind, milli, certainty, note FROM posting"
                   " WHERE wall_ms >= ? ORDER BY seq DESC LIMIT ?",
                   err, "in", since_wall_ms, limit);
    struct ledger_posting *rows = alloc_zero((size_t)limit + 1, sizeof *rows);
    int found = 0;
    rc = s ? 1 : ERR_IO;
    while (rc == 1 && found < limit && (rc = ledger_step(l, s, err)) == 1) {
        struct ledger_posting *p = &rows[found++];
        p->seq = sqlite3_column_int64(s, 0);
        p->wall_ms = sqlite3_column_int64(s, 1);
        ledger_column(s, 2, p->job, sizeof p->job);
        ledger_column(s, 3, p->kind, sizeof p->kind);
        p->milli = sqlite3_column_int64(s, 4);
        p->certainty = (enum posting_certainty)sqlite3_column_int(s, 5);
        ledger_column(s, 6, p->note, sizeof p->note);
    }
    if (s) sqlite3_reset(s);
    if (rc < 0) {
        free(rows);
        return rc;
    }
    *list = rows;
    *count = found;
    return 0;
}

static int read_one(struct ledger *l, int64_t *value, const char *sql, int64_t argument,
                    struct error *err)
{
    sqlite3_stmt *s = ledger_sql(l, sql, err, "i", argument);
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) *value = sqlite3_column_int64(s, 0);
    if (s) sqlite3_reset(s);
    return rc < 0 ? rc : 0;
}

int ledger_totals(struct ledger *l, int64_t today_wall_ms, struct ledger_totals *totals,
                  struct error *err)
{
    struct ledger_totals t = {.joules_mean = NAN};
    sqlite3_stmt *s = ledger_sql(
        l, "SELECT kind, sum(milli), count(*) FROM posting GROUP BY kind ORDER BY kind", err, "");
    int rc = s ? 1 : ERR_IO;
    while (rc == 1 && t.sum_count < (int)COUNT_OF(t.sums) && (rc = ledger_step(l, s, err)) == 1) {
        struct ledger_sum *sum = &t.sums[t.sum_count++];
        ledger_column(s, 0, sum->kind, sizeof sum->kind);
        sum->milli = sqlite3_column_int64(s, 1);
        sum->count = sqlite3_column_int64(s, 2);
        t.balance_milli += sum->milli;
    }
    if (s) sqlite3_reset(s);
    s = rc < 0 ? NULL : ledger_sql(l, "SELECT state, count(*) FROM job GROUP BY state", err, "");
    if (rc >= 0) rc = s ? 1 : ERR_IO;
    while (rc == 1 && (rc = ledger_step(l, s, err)) == 1) {
        int state = sqlite3_column_int(s, 0);
        if (state >= 0 && state < JOB_STATE_COUNT) t.by_state[state] = sqlite3_column_int64(s, 1);
    }
    if (s) sqlite3_reset(s);
    if (rc < 0) return rc;
    rc = read_one(l, &t.told_milli,
                  "SELECT coalesce(sum(milli), 0) FROM posting WHERE ?1 IS NOT NULL AND job IS NOT"
                  " NULL AND kind IN ('earned', 'alchemy')",
                  0, err);
    if (!rc)
        rc = read_one(l, &t.credited_milli,
                      "SELECT coalesce(sum(milli), 0) FROM posting WHERE ?1 IS NOT NULL AND job IS"
                      " NOT NULL AND kind IN ('earned', 'alchemy', 'corrected')",
                      0, err);
    if (!rc)
        rc = read_one(l, &t.pending_count, "SELECT count(*) FROM posting WHERE certainty = ?",
                      POSTING_PENDING, err);
    if (!rc)
        rc = read_one(l, &t.today_milli,
                      "SELECT coalesce(sum(milli), 0) FROM posting WHERE wall_ms >= ?"
                      " AND kind IN ('earned', 'alchemy', 'uptime', 'corrected')",
                      today_wall_ms, err);
    s = rc ? NULL : ledger_sql(l, "SELECT avg(joules) FROM job WHERE state = 6", err, "");
    if (s && ledger_step(l, s, err) == 1) t.joules_mean = ledger_column_real(s, 0);
    if (s) sqlite3_reset(s);
    if (!rc) *totals = t;
    return rc;
}

/* ---- reconciliation ---- */

static int last_account(struct ledger *l, struct ledger_account *a, int64_t *posting_seq,
                        struct error *err)
{
    sqlite3_stmt *s = ledger_sql(l,
                                 "SELECT wall_ms, server_milli, server_delta_milli, told_milli,"
                                 " explained_milli, pending_milli, unexplained_milli, alarm,"
                                 " verdict, posting_seq FROM account ORDER BY seq DESC LIMIT 1",
                                 err, "");
    int rc = s ? ledger_step(l, s, err) : ERR_IO;
    if (rc == 1) {
        memset(a, 0, sizeof *a);
        a->wall_ms = sqlite3_column_int64(s, 0);
        a->server_milli = sqlite3_column_int64(s, 1);
        a->server_delta_milli = sqlite3_column_int64(s, 2);
        a->told_milli = sqlite3_column_int64(s, 3);
        a->explained_milli = sqlite3_column_int64(s, 4);
        a->pending_milli = sqlite3_column_int64(s, 5);
        a->unexplained_milli = sqlite3_column_int64(s, 6);
        a->alarm = sqlite3_column_int(s, 7) != 0;
        ledger_column(s, 8, a->verdict, sizeof a->verdict);
        *posting_seq = sqlite3_column_int64(s, 9);
    }
    if (s) sqlite3_reset(s);
    if (rc == 0) return error_set(err, ERR_NOT_FOUND, "nothing was reconciled yet");
    return rc < 0 ? rc : 0;
}

int ledger_account(struct ledger *l, struct ledger_account *account, struct error *err)
{
    int64_t seq;
    return last_account(l, account, &seq, err);
}

/* An untrusted owner's images go half into escrow. The server's balance is whole and folded every
 * few seconds, so half a kudo for each posting may be missing, and what was told in the last
 * minute may not have arrived: it waits as pending. */
int ledger_reconcile(struct ledger *l, const struct ledger_figure *figure,
                     struct ledger_account *account, struct error *err)
{
    struct ledger_account before,
        now = {.wall_ms = figure->wall_ms, .server_milli = figure->kudos_milli};
    int64_t seq_before = 0, seq = 0, folds = 0, image_milli = 0, other_milli = 0;
    int rc = last_account(l, &before, &seq_before, err);
    bool first = rc == ERR_NOT_FOUND;
    if (rc && !first) return rc;
    rc = read_one(l, &seq, "SELECT coalesce(max(seq), 0) FROM posting WHERE ?1 = 0", 0, err);
    sqlite3_stmt *s =
        rc ? NULL
           : ledger_sql(l,
                        "SELECT count(DISTINCT job),"
                        " coalesce(sum(CASE WHEN kind = 'earned' THEN milli ELSE 0 END), 0),"
                        " coalesce(sum(CASE WHEN kind IN ('earned', 'corrected') AND job IS NOT "
                        "NULL THEN milli ELSE 0 END), 0),"
                        " coalesce(sum(CASE WHEN kind NOT IN ('earned', 'corrected') THEN milli "
                        "ELSE 0 END), 0)"
                        " FROM posting WHERE seq > ? AND seq <= ?",
                        err, "ii", first ? seq : seq_before, seq);
    if (!rc) rc = s && ledger_step(l, s, err) == 1 ? 0 : ERR_IO;
    if (!rc) {
        folds = sqlite3_column_int64(s, 0);
        now.told_milli = sqlite3_column_int64(s, 1);
        image_milli = sqlite3_column_int64(s, 2);
        other_milli = sqlite3_column_int64(s, 3);
    }
    if (s) sqlite3_reset(s);
    if (rc) return rc;
    if (!first) {
        now.server_delta_milli = now.server_milli - before.server_milli;
        int64_t expected =
            (figure->trusted ? image_milli : image_milli / 2) + other_milli + before.pending_milli;
        int64_t difference = now.server_delta_milli - expected;
        int64_t slack = 500 * folds + 1000;
        /* what is missing may still be on its way, once; what is too much is unexplained at once */
        if (difference < -slack && !before.pending_milli) {
            now.pending_milli = -difference;
            difference = 0;
        }
        now.explained_milli = now.server_delta_milli - difference;
        now.unexplained_milli = difference;
        bool silent = now.told_milli > 2000 && now.server_delta_milli == 0 && !now.pending_milli;
        now.alarm = llabs(difference) > slack || silent;
        snprintf(now.verdict, sizeof now.verdict, "%s",
                 silent ? "rewards were told and nothing was credited: the worker may be paused"
                 : now.alarm         ? "the Horde's balance moved by more than the books explain"
                 : now.pending_milli ? "rewards told lately are not in the balance yet"
                                     : "agrees");
    } else {
        str_copy(now.verdict, sizeof now.verdict, "first figure");
    }
    rc = ledger_run(
        l, err, NULL,
        "INSERT INTO account(wall_ms, server_milli, server_delta_milli, told_milli,"
        " explained_milli, pending_milli, unexplained_milli, alarm, verdict, posting_seq)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "iiiiiiinti", now.wall_ms, now.server_milli, now.server_delta_milli, now.told_milli,
        now.explained_milli, now.pending_milli, now.unexplained_milli, (int)now.alarm, now.verdict,
        seq);
    if (!rc && account) *account = now;
    return rc;
}
