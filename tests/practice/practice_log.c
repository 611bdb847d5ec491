#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "practice.h"

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

void log_exchange(struct practice *p, const struct call *c)
{
    if (!p->log) return;
    json_t *line = json_pack("{s:I,s:s,s:s,s:s,s:i}", "t", (json_int_t)practice_ms(p), "call",
                             c->kind ? c->kind : "none", "method", c->method, "path", c->path,
                             "status", c->status);
    if (c->user) json_object_set_new(line, "user", json_string(c->user->alias));
    if (c->agent) json_object_set_new(line, "agent", json_string(c->agent));
    if (c->faulty) json_object_set_new(line, "fault", json_string(c->fault.kind));
    if (c->note[0]) json_object_set_new(line, "note", json_string(c->note));
    if (c->body) json_object_set_new(line, "request", quoted(c->body));
    if (c->reply) json_object_set_new(line, "reply", quoted(c->reply));
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
