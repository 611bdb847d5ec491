#include "daemon/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "proto/horde_status.h"
#include "proto/model_choice.h"
#include "store/reference.h"

#define EVERY_MS (6 * 60 * 60 * 1000)
#define AGAIN_MS (60 * 1000)
#define STATS_BYTES_MAX (4 << 20)
#define NAMED_BYTES 300

/* ---- the month's figures ---- */

static char *stats_path(const struct worker *w)
{
    return alloc_printf("%s/model-stats.json", w->folders.cache);
}

static bool wants_stats(const struct worker *w)
{
    for (unsigned i = 0; i < w->config.models_to_load.count; i++) {
        struct model_choice c;
        if (!model_choice_parse(&c, w->config.models_to_load.items[i], NULL) &&
            (c.kind == CHOICE_TOP || c.kind == CHOICE_BOTTOM))
            return true;
    }
    return false;
}

static void look(void *data);

static void on_stats(void *data, const struct http_reply *reply)
{
    struct worker *w = data;
    struct horde_models month;
    struct error err;
    bool good = reply->status == 200 &&
                !horde_model_stats_parse(&month, (const char *)reply->body, reply->length, &err);
    alarm_set(w->alarms, &w->choice, good ? EVERY_MS : AGAIN_MS, look, w);
    if (!good) return;
    horde_models_release(&month);
    struct buf text;
    char *path = stats_path(w);
    buf_init(&text, STATS_BYTES_MAX);
    int rc = buf_append(&text, reply->body, reply->length, &err);
    if (!rc) rc = buf_write_file(&text, path, 0600, &err);
    if (rc) log_warn("choice.not_kept", "text=\"%s\"", err.text);
    buf_release(&text);
    free(path);
    if (!rc) worker_read_models(w);
}

static void look(void *data)
{
    struct worker *w = data;
    struct http_request r = {.use = HTTP_PLAIN,
                             .method = "GET",
                             .path = "stats/img/models?model_state=known",
                             .limit_bytes = STATS_BYTES_MAX,
                             .done = on_stats,
                             .data = w};
    alarm_set(w->alarms, &w->choice, AGAIN_MS, look, w);
    if (wants_stats(w) && w->phase == WORKER_RUNNING && !outage_is_on(&w->outage))
        http_send(w->http, &r);
}

void choice_start(struct worker *w)
{
    alarm_set(w->alarms, &w->choice, 1, look, w);
}

static bool read_stats(const struct worker *w, struct horde_models *month)
{
    struct buf text;
    char *path = stats_path(w);
    buf_init(&text, STATS_BYTES_MAX);
    int rc = buf_read_file(&text, path, NULL);
    if (!rc) rc = horde_model_stats_parse(month, (const char *)text.data, text.length, NULL);
    buf_release(&text);
    free(path);
    return !rc;
}

/* ---- from words to names ---- */

static void add_all(struct worker *w, const char *entry, const char *const *name, int count,
                    void (*add)(struct worker *w, const char *))
{
    char absent[NAMED_BYTES] = "";
    int here = 0;
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        char *path = worker_model_path(w, name[i]);
        if (path) {
            add(w, name[i]);
            here++;
        } else {
            int n = snprintf(absent + length, NAMED_BYTES - length, "%s%s", length ? ", " : "",
                             name[i]);
            if (n > 0 && length + (size_t)n < NAMED_BYTES) length += (size_t)n;
            absent[length] = 0;
        }
        free(path);
    }
    if (here == count)
        log_info("choice.models", "entry=\"%s\" text=\"means %d models, all of them here\"", entry,
                 count);
    else
        log_warn("choice.models",
                 "entry=\"%s\" text=\"means %d models, %d of them here; kiln models get brings the "
                 "others: %s\"",
                 entry, count, here, absent);
}

bool choice_read(struct worker *w, const char *entry, void (*add)(struct worker *w, const char *))
{
    struct model_choice c;
    struct error err;
    if (model_choice_parse(&c, entry, &err)) {
        log_warn("choice.unknown", "text=\"models_to_load: %s\"", err.text);
        return true;
    }
    if (c.kind == CHOICE_NAME) return false;
    struct store store;
    struct reference reference;
    struct horde_models month;
    const char *name[WORKER_MODELS_MAX];
    if (store_open(&store, w->folders.cache, &err)) {
        log_warn("choice.no_list", "entry=\"%s\" text=\"%s\"", entry, err.text);
        return true;
    }
    bool have = !reference_open(&reference, &store, NULL, &err);
    bool ranked = c.kind == CHOICE_ALL || read_stats(w, &month);
    if (!have)
        log_warn("choice.no_list",
                 "entry=\"%s\" text=\"the Horde's list of models is not here yet: kiln models "
                 "search fetches it\"",
                 entry);
    else if (!ranked)
        log_info("choice.no_figures", "entry=\"%s\" text=\"waits for the Horde's month\"", entry);
    else {
        int count =
            model_choice_of(&c, &reference.lists[REFERENCE_MODELS],
                            c.kind == CHOICE_ALL ? NULL : &month, name, WORKER_MODELS_MAX, &err);
        if (count < 0)
            log_warn("choice.unknown", "text=\"models_to_load: %s\"", err.text);
        else
            add_all(w, entry, name, count, add);
    }
    if (ranked && c.kind != CHOICE_ALL) horde_models_release(&month);
    if (have) reference_close(&reference);
    store_close(&store);
    return true;
}
