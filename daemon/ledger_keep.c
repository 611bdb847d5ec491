/* ledger_keep.c - opening, migrating, mending, backing up, and room on the disk (L8, L9, L10). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/ledger_sql.h"

/* a larger ledger that was closed in order is not read through at the start */
#define CHECK_BYTES_MAX (16 << 20)

/* one entry a version: migrations[v] brings a database from version v to v + 1 */
static const char *const migrations[LEDGER_SCHEMA] = {
    "CREATE TABLE pop("
    "  id TEXT PRIMARY KEY,"
    "  popped_wall_ms INTEGER NOT NULL,"
    "  reply BLOB) STRICT, WITHOUT ROWID;" /* NULL once its jobs have ended: it holds a prompt */
    "CREATE TABLE job("
    "  seq INTEGER PRIMARY KEY,"
    "  id TEXT NOT NULL UNIQUE,"
    "  pop TEXT NOT NULL REFERENCES pop(id),"
    "  batch_index INTEGER NOT NULL, batch_count INTEGER NOT NULL,"
    "  form INTEGER NOT NULL CHECK(form IN (0, 1)),"
    "  what TEXT NOT NULL, sampler TEXT NOT NULL,"
    "  width_px INTEGER NOT NULL, height_px INTEGER NOT NULL, steps INTEGER NOT NULL,"
    "  seed INTEGER NOT NULL," /* the 64 bits, signed */
    "  state INTEGER NOT NULL CHECK(state BETWEEN 0 AND 8),"
    "  popped_wall_ms INTEGER NOT NULL, popped_boot_ms INTEGER NOT NULL, boot TEXT NOT NULL,"
    "  changed_wall_ms INTEGER NOT NULL, ttl_s INTEGER NOT NULL, base64 INTEGER NOT NULL,"
    "  spool TEXT NOT NULL DEFAULT '', notes TEXT NOT NULL DEFAULT '',"
    "  verdict TEXT NOT NULL DEFAULT '', fault TEXT NOT NULL DEFAULT '',"
    "  seconds REAL, joules REAL, tries INTEGER NOT NULL DEFAULT 0,"
    "  told_milli INTEGER) STRICT;"
    "CREATE INDEX job_open ON job(state) WHERE state < 6;"
    "CREATE INDEX job_pop ON job(pop);"
    "CREATE TABLE step(" /* what happened to a job, with times */
    "  seq INTEGER PRIMARY KEY, job TEXT NOT NULL, event INTEGER NOT NULL,"
    "  state INTEGER NOT NULL, wall_ms INTEGER NOT NULL, note TEXT) STRICT;"
    "CREATE INDEX step_job ON step(job);"
    "CREATE TABLE effect("
    "  seq INTEGER PRIMARY KEY, job TEXT NOT NULL, effect INTEGER NOT NULL,"
    "  intent_wall_ms INTEGER NOT NULL, result_wall_ms INTEGER, status INTEGER, text TEXT) STRICT;"
    "CREATE INDEX effect_job ON effect(job);"
    "CREATE TABLE posting("
    "  seq INTEGER PRIMARY KEY, job TEXT, kind TEXT NOT NULL, milli INTEGER NOT NULL,"
    "  certainty INTEGER NOT NULL CHECK(certainty BETWEEN 0 AND 3),"
    "  wall_ms INTEGER NOT NULL, note TEXT NOT NULL, UNIQUE(job, kind)) STRICT;"
    "CREATE TRIGGER posting_stays BEFORE UPDATE ON posting"
    "  BEGIN SELECT RAISE(ABORT, 'postings are never changed'); END;"
    "CREATE TRIGGER posting_remains BEFORE DELETE ON posting"
    "  BEGIN SELECT RAISE(ABORT, 'postings are never removed'); END;"
    "CREATE TABLE account("
    "  seq INTEGER PRIMARY KEY, wall_ms INTEGER NOT NULL, server_milli INTEGER NOT NULL,"
    "  server_delta_milli INTEGER NOT NULL, told_milli INTEGER NOT NULL,"
    "  explained_milli INTEGER NOT NULL, pending_milli INTEGER NOT NULL,"
    "  unexplained_milli INTEGER NOT NULL, alarm INTEGER NOT NULL, verdict TEXT NOT NULL,"
    "  posting_seq INTEGER NOT NULL) STRICT;",
};

static int read_number(sqlite3 *db, const char *sql, int64_t *value, struct error *err)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW) {
        sqlite3_finalize(s);
        return error_set(err, ERR_FORMAT, "ledger: %s", sqlite3_errmsg(db));
    }
    *value = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return 0;
}

static int is_sound(sqlite3 *db, struct error *err)
{
    sqlite3_stmt *s = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW || strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        rc = error_set(err, ERR_FORMAT, "the ledger is damaged: %s", sqlite3_errmsg(db));
    sqlite3_finalize(s);
    return rc;
}

static int migrate(struct ledger *l, struct error *err)
{
    int64_t version = 0;
    int rc = read_number(l->db, "PRAGMA user_version", &version, err);
    if (rc) return rc;
    if (version > LEDGER_SCHEMA)
        return error_set(
            err, ERR_UNSUPPORTED,
            "the ledger has schema %lld and this kilnd knows up to %d; use the newer one",
            (long long)version, LEDGER_SCHEMA);
    if (version && version < LEDGER_SCHEMA) rc = ledger_backup(l, err);
    for (; version < LEDGER_SCHEMA && !rc; version++) {
        char *sql = alloc_printf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;",
                                 migrations[version], (int)version + 1);
        rc = ledger_exec(l->db, sql, err);
        free(sql);
    }
    return rc;
}

static int connect_once(struct ledger *l, struct error *err)
{
    char *path = ledger_path(l, "ledger.db"), *log = ledger_path(l, "ledger.db-wal");
    struct stat st;
    bool clean = stat(log, &st) != 0 || st.st_size == 0; /* an orderly end leaves no log */
    off_t size = stat(path, &st) ? 0 : st.st_size;
    int rc = 0;
    free(log);
    if (sqlite3_open_v2(path, &l->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                            SQLITE_OPEN_NOFOLLOW,
                        NULL) != SQLITE_OK)
        rc = error_set(err, ERR_IO, "opening %s: %s", path, sqlite3_errmsg(l->db));
    free(path);
    if (rc) return rc;
    sqlite3_extended_result_codes(l->db, 0);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_limit(l->db, SQLITE_LIMIT_ATTACHED, 1);
    if (sqlite3_exec(l->db,
                     "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
                     "PRAGMA synchronous=FULL; PRAGMA mmap_size=0; PRAGMA foreign_keys=ON;"
                     "PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-1024;"
                     "PRAGMA journal_size_limit=4194304; PRAGMA wal_autocheckpoint=128;",
                     NULL, NULL, NULL) != SQLITE_OK) {
        int code = sqlite3_errcode(l->db);
        return error_set(err, code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? ERR_FORMAT : ERR_IO,
                         "the ledger: %s", sqlite3_errmsg(l->db));
    }
    if (!clean || size <= CHECK_BYTES_MAX) rc = is_sound(l->db, err);
    if (!rc) rc = migrate(l, err);
    return rc;
}

static void disconnect(struct ledger *l)
{
    for (int i = 0; i < l->cached; i++) sqlite3_finalize(l->cache[i].statement);
    l->cached = 0;
    sqlite3_close(l->db);
    l->db = NULL;
}

/* ---- backups ---- */

static int newest_first(const void *a, const void *b)
{
    return strcmp(*(char *const *)b, *(char *const *)a);
}

/* names in backup/ that are whole backups, newest first; NULL-terminated, all the caller's */
static char **list_backups(struct ledger *l)
{
    char *folder = ledger_path(l, "backup");
    DIR *d = opendir(folder);
    free(folder);
    size_t count = 0;
    char **names = alloc_zero(1, sizeof *names);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!str_starts(e->d_name, "ledger-") || !str_ends(e->d_name, ".db")) continue;
        names = alloc_grow(names, count + 2, sizeof *names);
        names[count++] = alloc_string(e->d_name);
        names[count] = NULL;
    }
    if (d) closedir(d);
    qsort(names, count, sizeof *names, newest_first);
    return names;
}

static void free_names(char **names)
{
    for (char **n = names; *n; n++) free(*n);
    free(names);
}

static int sync_path(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? error_set_errno(err, ERR_IO, errno, "flushing %s", path) : 0;
    if (fd >= 0) close(fd);
    return rc;
}

int ledger_backup(struct ledger *l, struct error *err)
{
    char stamp[25], name[80];
    now_format_utc(stamp, now_wall_ms());
    for (char *c = stamp; *c; c++)
        if (*c == ':') *c = '-';
    snprintf(name, sizeof name, "backup/ledger-%s.db", stamp);
    char *target = ledger_path(l, name), *part = ledger_path(l, "backup/part"),
         *folder = ledger_path(l, "backup");
    unlink(part);
    char *sql = sqlite3_mprintf("VACUUM INTO %Q", part);
    int rc = ledger_exec(l->db, sql, err);
    sqlite3_free(sql);
    if (!rc) rc = sync_path(part, err);
    if (!rc && rename(part, target))
        rc = error_set_errno(err, ERR_IO, errno, "naming the backup %s", target);
    if (!rc) rc = sync_path(folder, err);
    if (rc) unlink(part);
    if (!rc) l->last_backup_wall_ms = now_wall_ms();
    char **names = rc ? NULL : list_backups(l);
    for (int i = 0; names && names[i]; i++)
        if (i >= LEDGER_BACKUPS_KEPT) {
            char *old = alloc_printf("%s/%s", folder, names[i]);
            unlink(old);
            free(old);
        }
    if (names) free_names(names);
    free(target);
    free(part);
    free(folder);
    return rc ? error_wrap(err, rc, "backing the ledger up") : 0;
}

int64_t ledger_last_backup_wall_ms(const struct ledger *l)
{
    return l->last_backup_wall_ms;
}

static int copy_file(const char *from, const char *to, struct error *err)
{
    struct buf b;
    buf_init(&b, (size_t)4 << 30);
    int rc = buf_read_file(&b, from, err);
    if (!rc) rc = buf_write_file(&b, to, 0600, err);
    buf_release(&b);
    return rc;
}

/* The damaged files are kept under a name with the time; the newest backup that is sound takes
 * their place, and the posting journal brings back what was booked since. */
static int mend(struct ledger *l, const struct error *why, struct error *err)
{
    static const char *const files[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm"};
    disconnect(l);
    int64_t stamp = now_wall_ms();
    int rc = 0;
    for (unsigned i = 0; i < COUNT_OF(files) && !rc; i++) {
        char *from = ledger_path(l, files[i]);
        char *to = alloc_printf("%s.damaged-%lld", from, (long long)stamp);
        if (rename(from, to) && errno != ENOENT)
            rc = error_set_errno(err, ERR_IO, errno, "moving %s aside", from);
        free(from);
        free(to);
    }
    char **names = list_backups(l);
    const char *restored = NULL;
    for (char **n = names; *n && !rc && !restored; n++) {
        char *from = alloc_printf("%s/backup/%s", l->folder, *n);
        char *to = ledger_path(l, "ledger.db");
        if (!copy_file(from, to, NULL) && !connect_once(l, NULL)) {
            restored = *n;
        } else {
            disconnect(l);
            unlink(to);
        }
        free(from);
        free(to);
    }
    if (!rc && !restored) rc = connect_once(l, err); /* none left: an empty one */
    int replayed = 0;
    if (!rc) rc = ledger_journal_replay(l, &replayed, err);
    if (!rc)
        ledger_tell(l, "%s; kept as ledger.db.damaged-%lld, restored from %s, %d postings replayed",
                    why->text, (long long)stamp, restored ? restored : "nothing", replayed);
    free_names(names);
    return rc;
}

int ledger_connect(struct ledger *l, struct error *err)
{
    struct error why = {0};
    int rc = connect_once(l, &why);
    if (rc == ERR_FORMAT)
        rc = mend(l, &why, err);
    else if (rc)
        error_set(err, rc, "%s", why.text);
    if (!rc) rc = ledger_journal_open(l, err);
    if (rc) return rc;
    char **names = list_backups(l);
    if (*names) {
        char *newest = alloc_printf("%s/backup/%s", l->folder, *names);
        struct stat st;
        if (!stat(newest, &st)) l->last_backup_wall_ms = (int64_t)st.st_mtime * 1000;
        free(newest);
    }
    free_names(names);
    return 0;
}

/* ---- room ---- */

void ledger_ballast_make(struct ledger *l)
{
    char *path = ledger_path(l, "ballast");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        l->tight = posix_fallocate(fd, 0, (off_t)l->ballast_bytes) != 0;
        if (l->tight && ftruncate(fd, 0)) l->tight = true;
        close(fd);
    }
    free(path);
}

void ledger_make_room(struct ledger *l)
{
    char *path = ledger_path(l, "ballast");
    if (truncate(path, 0)) log_warn("ledger.ballast", "text=\"cannot be released\"");
    free(path);
    l->tight = true;
    /* what stands in the log twice needs room twice: bring it home while there is some */
    sqlite3_exec(l->db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
}

bool ledger_is_tight(const struct ledger *l)
{
    return l->tight;
}

void ledger_refill(struct ledger *l)
{
    if (l->tight && ledger_free_bytes(l) > (int64_t)l->ballast_bytes * 2) ledger_ballast_make(l);
}

int64_t ledger_free_bytes(const struct ledger *l)
{
    struct statvfs v;
    if (statvfs(l->folder, &v)) return -1;
    return (int64_t)v.f_bavail * (int64_t)v.f_frsize;
}
