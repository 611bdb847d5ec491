/*
 * ledger_sql.h - the ledger's inside: one connection and its prepared statements.
 *
 * Place    the ledger_*.c files only.
 * Failure  as ledger.h.
 */
#ifndef DAEMON_LEDGER_SQL_H
#define DAEMON_LEDGER_SQL_H

#include <sqlite3.h>
#include <stdarg.h>

#include "daemon/ledger.h"

#define LEDGER_STATEMENTS_MAX 64

struct ledger {
    char *folder;
    sqlite3 *db;
    int lock_fd, journal_fd;
    struct {
        const char *sql; /* the literal's address is the key */
        sqlite3_stmt *statement;
    } cache[LEDGER_STATEMENTS_MAX];
    int cached;
    struct buf journal; /* lines of the open transaction */
    size_t journal_mark;
    size_t ballast_bytes;
    bool tight;
    int64_t last_backup_wall_ms;
    char *news;
};

/* The statement of a string literal, reset, with its parameters bound: one letter each,
 *   t const char * (NULL is NULL)   i int64_t   n int   d double (NAN is NULL)
 *   b const void *, size_t */
sqlite3_stmt *ledger_sql(struct ledger *l, const char *sql, struct error *err, const char *letters,
                         ...);
/* Runs one that returns no rows; *changed rows (may be NULL). */
int ledger_run(struct ledger *l, struct error *err, int64_t *changed, const char *sql,
               const char *letters, ...);
/* 1 row, 0 done, or negative */
int ledger_step(struct ledger *l, sqlite3_stmt *s, struct error *err);
int ledger_sql_error(struct ledger *l, const char *doing, struct error *err);
int ledger_exec(sqlite3 *db, const char *sql, struct error *err);
void ledger_column(sqlite3_stmt *s, int column, char *to, size_t room);
double ledger_column_real(sqlite3_stmt *s, int column); /* NULL is NAN */
void ledger_tell(struct ledger *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *ledger_path(const struct ledger *l, const char *name);

/* ledger_keep.c */
int ledger_connect(struct ledger *l, struct error *err); /* open, check, migrate, mend */
void ledger_ballast_make(struct ledger *l);

/* ledger_journal.c */
int ledger_journal_open(struct ledger *l, struct error *err);
int ledger_journal_note(struct ledger *l, const struct ledger_posting *p, struct error *err);
int ledger_journal_flush(struct ledger *l, struct error *err);
int ledger_journal_replay(struct ledger *l, int *replayed, struct error *err);

#endif
