#include "daemon/demand.h"

#include <math.h>

#include "base/str.h"
#include "proto/horde_status.h"

#define FIRST_MS 3000
#define EVERY_MS 120000
#define REPLY_BYTES_MAX (4 << 20)

static void on_models(void *data, const struct http_reply *reply)
{
    struct worker *w = data;
    struct horde_models list;
    if (reply->status != 200 ||
        horde_models_parse(&list, (const char *)reply->body, reply->length, NULL))
        return;
    for (int i = 0; i < w->model_count; i++) w->models[i].queued_mps = w->models[i].eta_s = 0;
    for (int i = 0; i < list.count; i++) {
        struct worker_model *m = worker_find_model(w, list.list[i].name);
        if (!m) continue;
        /* documented in megapixelsteps, sent in pixelsteps */
        m->queued_mps = list.list[i].queued > 1e5 ? list.list[i].queued / 1e6 : list.list[i].queued;
        m->eta_s = list.list[i].eta_seconds;
    }
    w->demand_known = true;
    horde_models_release(&list);
}

static void look(void *data)
{
    struct worker *w = data;
    struct http_request r = {.use = HTTP_PLAIN,
                             .method = "GET",
                             .path = "status/models?type=image",
                             .limit_bytes = REPLY_BYTES_MAX,
                             .done = on_models,
                             .data = w};
    if (w->phase == WORKER_RUNNING && !outage_is_on(&w->outage)) http_send(w->http, &r);
    alarm_set(w->alarms, &w->demand, EVERY_MS, look, w);
}

void demand_start(struct worker *w)
{
    alarm_set(w->alarms, &w->demand, FIRST_MS, look, w);
}

void demand_learn(struct worker *w, const char *model, int64_t reward_milli, double seconds)
{
    struct worker_model *m = worker_find_model(w, model);
    if (!m || reward_milli <= 0 || !(seconds > 0)) return;
    double now = (double)reward_milli / 1000 / seconds;
    m->kudos_per_second = m->kudos_per_second > 0 ? 0.8 * m->kudos_per_second + 0.2 * now : now;
}

/* What nobody waits for is not offered, unless nothing is waited for; and of what is, nothing that
 * earns less than a quarter of the best here. */
bool demand_wants(const struct worker *w, const struct worker_model *m)
{
    double best = 0;
    bool any = false;
    if (!w->config.dynamic_models || !w->demand_known) return true;
    for (int i = 0; i < w->model_count; i++) {
        if (w->models[i].missing || w->models[i].queued_mps <= 0) continue;
        any = true;
        if (w->models[i].kudos_per_second > best) best = w->models[i].kudos_per_second;
    }
    if (!any) return true;
    if (m->queued_mps <= 0) return false;
    return m->kudos_per_second <= 0 || m->kudos_per_second >= best / 4;
}
