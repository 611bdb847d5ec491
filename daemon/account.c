/* account.c - the owner's figure at the Horde, at most once a minute, against our books (L11). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/account.h"
#include "daemon/job.h"
#include "proto/horde_status.h"
#include "proto/horde_worker.h"

#define FIRST_MS 1500
#define EVERY_MS 65000 /* the Horde's own cache is 30 s old, its folding 3 s */
#define PROBE_MS (30 * 60 * 1000)

struct reckoning {
    struct worker *w;
    struct ledger_figure figure;
    struct ledger_account account;
};

static int apply(struct ledger *l, void *data, struct error *err)
{
    struct reckoning *r = data;
    return ledger_reconcile(l, &r->figure, &r->account, err);
}

static void on_reckoned(void *data, int rc, const struct error *err)
{
    struct reckoning *r = data;
    struct worker *w = r->w;
    if (!rc) {
        if (r->account.alarm && !w->account_last.alarm)
            log_error("ledger.unexplained", "milli=%lld text=\"%s\"",
                      (long long)r->account.unexplained_milli, r->account.verdict);
        w->account_last = r->account;
        w->account_known = true;
    }
    free(r);
}

static void on_user(void *data, const struct http_reply *reply)
{
    struct worker *w = data;
    struct horde_user u;
    struct error err = {0};
    if (reply->status != 200 ||
        horde_user_parse(&u, (const char *)reply->body, reply->length, &err))
        return;
    str_clean(w->user, sizeof w->user, u.username ? u.username : "");
    w->known = true;
    w->trusted = u.trusted;
    w->balance_milli = llround(u.kudos * 1000);
    struct reckoning *r = alloc_zero(1, sizeof *r);
    r->w = w;
    r->figure = (struct ledger_figure){
        .wall_ms = now_wall_ms(), .kudos_milli = w->balance_milli, .trusted = u.trusted};
    horde_user_release(&u);
    clerk_give(w->clerk, apply, on_reckoned, r);
}

static void look(void *data)
{
    struct worker *w = data;
    struct http_request r = {
        .use = HTTP_API, .method = "GET", .path = "find_user", .done = on_user, .data = w};
    if (w->phase == WORKER_RUNNING && !w->images.stopped) http_send(w->http, &r);
    alarm_set(w->alarms, &w->account, EVERY_MS, look, w);
}

static void on_heartbeat(void *data, const struct http_reply *reply)
{
    struct worker *w = data;
    struct horde_heartbeat h;
    if (reply->status == 200 &&
        !horde_heartbeat_parse(&h, (const char *)reply->body, reply->length, NULL))
        str_clean(w->server_version, sizeof w->server_version, h.version);
}

static void probe(void *data)
{
    struct worker *w = data;
    struct http_request r = {.use = HTTP_PLAIN,
                             .method = "GET",
                             .path = "status/heartbeat",
                             .done = on_heartbeat,
                             .data = w};
    if (w->phase == WORKER_RUNNING) http_send(w->http, &r);
    alarm_set(w->alarms, &w->probe, PROBE_MS, probe, w);
}

void account_start(struct worker *w)
{
    alarm_set(w->alarms, &w->account, FIRST_MS, look, w);
    alarm_set(w->alarms, &w->probe, FIRST_MS + 500, probe, w);
}
