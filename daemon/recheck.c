#include "daemon/recheck.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "store/store.h"

#define FIRST_MS 45000
#define LOOK_MS 60000
#define IDLE_MS (60 * 60 * 1000)

struct recheck { /* the thread's until done, then the loop's */
    char *cache;
    atomic_bool done;
    bool found; /* there was one that was old enough */
    enum store_state state;
    int rc;
    struct error err;
    char file[300];
};

static void free_reading(struct recheck *r)
{
    free(r->cache);
    free(r);
}

/* the verified one that was not read for longest */
static const struct store_entry *oldest(const struct store_list *list)
{
    const struct store_entry *found = NULL;
    for (int i = 0; i < list->count; i++) {
        const struct store_entry *e = &list->entries[i];
        if (e->state != STORE_VERIFIED || now_wall_ms() - e->checked_ms < RECHECK_AGE_MS) continue;
        if (!found || e->checked_ms < found->checked_ms) found = e;
    }
    return found;
}

static void *read_one(void *arg)
{
    struct recheck *r = arg;
    struct store s;
    struct store_list list = {0};
    char sha256[65];
    r->rc = store_open(&s, r->cache, &r->err);
    if (!r->rc) {
        r->rc = store_read_list(&list, &s, &r->err);
        const struct store_entry *e = r->rc ? NULL : oldest(&list);
        if (e) {
            r->found = true;
            str_clean(r->file, sizeof r->file, e->file);
            r->rc = store_verify(&s, e, NULL, NULL, NULL, &r->state, sha256, &r->err);
        }
        store_list_release(&list);
        store_close(&s);
    }
    r->done = true;
    return NULL;
}

static void look(void *data)
{
    struct worker *w = data;
    struct recheck *r = w->recheck;
    int64_t wait = LOOK_MS;
    if (r && r->done) {
        if (r->found && r->rc == ERR_FORMAT) {
            log_error("model.bad", "file=\"%s\" text=\"%s\"", r->file, r->err.text);
            worker_read_models(w);
            worker_look(w);
        } else if (r->found && !r->rc) {
            log_info("model.checked", "file=\"%s\"", r->file);
        }
        wait = r->found && !r->rc ? LOOK_MS : r->rc == ERR_FORMAT ? LOOK_MS : IDLE_MS;
        free_reading(r);
        w->recheck = NULL;
    } else if (!r && w->phase == WORKER_RUNNING) {
        pthread_t thread;
        r = alloc_zero(1, sizeof *r);
        r->cache = alloc_string(w->folders.cache);
        if (pthread_create(&thread, NULL, read_one, r)) {
            free_reading(r);
        } else {
            pthread_detach(thread);
            w->recheck = r;
        }
    }
    alarm_set(w->alarms, &w->rechecking, wait, look, w);
}

void recheck_start(struct worker *w)
{
    alarm_set(w->alarms, &w->rechecking, FIRST_MS, look, w);
}
