#include "daemon/clerk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"

#define GROUP_MAX 64
#define ROOM_CHECK_MS 10000

struct task {
    clerk_apply apply;
    clerk_done done;
    void *data;
    bool alone;
    int rc;
    struct error err;
    struct task *next;
};

struct list {
    struct task *first, **end;
};

struct clerk {
    struct ledger *ledger;
    uv_async_t wake; /* its data is the clerk; freed in its close callback */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list waiting, finished;
    bool stopping;
    int open; /* loop thread only */
    _Atomic int64_t busy_since_ms, free_bytes;
    _Atomic bool tight;
};

static void list_add(struct list *l, struct task *t)
{
    t->next = NULL;
    if (!l->first) l->end = &l->first;
    *l->end = t;
    l->end = &t->next;
}

static struct task *list_take_all(struct list *l)
{
    struct task *first = l->first;
    l->first = NULL;
    l->end = &l->first;
    return first;
}

/* ---- the clerk's thread ---- */

static void look_at_room(struct clerk *c)
{
    if (ledger_is_tight(c->ledger)) ledger_refill(c->ledger);
    c->tight = ledger_is_tight(c->ledger);
    c->free_bytes = ledger_free_bytes(c->ledger);
}

/* One transaction around the whole group; ERR_NO_MEMORY asks for another try after making room. */
static int try_group(struct clerk *c, struct task *const *group, int count)
{
    struct error err = {0};
    int rc = ledger_begin(c->ledger, &err);
    bool full = rc == ERR_NO_MEMORY;
    for (int i = 0; i < count && !rc; i++) {
        struct task *t = group[i];
        t->err = (struct error){0};
        t->rc = ledger_mark(c->ledger, &t->err);
        if (!t->rc) {
            t->rc = t->apply(c->ledger, t->data, &t->err);
            if (t->rc)
                ledger_back_to(c->ledger);
            else
                ledger_drop_mark(c->ledger);
        }
        full |= t->rc == ERR_NO_MEMORY;
    }
    if (full && !ledger_is_tight(c->ledger)) {
        ledger_rollback(c->ledger);
        return ERR_NO_MEMORY;
    }
    if (!rc) rc = ledger_commit(c->ledger, &err);
    if (rc == ERR_NO_MEMORY && !ledger_is_tight(c->ledger)) return rc;
    for (int i = 0; i < count && rc; i++) {
        group[i]->rc = rc;
        group[i]->err = err;
    }
    return 0;
}

static void do_group(struct clerk *c, struct task *const *group, int count)
{
    if (try_group(c, group, count) == ERR_NO_MEMORY) {
        log_warn("ledger.disk_full", "ballast released, trying again");
        ledger_make_room(c->ledger);
        try_group(c, group, count);
    }
}

static void do_tasks(struct clerk *c, struct task *first)
{
    while (first) {
        struct task *group[GROUP_MAX];
        int count = 0;
        while (first && !first->alone && count < GROUP_MAX) {
            group[count++] = first;
            first = first->next;
        }
        if (count)
            do_group(c, group, count);
        else {
            group[count++] = first;
            first->rc = first->apply(c->ledger, first->data, &first->err);
            first = first->next;
        }
        pthread_mutex_lock(&c->lock);
        for (int i = 0; i < count; i++) list_add(&c->finished, group[i]);
        pthread_mutex_unlock(&c->lock);
        uv_async_send(&c->wake);
        c->busy_since_ms = now_ms();
    }
}

static void *run(void *arg)
{
    struct clerk *c = arg;
    int64_t looked_ms = 0;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        while (!c->waiting.first && !c->stopping) {
            c->busy_since_ms = 0;
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += ROOM_CHECK_MS / 1000;
            if (pthread_cond_timedwait(&c->work, &c->lock, &until)) break;
        }
        struct task *first = list_take_all(&c->waiting);
        bool stop = c->stopping && !first;
        pthread_mutex_unlock(&c->lock);
        if (stop) return NULL;
        c->busy_since_ms = now_ms();
        do_tasks(c, first);
        if (now_ms() - looked_ms >= ROOM_CHECK_MS) {
            look_at_room(c);
            looked_ms = now_ms();
        }
    }
}

/* ---- the loop's thread ---- */

static void finish(struct clerk *c)
{
    pthread_mutex_lock(&c->lock);
    struct task *t = list_take_all(&c->finished);
    pthread_mutex_unlock(&c->lock);
    while (t) {
        struct task *next = t->next;
        c->open--;
        if (t->rc && t->rc != ERR_NOT_FOUND) log_error("ledger.failed", "text=\"%s\"", t->err.text);
        if (t->done) t->done(t->data, t->rc, &t->err);
        free(t);
        t = next;
    }
}

static void on_wake(uv_async_t *wake)
{
    finish(wake->data);
}

static void give(struct clerk *c, clerk_apply apply, clerk_done done, void *data, bool alone)
{
    struct task *t = alloc_zero(1, sizeof *t);
    *t = (struct task){.apply = apply, .done = done, .data = data, .alone = alone};
    c->open++;
    pthread_mutex_lock(&c->lock);
    list_add(&c->waiting, t);
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}

void clerk_give(struct clerk *c, clerk_apply apply, clerk_done done, void *data)
{
    give(c, apply, done, data, false);
}

void clerk_give_alone(struct clerk *c, clerk_apply apply, clerk_done done, void *data)
{
    give(c, apply, done, data, true);
}

int clerk_start(struct clerk **clerk, uv_loop_t *loop, struct ledger *ledger, struct error *err)
{
    struct clerk *c = alloc_zero(1, sizeof *c);
    c->ledger = ledger;
    c->waiting.end = &c->waiting.first;
    c->finished.end = &c->finished.first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    look_at_room(c);
    int bad = uv_async_init(loop, &c->wake, on_wake);
    c->wake.data = c;
    if (!bad) bad = -pthread_create(&c->thread, NULL, run, c);
    if (bad) {
        free(c);
        return error_set(err, ERR_INTERNAL, "starting the ledger's thread: %s", uv_strerror(bad));
    }
    *clerk = c;
    return 0;
}

static void on_closed(uv_handle_t *wake)
{
    struct clerk *c = wake->data;
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void clerk_stop(struct clerk *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    finish(c);
    /* what the last answers gave is done here and now */
    while (c->waiting.first) {
        do_tasks(c, list_take_all(&c->waiting));
        finish(c);
    }
    ledger_close(c->ledger);
    uv_close((uv_handle_t *)&c->wake, on_closed);
}

int64_t clerk_quiet_ms(const struct clerk *c)
{
    int64_t since = c->busy_since_ms;
    return since ? now_ms() - since : 0;
}

bool clerk_disk_tight(const struct clerk *c)
{
    return c->tight;
}

int64_t clerk_disk_free_bytes(const struct clerk *c)
{
    return c->free_bytes;
}

int clerk_waiting(const struct clerk *c)
{
    return c->open;
}
