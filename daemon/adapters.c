#include "daemon/adapters.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "store/adapter.h"

#define LORA_BYTES_MAX (INT64_C(2) << 30)
#define EMBEDDING_BYTES_MAX (INT64_C(64) << 20)
#define EMBEDDING_QUOTA_BYTES (INT64_C(1) << 30)
#define TRIES 2
#define SILENT_MS 60000 /* after a fetch without an answer: what is not here is not asked for */

struct place { /* of the job, where the file belongs */
    struct job *job;
    bool embedding;
    int index; /* in job->horde.loras or tis */
};

struct fetch_item {
    struct adapters *all;
    uv_work_t work;
    enum store_kind kind;
    char *name;
    bool is_version, running;
    enum family family;
    struct adapter_rule rule;
    char *token;
    struct place *places;
    int place_count;
    struct adapter found;
    int rc;
    struct error err;
    struct fetch_item *next;
};

struct adapters {
    struct worker *w;
    struct store store;
    struct fetch_item *items;
    int running;
    int64_t silent_until_ms;
    atomic_bool stop;
    pthread_mutex_t lock; /* over `used` and the removal of files */
    struct used {
        char file[64];
        const struct job *job;
        struct used *next;
    } * used;
};

/* ---- files that jobs use stay ---- */

static void use_file(struct adapters *a, const struct job *job, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct used *u = alloc_zero(1, sizeof *u);
    str_copy(u->file, sizeof u->file, slash ? slash + 1 : path);
    u->job = job;
    pthread_mutex_lock(&a->lock);
    u->next = a->used;
    a->used = u;
    pthread_mutex_unlock(&a->lock);
}

static bool in_use(void *context, const char *file)
{
    const struct adapters *a = context;
    for (const struct used *u = a->used; u; u = u->next)
        if (str_equal(u->file, file)) return true;
    return false;
}

static void hold(void *context, bool on)
{
    struct adapters *a = context;
    if (on)
        pthread_mutex_lock(&a->lock);
    else
        pthread_mutex_unlock(&a->lock);
}

/* ---- what came, into the request ---- */

char *adapters_trigger(const char *const *words, int count, const char *wish, uint64_t seed)
{
    char *text = alloc_string("");
    int chosen = -1;
    bool all = str_equal(wish, "all");
    if (!wish || !count) return text;
    if (str_equal(wish, "any")) chosen = (int)(seed % (uint64_t)count);
    if (chosen < 0 && !all) {
        size_t least = SIZE_MAX;
        for (int i = 0; i < count; i++) {
            size_t distance = str_distance(words[i], wish);
            if (distance < least) {
                least = distance;
                chosen = i;
            }
        }
    }
    for (int i = 0; i < count; i++) {
        if (!all && i != chosen) continue;
        char *longer = alloc_printf("%s, %s", text, words[i]);
        free(text);
        text = longer;
    }
    return text;
}

static void append(char **prompt, const char *text)
{
    char *longer = alloc_printf("%s%s", *prompt ? *prompt : "",
                                *prompt && **prompt ? text : text + (*text ? 2 : 0));
    free(*prompt);
    *prompt = longer;
}

static void take_lora(struct job *job, const struct horde_lora *from, const struct adapter *found)
{
    struct image_request *r = &job->horde.request;
    if (r->lora_count == REQUEST_LORAS_MAX) return;
    struct request_lora *to = &r->loras[r->lora_count++];
    to->path = alloc_string(found->path);
    to->name = alloc_string(from->name);
    to->model_strength = from->model_strength;
    to->clip_strength = from->clip_strength;
    char *words = adapters_trigger((const char *const *)found->words, found->word_count,
                                   from->inject_trigger, job->seed);
    append(&r->prompt, words);
    free(words);
}

/* the embedding's word, which the request leaves to the worker, in one of the prompts */
static void take_embedding(struct job *job, const struct horde_ti *from,
                           const struct adapter *found)
{
    struct image_request *r = &job->horde.request;
    if (r->embedding_count == REQUEST_EMBEDDINGS_MAX) return;
    struct request_embedding *to = &r->embeddings[r->embedding_count++];
    to->path = alloc_string(found->path);
    to->name = alloc_string(from->name);
    to->strength = from->strength;
    if (!from->inject) return;
    char *word = alloc_printf(", (embedding:%s:%g)", from->name, from->strength);
    append(str_equal(from->inject, "negprompt") ? &r->negative : &r->prompt, word);
    free(word);
}

/* rc 0, or why the image is made without it */
static void settle_place(struct adapters *a, const struct place *p, const struct adapter *found,
                         int rc)
{
    struct job *job = p->job;
    const struct horde_job *h = &job->horde;
    const char *name = p->embedding ? h->tis[p->index].name : h->loras[p->index].name;
    if (rc) {
        job_note(job->notes, p->embedding ? METADATA_TI : METADATA_LORA,
                 rc == ERR_UNSUPPORTED ? METADATA_VALUE_BASELINE_MISMATCH
                                       : METADATA_VALUE_DOWNLOAD_FAILED,
                 name);
    } else {
        use_file(a, job, found->path);
        if (p->embedding)
            take_embedding(job, &h->tis[p->index], found);
        else
            take_lora(job, &h->loras[p->index], found);
    }
}

static void one_less(struct job *job)
{
    if (--job->adapters_open > 0) return;
    void (*then)(struct job * job) = job->adapters_then;
    alarm_drop(&job->adapters_alarm);
    job->adapters_then = NULL;
    then(job);
}

/* ---- fetching ---- */

static void start_more(struct adapters *a);

static void free_item(struct fetch_item *item)
{
    struct adapters *a = item->all;
    for (struct fetch_item **at = &a->items; *at; at = &(*at)->next)
        if (*at == item) {
            *at = item->next;
            break;
        }
    adapter_release(&item->found);
    free(item->name);
    free(item->token);
    free(item->places);
    free(item);
}

static void free_all(struct adapters *a)
{
    while (a->items) free_item(a->items);
    while (a->used) {
        struct used *u = a->used;
        a->used = u->next;
        free(u);
    }
    store_close(&a->store);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static void in_pool(uv_work_t *work)
{
    struct fetch_item *item = work->data;
    struct adapter_wish wish = {.kind = item->kind,
                                .name = item->name,
                                .is_version = item->is_version,
                                .family = item->family};
    struct fetch_client client;
    item->rc = fetch_open(&client, item->token, NULL, &item->err);
    if (item->rc) return;
    client.stop = &item->all->stop;
    item->rc =
        adapter_fetch(&item->found, &item->all->store, &client, &wish, &item->rule, &item->err);
    fetch_close(&client);
}

static void on_done(uv_work_t *work, int status)
{
    struct fetch_item *item = work->data;
    struct adapters *a = item->all;
    a->running--;
    if (a->stop) {
        if (!a->running) free_all(a);
        return;
    }
    char shown[64];
    str_clean(shown, sizeof shown, item->name);
    if (item->rc == ERR_NETWORK || item->rc == ERR_BUSY) a->silent_until_ms = now_ms() + SILENT_MS;
    if (item->rc)
        log_warn("adapter.failed", "kind=%s name=\"%s\" text=\"%s\"", store_kind_name(item->kind),
                 shown, item->err.text);
    else
        log_info("adapter.fetched", "kind=%s name=\"%s\" words=%d", store_kind_name(item->kind),
                 shown, item->found.word_count);
    for (int i = 0; i < item->place_count; i++)
        settle_place(a, &item->places[i], &item->found, item->rc);
    struct place *places = item->places;
    int count = item->place_count;
    item->places = NULL;
    item->place_count = 0;
    free_item(item);
    start_more(a);
    for (int i = 0; i < count; i++)
        one_less(places[i].job); /* may end jobs: nothing of ours behind it */
    free(places);
}

static void start_more(struct adapters *a)
{
    for (struct fetch_item *i = a->items; i && a->running < ADAPTERS_AT_ONCE; i = i->next) {
        if (i->running) continue;
        i->running = true;
        a->running++;
        i->work.data = i;
        uv_queue_work(a->w->loop, &i->work, in_pool, on_done);
    }
}

static struct fetch_item *item_for(struct adapters *a, enum store_kind kind, const char *name,
                                   bool is_version, enum family family)
{
    struct fetch_item **at = &a->items;
    for (; *at; at = &(*at)->next)
        if ((*at)->kind == kind && (*at)->is_version == is_version && (*at)->family == family &&
            str_equal((*at)->name, name))
            return *at;
    const struct config *c = &a->w->config;
    struct fetch_item *item = *at = alloc_zero(1, sizeof *item);
    bool lora = kind == STORE_LORA;
    item->all = a;
    item->kind = kind;
    item->is_version = is_version;
    item->family = family;
    item->name = alloc_string(name);
    item->token = alloc_string(c->civitai_api_token);
    item->rule = (struct adapter_rule){
        .download = {.max_bytes = lora ? LORA_BYTES_MAX : EMBEDDING_BYTES_MAX,
                     .floor_bytes = c->disk_floor_mb << 20,
                     .quota_bytes = lora ? c->max_lora_cache_gb << 30 : EMBEDDING_QUOTA_BYTES,
                     .tries = TRIES,
                     .seconds_max = (int)c->download_timeout_s},
        .strangers = !c->horde_loopback,
        .in_use = in_use,
        .lock = hold,
        .context = a};
    return item;
}

/* ---- a job's wishes ---- */

/* what its owner put there under that very name */
static char *own_file(const struct worker *w, enum store_kind kind, const char *name)
{
    static const char *const ends[] = {".safetensors", ".pt", ""};
    if (store_check_name(name, NULL)) return NULL;
    for (unsigned i = 0; i < COUNT_OF(ends); i++) {
        char *path =
            alloc_printf("%s/%s/%s%s", w->folders.cache, store_kind_name(kind), name, ends[i]);
        if (worker_may_use(w, path)) return path;
        free(path);
    }
    return NULL;
}

static void need_one(struct adapters *a, struct place place, const char *name, bool is_version,
                     enum family family)
{
    enum store_kind kind = place.embedding ? STORE_EMBEDDING : STORE_LORA;
    struct adapter found = {.path = is_version ? NULL : own_file(a->w, kind, name)};
    struct adapter_wish wish = {
        .kind = kind, .name = name, .is_version = is_version, .family = family};
    bool strangers = !a->w->config.horde_loopback, silent = now_ms() < a->silent_until_ms;
    if (found.path || silent || adapter_find(&found, &a->store, &wish, strangers, false)) {
        bool here = found.path || adapter_find(&found, &a->store, &wish, strangers, true);
        settle_place(a, &place, &found, here ? 0 : ERR_NETWORK);
        adapter_release(&found);
        return;
    }
    struct fetch_item *item = item_for(a, kind, name, is_version, family);
    item->places = alloc_grow(item->places, (size_t)item->place_count + 1, sizeof *item->places);
    item->places[item->place_count++] = place;
    place.job->adapters_open++;
    place.job->fetched = true;
}

static void leave_items(struct adapters *a, const struct job *job)
{
    for (struct fetch_item *item = a->items; item; item = item->next)
        for (int i = item->place_count - 1; i >= 0; i--)
            if (item->places[i].job == job) item->places[i] = item->places[--item->place_count];
}

/* half of its time is gone: made without what has not come */
static void on_late(void *data)
{
    struct job *job = data;
    struct adapters *a = job->w->adapters;
    for (struct fetch_item *item = a->items; item; item = item->next)
        for (int i = 0; i < item->place_count; i++)
            if (item->places[i].job == job) settle_place(a, &item->places[i], NULL, ERR_NETWORK);
    leave_items(a, job);
    job->adapters_open = 1;
    one_less(job);
}

void adapters_need(struct adapters *a, struct job *job, void (*then)(struct job *job))
{
    const struct horde_job *h = &job->horde;
    const struct worker_model *m = worker_find_model(job->w, job->what);
    enum family family = m ? m->family : FAMILY_SD1;
    job->adapters_then = then;
    job->adapters_open = 1; /* this call */
    for (int i = 0; i < h->lora_count; i++)
        need_one(a, (struct place){.job = job, .index = i}, h->loras[i].name,
                 h->loras[i].is_version, family);
    for (int i = 0; i < h->ti_count; i++)
        need_one(a, (struct place){.job = job, .embedding = true, .index = i}, h->tis[i].name,
                 false, family);
    if (job->adapters_open > 1)
        alarm_set(job->w->alarms, &job->adapters_alarm, (job_deadline_ms(job) - now_ms()) / 2,
                  on_late, job);
    start_more(a);
    one_less(job);
}

void adapters_forget(struct adapters *a, struct job *job)
{
    alarm_drop(&job->adapters_alarm);
    job->adapters_open = 0;
    if (!a) return;
    leave_items(a, job);
    pthread_mutex_lock(&a->lock);
    for (struct used **at = &a->used; *at;) {
        struct used *u = *at;
        if (u->job == job) {
            *at = u->next;
            free(u);
        } else {
            at = &u->next;
        }
    }
    pthread_mutex_unlock(&a->lock);
}

int adapters_open(const struct adapters *a)
{
    int count = 0;
    for (const struct fetch_item *i = a ? a->items : NULL; i; i = i->next) count++;
    return count;
}

/* ---- life ---- */

int adapters_start(struct adapters **adapters, struct worker *w, struct error *err)
{
    struct adapters *a = alloc_zero(1, sizeof *a);
    a->w = w;
    pthread_mutex_init(&a->lock, NULL);
    int rc = store_open(&a->store, w->folders.cache, err);
    if (rc) {
        pthread_mutex_destroy(&a->lock);
        free(a);
        return rc;
    }
    *adapters = a;
    return 0;
}

void adapters_stop(struct adapters *a)
{
    if (!a) return;
    a->stop = true;
    for (struct fetch_item *i = a->items; i; i = i->next) i->place_count = 0;
    if (!a->running) free_all(a);
}
