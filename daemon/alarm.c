#include "daemon/alarm.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/now.h"

#define LOOK_MS 1000

struct alarms {
    uv_timer_t timer;
    struct alarm *list; /* soonest first */
    bool ringing;
};

static void arm(struct alarms *a);

static void look(uv_timer_t *timer)
{
    struct alarms *a = timer->data;
    int64_t now = now_ms();
    a->ringing = true;
    while (a->list && a->list->due_ms <= now) {
        struct alarm *alarm = a->list;
        alarm_drop(alarm);
        alarm->ring(alarm->data); /* may set or drop any of them */
    }
    a->ringing = false;
    arm(a);
}

static void arm(struct alarms *a)
{
    if (a->ringing) return;
    if (!a->list) {
        uv_timer_stop(&a->timer);
        return;
    }
    int64_t wait = a->list->due_ms - now_ms();
    if (wait < 0) wait = 0;
    if (wait > LOOK_MS) wait = LOOK_MS;
    uv_update_time(a->timer.loop);
    uv_timer_start(&a->timer, look, (uint64_t)wait, 0);
}

struct alarms *alarms_start(uv_loop_t *loop)
{
    struct alarms *a = alloc_zero(1, sizeof *a);
    uv_timer_init(loop, &a->timer);
    a->timer.data = a;
    return a;
}

static void on_closed(uv_handle_t *timer)
{
    free(timer->data);
}

void alarms_stop(struct alarms *a)
{
    if (!a) return;
    while (a->list) alarm_drop(a->list);
    uv_close((uv_handle_t *)&a->timer, on_closed);
}

void alarm_set(struct alarms *a, struct alarm *alarm, int64_t in_ms, void (*ring)(void *data),
               void *data)
{
    alarm_drop(alarm);
    alarm->due_ms = now_ms() + (in_ms > 0 ? in_ms : 0);
    alarm->ring = ring;
    alarm->data = data;
    alarm->set = true;
    struct alarm **at = &a->list;
    while (*at && (*at)->due_ms <= alarm->due_ms) at = &(*at)->next;
    alarm->next = *at;
    alarm->back = at;
    if (alarm->next) alarm->next->back = &alarm->next;
    *at = alarm;
    if (a->list == alarm) arm(a);
}

void alarm_drop(struct alarm *alarm)
{
    if (!alarm->set) return;
    *alarm->back = alarm->next;
    if (alarm->next) alarm->next->back = alarm->back;
    alarm->set = false;
}
