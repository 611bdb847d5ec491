#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "practice.h"

#define FAULTS_PER_REQUEST 3
#define SUSPICIOUS_SPEED 20e6
#define SUSPICION_LIMIT 5

/* ---- the worker that pops --------------------------------------------------------------- */

static bool check_body(struct call *c)
{
    static const char *const wholes[] = {"threads", "amount", "max_pixels"};
    static const char *const flags[] = {"nsfw",
                                        "allow_img2img",
                                        "allow_painting",
                                        "allow_lora",
                                        "allow_post_processing",
                                        "allow_controlnet",
                                        "allow_sdxl_controlnet",
                                        "allow_unsafe_ipaddr",
                                        "require_upfront_kudos",
                                        "extra_slow_worker",
                                        "limit_max_steps"};
    json_t *v, *user;
    size_t i;
    if (!json_is_object(c->body)) {
        c->status = 400;
        c->reply = json_pack("{s:s}", "message", "The server could not understand the request.");
        return false;
    }
    if (!json_is_string(json_object_get(c->body, "name")))
        call_invalid(c, "name", "Missing required parameter in the JSON body");
    for (i = 0; i < COUNT_OF(wholes); i++) {
        v = json_object_get(c->body, wholes[i]);
        if (v && !json_is_integer(v))
            call_invalid(c, wholes[i], "this is not of type 'integer'");
        else if (v && json_integer_value(v) < 1)
            call_invalid(c, wholes[i], "%lld is less than the minimum of 1", json_integer_value(v));
    }
    for (i = 0; i < COUNT_OF(flags); i++) {
        v = json_object_get(c->body, flags[i]);
        if (v && !json_is_boolean(v)) call_invalid(c, flags[i], "this is not of type 'boolean'");
    }
    if (c->reply) return false;
    json_array_foreach(json_object_get(c->body, "priority_usernames"), i, user)
    {
        if (!json_is_string(user) || !strchr(json_string_value(user), '#')) {
            call_fail(c, 400, "InvalidPriorityUsername", "Priority usernames are alias#number.");
            return false;
        }
    }
    return true;
}

static struct worker *check_in(struct practice *p, struct call *c, enum worker_type type,
                               const char *list)
{
    const char *name = json_string_value(json_object_get(c->body, "name"));
    const char *agent = json_string_value(json_object_get(c->body, "bridge_agent"));
    struct worker *w = people_worker(p, name);
    int64_t now = practice_ms(p);
    if (w && w->type != type) {
        call_fail(c, 400, "PolymorphicNameConflict",
                  "The specified name '%s' is already taken by a different type of worker.", name);
        return NULL;
    }
    if (w && w->owner != c->user) {
        call_fail(c, 403, "WrongCredentials", "Wrong credentials to submit as this worker.");
        return NULL;
    }
    if (!w && p->invite_only_mode) {
        call_fail(c, 403, "WorkerInviteOnly", "This horde takes new workers by invitation only.");
        return NULL;
    }
    if (!w) {
        w = alloc_zero(1, sizeof *w);
        practice_id(p, w->id, p->worker_count);
        str_copy(w->name, sizeof w->name, name);
        w->type = type;
        w->owner = c->user;
        w->first_ms = now;
        p->workers = alloc_grow(p->workers, (size_t)p->worker_count + 1, sizeof *p->workers);
        p->workers[p->worker_count++] = w;
        log_state(p, "worker", w->id, "new", w);
    }
    str_copy(w->bridge_agent, sizeof w->bridge_agent, agent ? agent : "unknown:0:unknown");
    json_decref(w->models);
    w->models = json_incref(json_object_get(c->body, list));
    w->model_count = (int)json_array_size(w->models);
    people_check_in(p, w, now);
    return w;
}

/* ---- may this worker have that request? ------------------------------------------------- */

struct popping {
    struct worker *worker;
    const json_t *body;
    struct capability_set can;
    const char *model; /* chosen */
    json_t *skipped;
};

static void skip(struct popping *x, const char *why)
{
    json_t *v = json_object_get(x->skipped, why);
    json_object_set_new(x->skipped, why, json_integer(json_integer_value(v) + 1));
}

static bool allows(const struct popping *x, const char *key, bool otherwise)
{
    json_t *v = json_object_get(x->body, key);
    return v ? json_is_true(v) : otherwise;
}

static bool contains(const json_t *list, const char *text)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        if (str_equal(json_string_value(v), text)) return true;
    }
    return false;
}

static const char *common_model(const struct popping *x, const struct image_ask *a)
{
    size_t i;
    json_t *v;
    const json_t *offered = json_object_get(x->body, "models");
    if (json_array_size(a->models) == 0) return json_string_value(json_array_get(offered, 0));
    json_array_foreach(a->models, i, v)
    {
        if (contains(offered, json_string_value(v))) return json_string_value(v);
    }
    return NULL;
}

static bool blacklisted(const struct popping *x, const struct image_ask *a)
{
    const char *prompt = json_string_value(json_object_get(a->payload, "prompt"));
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(x->body, "blacklist"), i, v)
    {
        if (json_is_string(v) && prompt && strcasestr(prompt, json_string_value(v))) return true;
    }
    return false;
}

/* The real gate: the name's promises must cover what the request needs (horde-api 5.3). */
static bool passes_gate(struct practice *p, const struct popping *x, const struct image_ask *a)
{
    if (!p->options.gate_real || !a->gate.count) return true;
    if (a->r2 && !capability_has(&x->can, CAPABILITY_R2)) return false;
    return capability_refuse(&x->can, &a->gate, price_family(a->model_asked), NULL) == 0;
}

/* Who says which post-processors it can do: a name of the server's table by its row; any other by the forms
 * that its owner's alchemist asks for, if that one exists. Who says nothing gets all. */
static bool says_it_can(struct practice *p, const struct popping *x, const char *post)
{
    enum capability c;
    const char *agent = x->worker->bridge_agent;
    bool named = false, says = true;
    if (!capability_find_post(post, &c)) return true;
    if (capability_agent_known(agent)) return capability_has(&x->can, c);
    for (int i = 0; i < p->worker_count; i++) {
        const struct worker *w = p->workers[i];
        if (w->type != WORKER_ALCHEMIST || w->owner != x->worker->owner) continue;
        if (!named) says = false;
        named = true;
        says = says || contains(w->models, post);
    }
    return says;
}

static bool can_post_process(struct practice *p, const struct popping *x, const struct image_ask *a)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(a->payload, "post_processing"), i, v)
    {
        if (!says_it_can(p, x, json_string_value(v))) return false;
    }
    return true;
}

static bool suits(struct practice *p, struct popping *x, const struct image_ask *a)
{
    const json_t *q = a->payload;
    bool painting = !str_equal(a->source_processing, "img2img");
    int64_t max_pixels = 262144;
    json_t *v = json_object_get(x->body, "max_pixels");
    const char *why = NULL;
    if (json_is_integer(v)) max_pixels = json_integer_value(v);
    x->model = common_model(x, a);
    if (json_array_size(a->workers) && !contains(a->workers, x->worker->id))
        why = "worker_id";
    else if (a->trusted_workers && !x->worker->owner->trusted)
        why = "untrusted";
    else if (a->nsfw && !allows(x, "nsfw", true))
        why = "nsfw";
    else if (blacklisted(x, a))
        why = "blacklist";
    else if (!x->model)
        why = "models";
    else if ((int64_t)a->width * a->height > max_pixels)
        why = "max_pixels";
    else if (allows(x, "extra_slow_worker", false) && !a->extra_slow)
        why = "performance";
    else if (a->has_source && !painting && !allows(x, "allow_img2img", true))
        why = "img2img";
    else if (painting && !allows(x, "allow_painting", true))
        why = "painting";
    else if (json_array_size(json_object_get(q, "post_processing")) &&
             !allows(x, "allow_post_processing", true))
        why = "post-processing";
    else if (!can_post_process(p, x, a))
        why = "bridge_version";
    else if (json_array_size(json_object_get(q, "loras")) && !allows(x, "allow_lora", false))
        why = "lora";
    else if (json_is_true(json_object_get(q, "transparent")) &&
             !allows(x, "allow_sdxl_controlnet", false))
        why = "bridge_version";
    else if (json_object_get(q, "control_type") && !allows(x, "allow_controlnet", false))
        why = "controlnet";
    else if (!passes_gate(p, x, a))
        why = a->r2 && !capability_has(&x->can, CAPABILITY_R2) ? "" : "bridge_version";
    if (why && *why) skip(x, why); /* requests hidden for r2 are counted nowhere */
    return !why;
}

static bool waits(const struct image_ask *a)
{
    return a->waiting > 0 && !a->faulted && !a->canceled;
}

static struct image_ask *choose(struct practice *p, struct popping *x)
{
    const json_t *friends = json_object_get(x->body, "priority_usernames");
    for (int pass = 0; pass < 2; pass++) {
        for (int i = p->first_open; i < p->ask_count; i++) {
            struct image_ask *a = p->asks[i];
            bool own = a->user == x->worker->owner;
            bool first = own || contains(friends, a->user->alias);
            if (!waits(a) || (pass == 0) != first) continue;
            if (x->worker->maintenance && !own) continue;
            if (suits(p, x, a)) return a;
        }
    }
    return NULL;
}

/* ---- giving ----------------------------------------------------------------------------- */

static int batch_size(const struct popping *x, const struct image_ask *a)
{
    json_t *v = json_object_get(x->body, "amount"), *m = json_object_get(x->body, "max_pixels");
    int amount = json_is_integer(v) ? (int)json_integer_value(v) : 1;
    double pixels = json_is_integer(m) ? (double)json_integer_value(m) : 262144;
    size_t posts = json_array_size(json_object_get(a->payload, "post_processing"));
    double cost = (double)a->width * a->height * (1 + 0.4 * (double)posts);
    int safe = (int)lround(pixels / 3.5 * amount / cost);
    if (safe < 1) safe = 1;
    if (safe > amount) safe = amount;
    return safe < a->waiting ? safe : a->waiting;
}

static struct image_job *job_new(struct practice *p, struct image_ask *a, struct worker *w,
                                 uint64_t seed, int64_t ttl_ms)
{
    struct image_job *j = alloc_zero(1, sizeof *j);
    practice_id(p, j->id, p->job_count);
    j->ask = a;
    j->worker = w;
    j->given_ms = practice_ms(p);
    j->ttl_ms = ttl_ms;
    j->seed = seed;
    j->fake = w->paused && a->user != w->owner;
    j->metadata = json_array();
    j->reward_milli = price_job_milli(a);
    p->jobs = alloc_grow(p->jobs, (size_t)p->job_count + 1, sizeof *p->jobs);
    p->jobs[p->job_count++] = j;
    a->jobs = alloc_grow(a->jobs, (size_t)a->job_count + 1, sizeof *a->jobs);
    a->jobs[a->job_count++] = j;
    p->given++;
    if (j->fake) {
        p->fakes++;
    } else {
        a->waiting--;
        a->processing++;
    }
    log_state(p, "job", j->id, j->fake ? "given fake" : "given", w);
    return j;
}

static json_t *source(struct practice *p, const struct popping *x, const struct image_ask *a,
                      const char *suffix, bool there)
{
    char name[96];
    if (!there) return json_null();
    snprintf(name, sizeof name, "source/%s_%s", a->id, suffix);
    char *text;
    const struct object *o = store_find(p, name);
    if (p->options.gate_real && !capability_has(&x->can, CAPABILITY_R2_SOURCE))
        text = o ? store_encode_base64(o->data, o->length) : alloc_string("");
    else
        text = store_url(p, name);
    json_t *v = json_string(text);
    free(text);
    return v;
}

static json_t *skipped_zeroes(void)
{
    return json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "unsafe_ip", 0, "img2img",
                     0, "painting", 0, "post-processing", 0, "lora", 0, "controlnet", 0,
                     "worker_id", 0, "performance", 0, "nsfw", 0, "untrusted", 0, "models", 0,
                     "bridge_version", 0);
}

static json_t *messages_of(const struct worker *w)
{
    return w->messages ? json_incref(w->messages) : json_array();
}

static json_t *empty_pop(struct popping *x)
{
    return json_pack("{s:{s:i,s:i,s:b,s:b,s:s,s:f,s:i,s:i,s:b,s:b,s:b,s:b},s:n,s:[],s:o,s:n,s:O,"
                     "s:n,s:n,s:s,s:n,s:n,s:n,s:n}",
                     "payload", "ddim_steps", 30, "n_iter", 1, "image_is_control", 0,
                     "return_control_map", 0, "sampler_name", "k_euler_a", "cfg_scale", 7.5,
                     "height", 512, "width", 512, "karras", 0, "tiling", 0, "hires_fix", 0,
                     "transparent", 0, "id", "ids", "messages", messages_of(x->worker), "ttl",
                     "skipped", x->skipped, "model", "source_image", "source_processing", "img2img",
                     "source_mask", "extra_source_images", "r2_upload", "r2_uploads");
}

static json_t *give(struct practice *p, struct popping *x, struct image_ask *a, int64_t ttl_ms)
{
    int count = batch_size(x, a);
    uint64_t seed = a->seed + a->seed_variation * (uint64_t)a->next_index;
    json_t *ids = json_array(), *urls = json_array();
    char text[24];
    while (seed > 0xffffffff && a->seed <= 0xffffffff) seed >>= 1;
    a->next_index += count;
    for (int i = 0; i < count; i++) {
        struct image_job *j = job_new(p, a, x->worker, seed, ttl_ms);
        char name[96];
        snprintf(name, sizeof name, "transient/%s", j->id);
        char *url = store_url(p, name);
        json_array_append_new(ids, json_string(j->id));
        json_array_append_new(urls, json_string(url));
        free(url);
    }
    json_t *payload = json_copy(a->payload);
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    json_object_set_new(payload, "seed", json_string(text));
    json_object_set_new(payload, "n_iter", json_integer(count));
    int ttl = (int)(ttl_ms / 1000);
    return json_pack("{s:o,s:O,s:o,s:o,s:i,s:{},s:s,s:o,s:s,s:o,s:n,s:O,s:o}", "payload", payload,
                     "id", json_array_get(ids, 0), "ids", ids, "messages", messages_of(x->worker),
                     "ttl", ttl ? ttl : 1, "skipped", "model", x->model, "source_image",
                     source(p, x, a, "src", a->has_source), "source_processing",
                     a->source_processing, "source_mask", source(p, x, a, "msk", a->has_mask),
                     "extra_source_images", "r2_upload", json_array_get(urls, 0), "r2_uploads",
                     urls);
}

void pop_image(struct practice *p, struct call *c)
{
    if (!call_authenticate(p, c, 401, "InvalidAPIKey") || !check_body(c)) return;
    if (c->user->anonymous) {
        call_fail(c, 403, "AnonForbiddenWorker", "Anonymous may not run workers.");
        return;
    }
    struct worker *w = check_in(p, c, WORKER_IMAGE, "models");
    if (!w) return;
    w->nsfw = json_is_true(json_object_get(c->body, "nsfw"));
    w->lora = json_is_true(json_object_get(c->body, "allow_lora"));
    w->max_pixels = json_integer_value(json_object_get(c->body, "max_pixels"));
    if (!json_array_size(json_object_get(c->body, "models"))) {
        call_fail(c, 400, "BadRequest", "Workers serving unrecognised models are not accepted.");
        return;
    }
    if (c->user->flagged) {
        call_fail(c, 403, "WorkerFlaggedMaintenance", "The owner of this worker is flagged.");
        return;
    }
    struct popping x = {.worker = w,
                        .body = c->body,
                        .can = capability_agent_set(w->bridge_agent),
                        .skipped = skipped_zeroes()};
    struct image_ask *a = choose(p, &x);
    if (!a && w->maintenance) {
        call_fail(c, 403, "WorkerMaintenance", "%s", w->maintenance_msg);
    } else if (!a) {
        p->empties++;
        c->reply = empty_pop(&x);
    } else {
        int64_t ttl_ms = a->ttl_ms * (allows(&x, "extra_slow_worker", false) ? 3 : 1);
        if (c->faulty && str_equal(c->fault.kind, "ttl")) ttl_ms = c->fault.ms ? c->fault.ms : 1000;
        c->reply = give(p, &x, a, ttl_ms);
    }
    json_decref(x.skipped);
}

/* ---- taking back ------------------------------------------------------------------------ */

static bool check_submit(struct call *c)
{
    static const char *const types[] = {
#define X(name, text) text,
        METADATA_TYPE_TABLE(X)
#undef X
    };
    static const char *const values[] = {
#define X(name, text) text,
        METADATA_VALUE_TABLE(X)
#undef X
    };
    const char *state = json_string_value(json_object_get(c->body, "state"));
    const json_t *metadata = json_object_get(c->body, "gen_metadata");
    size_t i, k;
    json_t *m;
    if (!json_is_string(json_object_get(c->body, "id")))
        call_invalid(c, "id", "'id' is a required property");
    if (!json_object_get(c->body, "seed"))
        call_invalid(c, "seed", "'seed' is a required property");
    else if (!json_is_integer(json_object_get(c->body, "seed")))
        call_invalid(c, "seed", "this is not of type 'integer'");
    if (state && !str_equal(state, "ok") && !str_equal(state, "censored") &&
        !str_equal(state, "faulted") && !str_equal(state, "csam"))
        call_invalid(c, "state", "'%s' is not one of ['ok', 'censored', 'faulted', 'csam']", state);
    json_array_foreach(metadata, i, m)
    {
        const char *type = json_string_value(json_object_get(m, "type"));
        const char *value = json_string_value(json_object_get(m, "value"));
        for (k = 0; k < COUNT_OF(types) && !str_equal(type, types[k]);) k++;
        if (k == COUNT_OF(types)) call_invalid(c, "gen_metadata.type", "not one of the types");
        for (k = 0; k < COUNT_OF(values) && !str_equal(value, values[k]);) k++;
        if (k == COUNT_OF(values)) call_invalid(c, "gen_metadata.value", "not one of the values");
    }
    if (json_array_size(metadata) > 50)
        call_fail(c, 400, "BadRequest", "More than 50 metadata entries.");
    return !c->reply;
}

static struct image_job *job_find(struct practice *p, struct call *c)
{
    const char *id = json_string_value(json_object_get(c->body, "id"));
    int i = practice_index(id);
    if (i >= 0 && i < p->job_count && str_equal(p->jobs[i]->id, id)) return p->jobs[i];
    call_fail(c, 404, "InvalidJobID", "Processing Job with ID %.60s does not exist.", id);
    return NULL;
}

static void give_up(struct practice *p, struct image_job *j, enum job_state state)
{
    struct image_ask *a = j->ask;
    j->state = state;
    j->done_ms = practice_ms(p);
    people_abort(p, j->worker);
    if (state == JOB_FAULTED)
        p->faulted++;
    else
        p->aborted++;
    log_state(p, "job", j->id, state == JOB_FAULTED ? "faulted" : "aborted", j->worker);
    if (j->fake) return;
    a->processing--;
    a->restarted++;
    if (!a->canceled) a->waiting++;
    if (++a->faults >= FAULTS_PER_REQUEST && !a->finished) a->faulted = true;
    ask_settle(p, a);
}

static void suspect(struct practice *p, struct image_job *j)
{
    double seconds = (double)(practice_ms(p) - j->given_ms) / 1000;
    double work = (double)j->ask->width * j->ask->height * j->ask->work_steps;
    if (!p->options.suspicion || j->worker->owner->trusted) return;
    if (work / (seconds > 0.001 ? seconds : 0.001) < SUSPICIOUS_SPEED) return;
    if (++j->worker->suspicion >= SUSPICION_LIMIT) j->worker->paused = true;
}

static void notice_generation(struct image_job *j, const json_t *body)
{
    const char *generation = json_string_value(json_object_get(body, "generation"));
    size_t i;
    json_t *m;
    json_decref(j->metadata);
    j->metadata = json_deep_copy(json_object_get(body, "gen_metadata"));
    if (!j->metadata) j->metadata = json_array();
    json_array_foreach(j->metadata, i, m)
    {
        if (str_equal(json_string_value(json_object_get(m, "type")), "censorship"))
            j->censored = true;
    }
    if (generation && !str_equal(generation, "R2")) j->generation = alloc_string(generation);
}

static void finish(struct practice *p, struct image_job *j, struct call *c)
{
    struct image_ask *a = j->ask;
    j->state = JOB_DONE;
    j->done_ms = practice_ms(p);
    notice_generation(j, c->body);
    suspect(p, j);
    p->done++;
    p->told_milli += j->reward_milli;
    c->reply = json_pack("{s:f}", "reward", (double)j->reward_milli / 1000);
    log_state(p, "job", j->id, j->fake ? "done fake" : "done", j->worker);
    if (j->fake) {
        log_posting(p, "fake", j->worker->owner, j->id, j->reward_milli, 0);
        return;
    }
    j->worker->fulfilled++;
    j->worker->owner->fulfillments++;
    j->worker->megapixelsteps += (double)a->width * a->height * a->work_steps / 1e6;
    people_credit(p, "earned", j->worker, j->id, j->reward_milli,
                  capability_agent_factor_milli(j->worker->bridge_agent));
    a->processing--;
    a->finished++;
    if (!j->censored) {
        a->spent_milli += a->price_milli;
        ask_charge(p, a, a->price_milli);
    }
    ask_settle(p, a);
}

void submit_image(struct practice *p, struct call *c)
{
    if (!check_submit(c)) return;
    if (!call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    struct image_job *j = job_find(p, c);
    if (!j) return;
    const char *state = json_string_value(json_object_get(c->body, "state"));
    bool faulted = str_equal(state, "faulted");
    if (j->worker->owner != c->user) {
        call_fail(c, 403, "WrongCredentials", "Wrong credentials to submit as this worker.");
    } else if (j->state == JOB_DONE) {
        p->duplicates++;
        if (j->worker->maintenance)
            c->reply = json_pack("{s:f}", "reward", 0.0);
        else
            call_fail(c, 400, "DuplicateGen", "Processing Generation with ID %s already submitted.",
                      j->id);
    } else if (faulted && j->state == JOB_FAULTED) {
        c->reply = json_pack("{s:f}", "reward", 0.0);
    } else if (j->state != JOB_GIVEN) {
        call_fail(c, 400, "AbortedGen",
                  "Processing Generation with ID %s took too long to process and has been aborted!",
                  j->id);
    } else if (faulted) {
        give_up(p, j, JOB_FAULTED);
        c->reply = json_pack("{s:f}", "reward", 0.0);
    } else {
        finish(p, j, c);
    }
}

void jobs_sweep(struct practice *p)
{
    int64_t now = practice_ms(p);
    for (int i = 0; i < p->job_count; i++) {
        struct image_job *j = p->jobs[i];
        if (j->state == JOB_GIVEN && now - j->given_ms > j->ttl_ms) give_up(p, j, JOB_ABORTED);
    }
}
