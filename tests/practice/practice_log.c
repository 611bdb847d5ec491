#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "practice.h"

#define VEILED "00000000-0000-4000-a000-000000000000"
#define QUOTED_MAX 8192 /* longer bodies are noted by their size */

void log_json(struct practice *p, json_t *line)
{
    if (p->log) {
        json_object_set_new(line, "n", json_integer((json_int_t)p->serial++));
        json_dumpf(line, p->log, JSON_COMPACT);
        fputc('\n', p->log);
        fflush(p->log);
    }
    json_decref(line);
}

/* The whole body, or its size; base64 pictures and upload URLs are of no use in a log. */
static json_t *quoted(const json_t *body)
{
    if (!body) return json_null();
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    size_t length = text ? strlen(text) : 0;
    free(text);
    if (length > QUOTED_MAX) return json_pack("{s:I}", "bytes", (json_int_t)length);
    return json_incref((json_t *)body);
}

static bool names_a_key(const char *text)
{
    return text && str_starts(text, "Shared Key ");
}

/* A copy in which each shared key's id, which is a key, is but told to be there. */
static json_t *veiled(json_t *o)
{
    static const char *const secret[] = {"id", "sharedkey", "username"};
    json_t *copy = json_deep_copy(o);
    json_t *ids = json_object_get(copy, "sharedkey_ids");
    for (size_t i = 0; i < json_array_size(ids); i++)
        json_array_set_new(ids, i, json_string(VEILED));
    if (ids) return copy;
    if (names_a_key(json_string_value(json_object_get(copy, "message"))))
        json_object_set_new(copy, "message", json_string("Shared Key " VEILED " ..."));
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++) {
        const char *text = json_string_value(json_object_get(copy, secret[i]));
        bool alias = str_equal(secret[i], "username") && text && strchr(text, '#');
        if (text && !alias) json_object_set_new(copy, secret[i], json_string(VEILED));
    }
    return copy;
}

static bool is_about_keys(const struct call *c)
{
    return c->kind && (str_starts(c->kind, "sharedkey") || str_equal(c->kind, "style_post") ||
                       str_equal(c->kind, "transfer") || str_starts(c->kind, "user"));
}

void log_exchange(struct practice *p, const struct call *c)
{
    if (!p->log) return;
    json_t *line =
        json_pack("{s:I,s:s,s:s,s:s,s:i}", "t", (json_int_t)practice_ms(p), "call",
                  c->kind ? c->kind : "none", "method", c->method, "path",
                  c->kind && str_starts(c->kind, "sharedkey") ? "/api/v2/sharedkeys/*" : c->path,
                  "status", c->status);
    if (c->user) json_object_set_new(line, "user", json_string(c->user->alias));
    if (c->agent) json_object_set_new(line, "agent", json_string(c->agent));
    if (c->faulty) json_object_set_new(line, "fault", json_string(c->fault.kind));
    if (c->note[0]) json_object_set_new(line, "note", json_string(c->note));
    bool veil = is_about_keys(c);
    json_t *request = veil ? veiled(c->body) : json_incref(c->body);
    json_t *reply = veil ? veiled(c->reply) : json_incref(c->reply);
    if (request) json_object_set_new(line, "request", quoted(request));
    if (reply) json_object_set_new(line, "reply", quoted(reply));
    json_decref(request);
    json_decref(reply);
    if (c->length && !c->body)
        json_object_set_new(line, "bytes", json_integer((json_int_t)c->length));
    log_json(p, line);
}

void log_posting(struct practice *p, const char *what, const struct user *u, const char *job,
                 int64_t told_milli, int64_t credited_milli)
{
    if (!p->log) return;
    log_json(p, json_pack("{s:I,s:s,s:s,s:s,s:I,s:I}", "t", (json_int_t)practice_ms(p), "posting",
                          what, "user", u->alias, "job", job ? job : "", "told_milli",
                          (json_int_t)told_milli, "credited_milli", (json_int_t)credited_milli));
}

void log_state(struct practice *p, const char *kind, const char *id, const char *state,
               const struct worker *w)
{
    if (!p->log) return;
    json_t *line =
        json_pack("{s:I,s:s,s:s}", "t", (json_int_t)practice_ms(p), kind, id, "state", state);
    if (w) json_object_set_new(line, "worker", json_string(w->name));
    log_json(p, line);
}
