/*
 * alarm.h - deadlines on the clock that counts through suspend.
 *
 * Place    whatever in the daemon waits: pops, retries, heartbeats, drains.
 * Owner    the struct is the caller's, zeroed before first use; alarm_set moves it, alarm_drop
 *          forgets it (also when it is not set). Loop thread.
 * Failure  cannot fail. Source: reliability N8: libuv timers stand still in suspend, so one timer
 *          looks at now_ms at least once a second.
 */
#ifndef DAEMON_ALARM_H
#define DAEMON_ALARM_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct alarm {
    int64_t due_ms;
    void (*ring)(void *data);
    void *data;
    bool set;
    struct alarm *next, **back;
};

struct alarms;

struct alarms *alarms_start(uv_loop_t *loop);
void alarms_stop(struct alarms *a); /* frees in the timer's close callback */

/* Rings once, in `in_ms` from now or later, from the loop. */
void alarm_set(struct alarms *a, struct alarm *alarm, int64_t in_ms, void (*ring)(void *data),
               void *data);
void alarm_drop(struct alarm *alarm);

#endif
