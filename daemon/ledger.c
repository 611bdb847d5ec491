#include "daemon/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "config/folders.h"
#include "daemon/ledger_sql.h"

static const char *const certainties[] = {"exact", "estimated", "reconciled", "pending"};

const char *posting_certainty_name(enum posting_certainty c)
{
    return (unsigned)c < COUNT_OF(certainties) ? certainties[c] : "?";
}

char *ledger_path(const struct ledger *l, const char *name)
{
    return alloc_printf("%s/%s", l->folder, name);
}

void ledger_tell(struct ledger *l, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *more = alloc_printf("%s%s%s", l->news ? l->news : "", l->news ? "; " : "", text);
    free(l->news);
    l->news = more;
}

const char *ledger_news(const struct ledger *l)
{
    return l->news;
}

/* ---- statements ---- */

int ledger_sql_error(struct ledger *l, const char *doing, struct error *err)
{
    int code = sqlite3_errcode(l->db);
    if (code == SQLITE_FULL || (code == SQLITE_IOERR && sqlite3_system_errno(l->db) == ENOSPC))
        return error_set(err, ERR_NO_MEMORY, "%s the ledger: the disk is full", doing);
    return error_set(err, ERR_IO, "%s the ledger: %s", doing, sqlite3_errmsg(l->db));
}

int ledger_exec(sqlite3 *db, const char *sql, struct error *err)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK) return 0;
    int code = sqlite3_errcode(db) == SQLITE_FULL ? ERR_NO_MEMORY : ERR_IO;
    return error_set(err, code, "ledger: %s", sqlite3_errmsg(db));
}

static sqlite3_stmt *prepared(struct ledger *l, const char *sql, struct error *err)
{
    for (int i = 0; i < l->cached; i++)
        if (l->cache[i].sql == sql) {
            sqlite3_reset(l->cache[i].statement);
            sqlite3_clear_bindings(l->cache[i].statement);
            return l->cache[i].statement;
        }
    KILN_ASSERT(l->cached < LEDGER_STATEMENTS_MAX, "more statements than places");
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v3(l->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK) {
        ledger_sql_error(l, "preparing a statement of", err);
        return NULL;
    }
    l->cache[l->cached].sql = sql;
    l->cache[l->cached++].statement = s;
    return s;
}

static sqlite3_stmt *bound(struct ledger *l, const char *sql, struct error *err,
                           const char *letters, va_list args)
{
    sqlite3_stmt *s = prepared(l, sql, err);
    if (!s) return NULL;
    for (int i = 1; *letters; letters++, i++) {
        if (*letters == 't') {
            const char *text = va_arg(args, const char *);
            if (text) sqlite3_bind_text(s, i, text, -1, SQLITE_TRANSIENT);
        } else if (*letters == 'i') {
            sqlite3_bind_int64(s, i, va_arg(args, int64_t));
        } else if (*letters == 'n') {
            sqlite3_bind_int(s, i, va_arg(args, int));
        } else if (*letters == 'd') {
            double value = va_arg(args, double);
            if (!isnan(value)) sqlite3_bind_double(s, i, value);
        } else if (*letters == 'b') {
            const void *bytes = va_arg(args, const void *);
            sqlite3_bind_blob64(s, i, bytes, va_arg(args, size_t), SQLITE_STATIC);
        }
    }
    return s;
}

sqlite3_stmt *ledger_sql(struct ledger *l, const char *sql, struct error *err, const char *letters,
                         ...)
{
    va_list args;
    va_start(args, letters);
    sqlite3_stmt *s = bound(l, sql, err, letters, args);
    va_end(args);
    return s;
}

int ledger_step(struct ledger *l, sqlite3_stmt *s, struct error *err)
{
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) return 1;
    int rc = code == SQLITE_DONE ? 0 : ledger_sql_error(l, "using", err);
    sqlite3_reset(s);
    return rc;
}

int ledger_run(struct ledger *l, struct error *err, int64_t *changed, const char *sql,
               const char *letters, ...)
{
    va_list args;
    va_start(args, letters);
    sqlite3_stmt *s = bound(l, sql, err, letters, args);
    va_end(args);
    if (!s) return err ? err->code : ERR_IO;
    int rc = ledger_step(l, s, err);
    sqlite3_reset(s);
    if (rc < 0) return rc;
    if (changed) *changed = sqlite3_changes(l->db);
    return 0;
}

void ledger_column(sqlite3_stmt *s, int column, char *to, size_t room)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    str_copy(to, room, text ? text : "");
}

double ledger_column_real(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

/* ---- transactions ---- */

int ledger_begin(struct ledger *l, struct error *err)
{
    buf_clear(&l->journal);
    return ledger_run(l, err, NULL, "BEGIN IMMEDIATE", "");
}

void ledger_rollback(struct ledger *l)
{
    buf_clear(&l->journal);
    if (!sqlite3_get_autocommit(l->db)) ledger_run(l, NULL, NULL, "ROLLBACK", "");
}

/* journal first: what it says and the database lacks is the same posting again after a restart */
int ledger_commit(struct ledger *l, struct error *err)
{
    int rc = ledger_journal_flush(l, err);
    if (!rc) rc = ledger_run(l, err, NULL, "COMMIT", "");
    if (rc) ledger_rollback(l);
    return rc;
}

int ledger_mark(struct ledger *l, struct error *err)
{
    l->journal_mark = l->journal.length;
    return ledger_run(l, err, NULL, "SAVEPOINT task", "");
}

void ledger_drop_mark(struct ledger *l)
{
    ledger_run(l, NULL, NULL, "RELEASE task", "");
}

void ledger_back_to(struct ledger *l)
{
    l->journal.length = l->journal_mark;
    ledger_run(l, NULL, NULL, "ROLLBACK TO task", "");
    ledger_run(l, NULL, NULL, "RELEASE task", "");
}

/* ---- open and close ---- */

static int take_lock(struct ledger *l, struct error *err)
{
    char *path = ledger_path(l, "lock");
    int rc = 0;
    l->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    /* a killed kilnd's child may hold it for the moment between fork and exec */
    int held = 0;
    for (int tries = 0; l->lock_fd >= 0 && tries < 20; tries++) {
        held = flock(l->lock_fd, LOCK_EX | LOCK_NB);
        if (!held) break;
        usleep(25000);
    }
    if (l->lock_fd < 0)
        rc = error_set_errno(err, ERR_IO, errno, "opening %s", path);
    else if (held)
        rc = error_set(err, ERR_BUSY, "another kilnd uses %s", l->folder);
    free(path);
    return rc;
}

int ledger_open(struct ledger **ledger, const char *folder, const struct ledger_options *options,
                struct error *err)
{
    struct ledger *l = alloc_zero(1, sizeof *l);
    l->folder = alloc_string(folder);
    l->lock_fd = l->journal_fd = -1;
    l->ballast_bytes =
        options && options->ballast_bytes ? options->ballast_bytes : LEDGER_BALLAST_BYTES;
    buf_init(&l->journal, 64 << 20);
    char *spool = ledger_path(l, "spool"), *backup = ledger_path(l, "backup");
    int rc = folders_make_one(spool, 0700, err);
    if (!rc) rc = folders_make_one(backup, 0700, err);
    free(spool);
    free(backup);
    if (!rc) rc = take_lock(l, err);
    if (!rc) rc = ledger_connect(l, err);
    if (rc) {
        ledger_close(l);
        return rc;
    }
    ledger_ballast_make(l);
    *ledger = l;
    return 0;
}

void ledger_close(struct ledger *l)
{
    if (!l) return;
    for (int i = 0; i < l->cached; i++) sqlite3_finalize(l->cache[i].statement);
    if (l->db) sqlite3_close(l->db);
    if (l->journal_fd >= 0) close(l->journal_fd);
    if (l->lock_fd >= 0) close(l->lock_fd);
    buf_release(&l->journal);
    free(l->news);
    free(l->folder);
    free(l);
}
