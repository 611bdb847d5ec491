#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "practice.h"

#define ABORTS_PER_HOUR 20
#define OFFLINE_MS 300000

static json_t *kudos(int64_t milli)
{
    return json_real((double)milli / 1000);
}

/* ---- accounts --------------------------------------------------------------------------- */

struct user *people_add(struct practice *p, const char *key, const char *alias, bool trusted)
{
    struct user *u = alloc_zero(1, sizeof *u);
    str_copy(u->key, sizeof u->key, key);
    u->id = p->user_count;
    snprintf(u->alias, sizeof u->alias, "%.40s#%d", alias, u->id);
    u->trusted = trusted;
    u->balance_milli = p->user_count ? 1000000 : 0;
    p->users = alloc_grow(p->users, (size_t)p->user_count + 1, sizeof *p->users);
    p->users[p->user_count++] = u;
    return u;
}

struct user *people_find(struct practice *p, const char *key)
{
    for (int i = 0; key && i < p->user_count; i++)
        if (str_equal(p->users[i]->key, key)) return p->users[i];
    return NULL;
}

/* A posting reaches the balance at the next fold. */
static void post(struct practice *p, struct user *u, int64_t milli)
{
    u->pending_milli += milli;
    if (p->options.fold_seconds == 0) people_fold(p);
}

void people_fold(struct practice *p)
{
    for (int i = 0; i < p->user_count; i++) {
        struct user *u = p->users[i];
        int64_t milli = u->pending_milli;
        if (!milli) continue;
        if (p->options.integer_balances) milli = llround((double)milli / 1000) * 1000;
        u->balance_milli += milli;
        u->pending_milli = 0;
    }
}

void people_credit(struct practice *p, const char *what, struct worker *w, const char *job,
                   int64_t told_milli, int factor_milli)
{
    struct user *u = w->owner;
    int64_t credited = (told_milli * factor_milli + 500) / 1000, escrow = 0;
    bool uptime = str_equal(what, "uptime");
    if (!u->trusted && w->type == WORKER_IMAGE) escrow = uptime ? credited : credited / 2;
    u->escrow_milli += escrow;
    u->accumulated_milli += credited;
    if (uptime)
        w->uptime_milli += credited;
    else
        w->earned_milli += credited;
    p->credited_milli += credited;
    log_posting(p, what, u, job, told_milli, credited);
    post(p, u, credited - escrow);
}

void people_charge(struct practice *p, struct user *u, const char *job, int64_t milli)
{
    p->spent_milli += milli;
    log_posting(p, "spent", u, job, milli, -milli);
    post(p, u, -milli);
}

/* ---- workers ---------------------------------------------------------------------------- */

struct worker *people_worker(struct practice *p, const char *name)
{
    for (int i = 0; i < p->worker_count; i++)
        if (str_equal(p->workers[i]->name, name)) return p->workers[i];
    return NULL;
}

void people_abort(struct practice *p, struct worker *w)
{
    int64_t now = practice_ms(p);
    int recent = 0, room = (int)(sizeof w->abort_ms / sizeof w->abort_ms[0]);
    w->uncompleted++;
    w->abort_ms[w->aborts++ % room] = now;
    for (int i = 0; i < room && i < w->aborts; i++) recent += now - w->abort_ms[i] < 3600000;
    int limit = w->type == WORKER_ALCHEMIST ? 3 * ABORTS_PER_HOUR : ABORTS_PER_HOUR;
    if (recent <= limit || w->maintenance) return;
    w->maintenance = true;
    w->aborts = 0;
    str_copy(w->maintenance_msg, sizeof w->maintenance_msg,
             "too many jobs were aborted or faulted in the last hour");
    log_state(p, "worker", w->id, "maintenance", w);
}

void people_check_in(struct practice *p, struct worker *w, int64_t now)
{
    int64_t reward_ms = (int64_t)(p->options.uptime_seconds * 1000);
    if (w->last_ms && now - w->last_ms < OFFLINE_MS)
        w->uptime_ms += now - w->last_ms;
    else
        w->uptime_from_ms = w->uptime_ms;
    w->last_ms = now;
    if (!reward_ms || w->uptime_ms - w->uptime_from_ms < reward_ms) return;
    w->uptime_from_ms = w->uptime_ms;
    if (w->paused || w->maintenance) return;
    int64_t reward = w->type == WORKER_ALCHEMIST
                         ? 40000
                         : 50000 + 2000 * (int64_t)w->model_count + (w->lora ? 30000 : 0);
    people_credit(p, "uptime", w, NULL, reward, 1000);
}

/* ---- pages, cached as the server does --------------------------------------------------- */

struct cached {
    char what[80];
    json_t *page;
    int64_t made_ms;
};

/* Takes `fresh`; returns a page that may be older, the caller's reference. */
static json_t *cached(struct practice *p, const char *kind, const char *id, json_t *fresh)
{
    char what[80];
    int64_t now = practice_ms(p);
    if (p->options.cache_seconds == 0) return fresh;
    snprintf(what, sizeof what, "%s %s", kind, id);
    int i = 0;
    while (i < p->cache_count && !str_equal(p->cache[i].what, what)) i++;
    if (i == p->cache_count) {
        p->cache = alloc_grow(p->cache, (size_t)++p->cache_count, sizeof *p->cache);
        memset(&p->cache[i], 0, sizeof p->cache[i]);
        str_copy(p->cache[i].what, sizeof p->cache[i].what, what);
    }
    struct cached *c = &p->cache[i];
    if (c->page && now - c->made_ms < (int64_t)(p->options.cache_seconds * 1000)) {
        json_decref(fresh);
        return json_incref(c->page);
    }
    json_decref(c->page);
    c->page = json_incref(fresh);
    c->made_ms = now;
    return fresh;
}

static json_t *open_asks(struct practice *p, const struct user *u)
{
    json_t *list = json_array();
    for (int i = p->first_open; i < p->ask_count; i++)
        if (p->asks[i]->user == u && !ask_over(p->asks[i]))
            json_array_append_new(list, json_string(p->asks[i]->id));
    return list;
}

json_t *people_user_json(struct practice *p, const struct user *u, bool own)
{
    json_t *o = json_object(), *ids = json_array();
    int count = 0;
    for (int i = 0; i < p->worker_count; i++)
        if (p->workers[i]->owner == u) {
            count++;
            json_array_append_new(ids, json_string(p->workers[i]->id));
        }
    json_object_set_new(o, "username", json_string(u->alias));
    json_object_set_new(o, "id", json_integer(u->id));
    json_object_set_new(o, "kudos", kudos(u->balance_milli));
    if (own) json_object_set_new(o, "evaluating_kudos", kudos(u->escrow_milli));
    json_object_set_new(o, "concurrency", json_integer(30));
    json_object_set_new(o, "worker_invited", json_integer(0));
    json_object_set_new(o, "moderator", json_false());
    json_object_set_new(o, "kudos_details",
                        json_pack("{s:o,s:o,s:i,s:i,s:o,s:i,s:i,s:i}", "accumulated",
                                  kudos(u->accumulated_milli), "gifted", kudos(-u->gifted_milli),
                                  "donated", 0, "admin", 0, "received", kudos(u->received_milli),
                                  "recurring", 0, "awarded", 0, "styled", 0));
    json_object_set_new(o, "worker_count", json_integer(count));
    json_object_set_new(o, "trusted", json_boolean(u->trusted));
    json_object_set_new(o, "flagged", json_boolean(u->flagged));
    json_object_set_new(o, "deleted", json_false());
    json_object_set_new(o, "pseudonymous", json_boolean(u->anonymous));
    json_object_set_new(o, "account_age", json_integer(practice_ms(p) / 1000));
    json_object_set_new(o, "records",
                        json_pack("{s:{s:i,s:i,s:i},s:{s:i,s:i,s:i}}", "request", "image",
                                  u->requests, "text", 0, "interrogation", 0, "fulfillment",
                                  "image", u->fulfillments, "text", 0, "interrogation", 0));
    if (own) {
        json_object_set(o, "worker_ids", ids);
        json_object_set_new(o, "styles", style_refs(p, u));
        json_object_set_new(o, "sharedkey_ids", sharedkey_ids(p, u));
        json_object_set_new(o, "active_generations", json_pack("{s:o}", "image", open_asks(p, u)));
    }
    json_decref(ids);
    return o;
}

json_t *people_worker_json(struct practice *p, const struct worker *w)
{
    int64_t now = practice_ms(p);
    double seconds = (double)w->uptime_ms / 1000;
    char performance[80];
    bool image = w->type == WORKER_IMAGE;
    snprintf(performance, sizeof performance,
             image ? "%.1f megapixelsteps per second" : "%.1f seconds per form",
             image && seconds > 0 ? w->megapixelsteps / seconds : 1.0);
    json_t *o = json_object();
    json_object_set_new(o, "requests_fulfilled", json_integer(w->fulfilled));
    json_object_set_new(o, "kudos_rewards", kudos(w->earned_milli + w->uptime_milli));
    json_object_set_new(o, "kudos_details",
                        json_pack("{s:o,s:o}", "generated",
                                  w->earned_milli ? kudos(w->earned_milli) : json_null(), "uptime",
                                  w->uptime_milli ? kudos(w->uptime_milli) : json_null()));
    json_object_set_new(o, "performance", json_string(performance));
    json_object_set_new(o, "threads", json_integer(1));
    json_object_set_new(o, "uptime", json_integer(w->uptime_ms / 1000));
    json_object_set_new(o, "maintenance_mode", json_boolean(w->maintenance));
    json_object_set_new(o, "nsfw", json_boolean(w->nsfw));
    json_object_set_new(o, "trusted", json_boolean(w->owner->trusted));
    json_object_set_new(o, "flagged", json_boolean(w->owner->flagged));
    json_object_set_new(o, "uncompleted_jobs", json_integer(w->uncompleted));
    json_object_set(o, image ? "models" : "forms", w->models);
    json_object_set_new(o, "team", json_pack("{s:n,s:n}", "name", "id"));
    json_object_set_new(o, "bridge_agent", json_string(w->bridge_agent));
    if (image) {
        json_object_set_new(o, "max_pixels", json_integer((json_int_t)w->max_pixels));
        json_object_set_new(o, "megapixelsteps_generated", json_real(round(w->megapixelsteps)));
        json_object_set_new(o, "lora", json_boolean(w->lora));
    }
    json_object_set_new(o, "type", json_string(image ? "image" : "interrogation"));
    json_object_set_new(o, "name", json_string(w->name));
    json_object_set_new(o, "id", json_string(w->id));
    json_object_set_new(o, "online", json_boolean(now - w->last_ms < OFFLINE_MS));
    if (w->info[0]) json_object_set_new(o, "info", json_string(w->info));
    return o;
}

/* ---- routes ----------------------------------------------------------------------------- */

void people_find_user(struct practice *p, struct call *c)
{
    const struct sharedkey *k = sharedkey_find(p, c->key);
    if (k) { /* its owner's page as strangers see it */
        char name[400];
        snprintf(name, sizeof name, "%s (Shared Key%s%s)", k->owner->alias, k->name ? ": " : "",
                 k->name ? k->name : "");
        c->reply = people_user_json(p, k->owner, false);
        json_object_set_new(c->reply, "username", json_string(name));
        return;
    }
    if (!call_authenticate(p, c, 404, "UserNotFound")) return;
    c->reply = cached(p, "find_user", c->user->alias, people_user_json(p, c->user, true));
}

void people_users(struct practice *p, struct call *c)
{
    c->reply = json_array();
    for (int i = 0; i < p->user_count; i++)
        json_array_append_new(c->reply, people_user_json(p, p->users[i], false));
}

void people_get_user(struct practice *p, struct call *c)
{
    int64_t id;
    if (!str_parse_i64(c->args[0], &id) || id < 0 || id >= p->user_count) {
        call_fail(c, 404, "UserNotFound", "User with ID '%s' not found.", c->args[0]);
        return;
    }
    struct user *asking = people_find(p, c->key);
    c->reply = cached(p, asking == p->users[id] ? "own user" : "user", c->args[0],
                      people_user_json(p, p->users[id], asking == p->users[id]));
}

void people_workers(struct practice *p, struct call *c)
{
    int64_t now = practice_ms(p);
    c->reply = json_array();
    for (int i = 0; i < p->worker_count; i++) {
        struct worker *w = p->workers[i];
        bool fits =
            !c->query || str_equal(c->query, w->type == WORKER_IMAGE ? "image" : "interrogation");
        if (fits && now - w->last_ms < OFFLINE_MS)
            json_array_append_new(c->reply, people_worker_json(p, w));
    }
}

static struct worker *by_id(struct practice *p, struct call *c)
{
    int i = practice_index(c->args[0]);
    for (i = 0; i < p->worker_count; i++)
        if (str_equal(p->workers[i]->id, c->args[0])) return p->workers[i];
    call_fail(c, 404, "WorkerNotFound", "Worker with ID '%s' not found.", c->args[0]);
    return NULL;
}

void people_get_worker(struct practice *p, struct call *c)
{
    struct worker *w = by_id(p, c);
    if (w) c->reply = cached(p, "worker", w->id, people_worker_json(p, w));
}

void people_name_worker(struct practice *p, struct call *c)
{
    struct worker *w = people_worker(p, c->args[0]);
    if (!w)
        call_fail(c, 404, "WorkerNotFound", "Worker with name '%s' not found.", c->args[0]);
    else
        c->reply = cached(p, "worker", w->id, people_worker_json(p, w));
}

void people_put_worker(struct practice *p, struct call *c)
{
    struct worker *w = by_id(p, c);
    if (!w || !call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    if (c->user != w->owner) {
        call_fail(c, 403, "NotOwner", "This worker is somebody else's.");
        return;
    }
    const json_t *maintenance = json_object_get(c->body, "maintenance");
    const char *message = json_string_value(json_object_get(c->body, "maintenance_msg"));
    const char *info = json_string_value(json_object_get(c->body, "info"));
    const char *name = json_string_value(json_object_get(c->body, "name"));
    if (!json_is_boolean(maintenance) && !info && !name) {
        call_fail(c, 400, "NoWorkerModSelected", "Please select a worker modification.");
        return;
    }
    c->reply = json_object();
    if (json_is_boolean(maintenance)) {
        w->maintenance = json_is_true(maintenance);
        str_copy(w->maintenance_msg, sizeof w->maintenance_msg,
                 message ? message : "This worker has been put into maintenance mode by its owner");
        json_object_set_new(c->reply, "maintenance", json_boolean(w->maintenance));
    }
    if (info) {
        str_copy(w->info, sizeof w->info, info);
        json_object_set_new(c->reply, "info", json_string(info));
    }
    if (name) {
        if (people_worker(p, name) && people_worker(p, name) != w) {
            call_fail(c, 400, "WorkerNameAlreadyExists", "This name is taken.");
            return;
        }
        str_copy(w->name, sizeof w->name, name);
        json_object_set_new(c->reply, "name", json_string(name));
    }
}

void people_delete_worker(struct practice *p, struct call *c)
{
    struct worker *w = by_id(p, c);
    if (!w || !call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    if (c->user != w->owner)
        call_fail(c, 403, "NotOwner", "This worker is somebody else's.");
    else
        call_fail(c, 423, "Locked", "Jobs still refer to this worker. Try again later.");
}

void people_transfer(struct practice *p, struct call *c)
{
    if (!call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    const char *name = json_string_value(json_object_get(c->body, "username"));
    const json_t *amount = json_object_get(c->body, "amount");
    const char *hash = name ? strrchr(name, '#') : NULL;
    int64_t id, sum = json_is_integer(amount) ? json_integer_value(amount) * 1000 : 100000;
    struct sharedkey *key = sharedkey_find(p, name);
    if (!key && (!hash || !str_parse_i64(hash + 1, &id) || id < 0 || id >= p->user_count)) {
        call_fail(c, 400, "InvalidTargetUsername", "Invalid target username.");
        return;
    }
    struct user *to = key ? key->owner : p->users[id];
    if (key && sharedkey_expired(p, key))
        call_fail(c, 400, "SharedKeyExpired", "This shared key has expired");
    else if (to == c->user)
        call_fail(c, 400, "KudosTransferToSelf", "Kudos cannot be sent to oneself.");
    else if (to->anonymous)
        call_fail(c, 400, "KudosTransferToAnon", "Kudos cannot be sent to Anonymous.");
    else if (c->user->anonymous)
        call_fail(c, 400, "KudosTransferFromAnon", "Anonymous cannot send kudos.");
    else if (sum < 0)
        call_fail(c, 400, "NegativeKudosTransfer", "A negative amount.");
    else if (sum > c->user->balance_milli)
        call_fail(c, 400, "KudosTransferNotEnough", "Not enough kudos.");
    if (c->reply) return;
    for (int i = 0; c->idempotency && i < p->cache_count; i++)
        if (str_equal(p->cache[i].what, c->idempotency)) {
            c->reply = json_incref(p->cache[i].page);
            return;
        }
    c->user->gifted_milli += sum;
    to->received_milli += sum;
    log_posting(p, "gifted", c->user, NULL, sum, -sum);
    log_posting(p, "received", to, NULL, sum, sum);
    post(p, c->user, -sum);
    post(p, to, sum);
    sharedkey_fill(key, sum);
    c->reply = json_pack("{s:o}", "transferred", kudos(sum));
    if (!c->idempotency) return;
    p->cache = alloc_grow(p->cache, (size_t)p->cache_count + 1, sizeof *p->cache);
    struct cached *kept = &p->cache[p->cache_count++];
    memset(kept, 0, sizeof *kept);
    str_copy(kept->what, sizeof kept->what, c->idempotency);
    kept->page = json_incref(c->reply);
}
