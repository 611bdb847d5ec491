/*
 * log.h - one line an event, key=value, to stderr or the journal.
 *
 * Place    every program. A decision is logged once, where it is taken.
 * Owner    the process: the sink is the tree's only mutable global. Any thread.
 * Failure  cannot fail; past 50 lines a second lines are dropped and counted (reliability V9).
 *
 * Never pass a key, a prompt or a query string.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* `program` is borrowed for the process's life. Messages above `level` are dropped. */
void log_start(const char *program, enum log_level level);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* `event` is a fixed word such as "job.popped"; the rest is key=value pairs, printf style. Values
 * that may hold blanks are quoted by the caller with "%s" inside quotes; control characters in
 * the finished line are replaced by '?'. */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(event, ...) log_event(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...) log_event(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...) log_event(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_event(LOG_DEBUG, event, __VA_ARGS__)

#endif
