#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "practice.h"
#include "proto/horde_interrogate.h"

/* ---- the Horde's own -------------------------------------------------------------------- */

void status_heartbeat(struct practice *p, struct call *c)
{
    c->reply = json_pack("{s:s,s:s,s:i,s:i,s:i,s:b}", "message", "OK", "version", "5.1.5", "queue",
                         0, "threads", 16, "active_count", 0, "db_connection", 1);
}

void status_modes(struct practice *p, struct call *c)
{
    c->reply = json_pack("{s:b,s:b,s:b}", "maintenance_mode", p->maintenance_mode,
                         "invite_only_mode", p->invite_only_mode, "raid_mode", 0);
}

/* Anybody may here: there is no moderator in a practice horde. */
void status_put_modes(struct practice *p, struct call *c)
{
    const json_t *m = json_object_get(c->body, "maintenance_mode");
    const json_t *i = json_object_get(c->body, "invite_only_mode");
    if (json_is_boolean(m)) p->maintenance_mode = json_is_true(m);
    if (json_is_boolean(i)) p->invite_only_mode = json_is_true(i);
    status_modes(p, c);
}

static void queue_of(struct practice *p, int *requests, double *pixelsteps)
{
    *requests = 0;
    *pixelsteps = 0;
    for (int i = p->first_open; i < p->ask_count; i++) {
        const struct image_ask *a = p->asks[i];
        if (a->done) continue;
        *requests += a->waiting;
        *pixelsteps += (double)a->waiting * a->width * a->height * a->steps;
    }
}

void status_performance(struct practice *p, struct call *c)
{
    int requests, images = 0, alchemists = 0, forms = 0;
    double pixelsteps;
    queue_of(p, &requests, &pixelsteps);
    for (int i = 0; i < p->worker_count; i++)
        *(p->workers[i]->type == WORKER_IMAGE ? &images : &alchemists) += 1;
    for (int i = 0; i < p->form_count; i++) forms += p->forms[i]->state == FORM_WAITING;
    c->reply =
        json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:f,s:i,s:i,s:f,s:f}", "queued_requests",
                  requests, "queued_text_requests", 0, "worker_count", images, "text_worker_count",
                  0, "thread_count", images, "text_thread_count", 0, "queued_megapixelsteps",
                  pixelsteps / 1e6, "past_minute_megapixelsteps", 0.0, "queued_forms",
                  (double)forms, "interrogator_count", alchemists, "interrogator_thread_count",
                  alchemists, "queued_tokens", 0.0, "past_minute_tokens", 0.0);
}

void status_models(struct practice *p, struct call *c)
{
    json_t *all = json_object(), *v;
    const char *name;
    for (int i = 0; i < p->worker_count; i++) {
        size_t k;
        if (p->workers[i]->type != WORKER_IMAGE) continue;
        json_array_foreach(p->workers[i]->models, k, v)
        {
            name = json_string_value(v);
            if (!name) continue;
            json_t *o = json_object_get(all, name);
            if (!o) {
                o = json_pack("{s:f,s:f,s:f,s:i,s:s,s:s,s:i}", "performance", 1e6, "queued", 0.0,
                              "jobs", 0.0, "eta", 0, "type", "image", "name", name, "count", 0);
                json_object_set_new(all, name, o);
            }
            int count = (int)json_integer_value(json_object_get(o, "count")) + 1;
            json_object_set_new(o, "count", json_integer(count));
        }
    }
    for (int i = p->first_open; i < p->ask_count; i++) {
        const struct image_ask *a = p->asks[i];
        json_t *o = json_object_get(all, a->model_asked);
        if (a->done || !o) continue;
        double queued = json_real_value(json_object_get(o, "queued"));
        double jobs = json_real_value(json_object_get(o, "jobs"));
        queued += (double)a->waiting * a->width * a->height * a->steps;
        json_object_set_new(o, "queued", json_real(queued));
        json_object_set_new(o, "jobs", json_real(jobs + a->waiting));
    }
    c->reply = json_array();
    json_object_foreach(all, name, v)
    {
        if (!c->args[0][0] || str_equal(c->args[0], name)) json_array_append(c->reply, v);
    }
    json_decref(all);
}

void status_news(struct practice *p, struct call *c)
{
    c->reply =
        json_pack("[{s:s,s:s,s:s,s:[s],s:s,s:[]}]", "date_published", "2026-11-24", "newspiece",
                  "This is a practice horde. Nothing here costs anything.", "importance",
                  "Information", "tags", "practice", "title", "A practice horde", "more_info_urls");
}

void status_stats(struct practice *p, struct call *c)
{
    json_t *models = json_object();
    for (int i = 0; i < p->ask_count; i++) {
        const char *name = p->asks[i]->model_asked;
        json_int_t n = json_integer_value(json_object_get(models, name)) + p->asks[i]->finished;
        json_object_set_new(models, name, json_integer(n));
    }
    c->reply = json_pack("{s:O,s:O,s:O}", "day", models, "month", models, "total", models);
    json_decref(models);
}

/* ---- swagger: only what a client probes (horde-api 18.6) -------------------------------- */

static json_t *texts(const char *const *list, size_t count)
{
    json_t *a = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(a, json_string(list[i]));
    return a;
}

/* What later servers have: pop fields in a part of their own, and words that a client may not know. */
static void describe_newer(json_t *swagger)
{
    json_t *d = json_object_get(swagger, "definitions");
    json_t *old = json_incref(json_object_get(d, "PopInputStable"));
    json_object_set_new(d, "PopInputStable",
                        json_pack("{s:[{s:s},{s:{s:{s:s},s:{s:s}}}]}", "allOf", "$ref",
                                  "#/definitions/PopInput", "properties",
                                  "allow_extended_controlnet", "type", "boolean",
                                  "sampler_execution_contract_version", "type", "string"));
    json_object_set_new(d, "PopInput", old);
    json_t *payload = json_object_get(json_object_get(d, "ModelPayloadRootStable"), "properties");
    json_t *samplers = json_object_get(json_object_get(payload, "sampler_name"), "enum");
    json_array_append_new(samplers, json_string("a_sampler_of_tomorrow"));
}

void status_swagger(struct practice *p, struct call *c)
{
#define X(name, text) text,
    static const char *const types[] = {METADATA_TYPE_TABLE(X)};
    static const char *const values[] = {METADATA_VALUE_TABLE(X)};
#undef X
#define X(name, text, result) text,
    static const char *const forms[] = {ALCHEMY_TABLE(X)};
#undef X
    static const char *const posts[] = {
        "GFPGAN",    "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B",
        "NMKD_Siax", "4x_AnimeSharp",     "CodeFormers",       "strip_background"};
    bool older = str_equal(p->options.swagger, "older");
    json_t *samplers = json_array(), *controls = json_array();
    for (int i = 0; i <= SAMPLER_LCM; i++)
        json_array_append_new(samplers, json_string(sampler_name((enum sampler)i)));
    for (int i = 0; capability_control_names[i]; i++)
        json_array_append_new(controls, json_string(capability_control_names[i]));
    c->reply = json_pack(
        "{s:s,s:{s:s,s:s},s:{s:{s:{s:{s:s},s:{s:s}}},s:{s:{s:{s:o}}},s:{s:{s:{s:o},s:{s:o}}},"
        "s:{s:{s:{s:o},s:{s:o},s:{s:s,s:{s:o}}}},s:{s:[{s:s}]}}}",
        "swagger", "2.0", "info", "title", "Practice horde", "version", "2.5", "definitions",
        "PopInputStable", "properties", "name", "type", "string", "models", "type", "array",
        "ModelInterrogationFormStable", "properties", "name", "enum",
        texts(forms, older ? 1 : COUNT_OF(forms)), "GenerationMetadataStable", "properties", "type",
        "enum", texts(types, older ? 1 : COUNT_OF(types)), "value", "enum",
        texts(values, COUNT_OF(values)), "ModelPayloadRootStable", "properties", "sampler_name",
        "enum", samplers, "control_type", "enum", controls, "post_processing", "type", "array",
        "items", "enum", texts(posts, COUNT_OF(posts)), "ModelGenerationInputStable", "allOf",
        "$ref", "#/definitions/ModelPayloadRootStable");
    if (str_equal(p->options.swagger, "newer")) describe_newer(c->reply);
}

/* ---- ours: /practice/... ---------------------------------------------------------------- */

void control_fault(struct practice *p, struct call *c)
{
    struct error err = {0};
    size_t i;
    json_t *o;
    int rc = json_is_object(c->body)  ? fault_add(p, c->body, &err)
             : json_is_array(c->body) ? 0
                                      : error_set(&err, ERR_FORMAT, "not valid JSON");
    json_array_foreach(c->body, i, o)
    {
        if (!rc) rc = fault_add(p, o, &err);
    }
    if (rc)
        call_fail(c, 400, "BadFault", "%s", err.text);
    else
        c->reply = json_pack("{s:i}", "faults", p->fault_count);
}

void control_clear(struct practice *p, struct call *c)
{
    fault_clear(p);
    c->reply = json_pack("{s:i}", "faults", 0);
}

/* {"name": W, "maintenance": true, "paused": true, "message": "hello"} */
void control_worker(struct practice *p, struct call *c)
{
    const char *name = json_string_value(json_object_get(c->body, "name"));
    struct worker *w = name ? people_worker(p, name) : NULL;
    const json_t *maintenance = json_object_get(c->body, "maintenance");
    const json_t *paused = json_object_get(c->body, "paused");
    const char *message = json_string_value(json_object_get(c->body, "message"));
    if (!w) {
        call_fail(c, 404, "WorkerNotFound", "no such worker");
        return;
    }
    if (json_is_boolean(maintenance)) w->maintenance = json_is_true(maintenance);
    if (json_is_boolean(maintenance) && !w->maintenance_msg[0])
        str_copy(w->maintenance_msg, sizeof w->maintenance_msg, "practice maintenance");
    if (json_is_boolean(paused)) w->paused = json_is_true(paused);
    if (message) {
        char id[ID_BYTES];
        practice_id(p, id, 0);
        json_decref(w->messages);
        w->messages = json_pack("[{s:s,s:s,s:s,s:s}]", "id", id, "message", message, "origin",
                                "Horde staff", "expiry", "Wed, 25 Nov 2026 10:39:55 -0000");
    }
    c->reply = people_worker_json(p, w);
}

/* {"turn_ms": N}: this server's clock jumps */
void control_clock(struct practice *p, struct call *c)
{
    now_turn_ms(json_integer_value(json_object_get(c->body, "turn_ms")));
    c->reply = json_pack("{s:I}", "ms", (json_int_t)practice_ms(p));
}

/* an async body, sent as the client account */
void control_fire(struct practice *p, struct call *c)
{
    struct image_ask *a = ask_new(p, p->users[1], c->body, c);
    if (!a) return;
    a->own = true;
    p->own_open++;
    p->fired++;
    c->reply = json_pack("{s:s}", "id", a->id);
}

void control_trap(struct practice *p, struct call *c)
{
    str_copy(c->note, sizeof c->note, "trap");
    c->reply = json_object();
}

json_t *practice_summary(struct practice *p)
{
    json_t *users = json_array();
    for (int i = 0; i < p->user_count; i++) {
        struct user *u = p->users[i];
        json_array_append_new(users,
                              json_pack("{s:s,s:I,s:I,s:I,s:I}", "user", u->alias, "balance_milli",
                                        (json_int_t)u->balance_milli, "pending_milli",
                                        (json_int_t)u->pending_milli, "escrow_milli",
                                        (json_int_t)u->escrow_milli, "accumulated_milli",
                                        (json_int_t)u->accumulated_milli));
    }
    return json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:I,s:I,s:I,s:o}", "requests",
                     p->ask_count, "fired", p->fired, "open", p->own_open, "given", p->given,
                     "done", p->done, "faulted", p->faulted, "aborted", p->aborted, "duplicates",
                     p->duplicates, "fakes", p->fakes, "told_milli", (json_int_t)p->told_milli,
                     "credited_milli", (json_int_t)p->credited_milli, "spent_milli",
                     (json_int_t)p->spent_milli, "users", users);
}

void control_state(struct practice *p, struct call *c)
{
    c->reply = practice_summary(p);
}
