/*
 * What can go wrong on purpose (reliability.md section 8). Kinds:
 *   before the request is looked at   status (status, rc, retry_after, message), redirect (location),
 *                                     reset, hang (ms), refuse (ms: nobody listens, from now on)
 *   after it was done                 drop, drop_reset, cut, twice, delay (ms), slow_headers,
 *                                     slow_body (ms)
 *   in the answer                     html, truncated, flood, duplicate_keys, nul, wrong_types,
 *                                     mismatch (one upload URL too few), ttl (ms: TTL of the job)
 *   in the store                      lost (200 but not kept)
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "practice.h"

static const char *const before[] = {"status", "redirect", "reset", "hang", NULL};
static const char *const others[] = {
    "refuse",       "drop",        "drop_reset", "cut",       "twice", "delay",
    "slow_headers", "slow_body",   "html",       "truncated", "flood", "duplicate_keys",
    "nul",          "wrong_types", "mismatch",   "ttl",       "lost",  NULL};

static bool listed(const char *word, const char *const *list)
{
    for (int i = 0; list[i]; i++)
        if (str_equal(word, list[i])) return true;
    return false;
}

static const char *text_of(const json_t *o, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : otherwise;
}

static int int_of(const json_t *o, const char *key, int otherwise)
{
    json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (int)json_integer_value(v) : otherwise;
}

int fault_add(struct practice *p, const json_t *o, struct error *err)
{
    struct fault f = {.nth = int_of(o, "nth", 1),
                      .every = int_of(o, "every", 0),
                      .count = int_of(o, "count", 1),
                      .status = int_of(o, "status", 500),
                      .ms = int_of(o, "ms", 0),
                      .retry_after = int_of(o, "retry_after", -1)};
    str_copy(f.on, sizeof f.on, text_of(o, "on", "any"));
    str_copy(f.kind, sizeof f.kind, text_of(o, "kind", ""));
    str_copy(f.rc, sizeof f.rc, text_of(o, "rc", ""));
    str_copy(f.location, sizeof f.location, text_of(o, "location", "/practice/trap"));
    str_copy(f.message, sizeof f.message, text_of(o, "message", "a practice fault"));
    if (!listed(f.kind, before) && !listed(f.kind, others))
        return error_set(err, ERR_INVALID, "fault kind \"%s\" is not known", f.kind);
    if (str_equal(f.kind, "redirect") && f.status < 300) f.status = 307;
    if (str_equal(f.kind, "redirect") && f.status >= 400) f.status = 307;
    if (str_equal(f.kind, "refuse")) {
        p->closed_from_ms = practice_ms(p) + 60; /* the answer to this one gets out */
        p->closed_until_ms = p->closed_from_ms + (f.ms ? f.ms : 2000);
        return 0;
    }
    p->faults = alloc_grow(p->faults, (size_t)p->fault_count + 1, sizeof *p->faults);
    p->faults[p->fault_count++] = f;
    return 0;
}

int fault_load(struct practice *p, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, 4 << 20);
    int rc = buf_read_file(&b, path, err), line = 0;
    char *rest = (char *)b.data;
    while (!rc && rest && *rest) {
        char *end = strchr(rest, '\n'), *text = rest;
        if (end) *end = '\0';
        rest = end ? end + 1 : NULL;
        line++;
        if (!*text || *text == '#') continue;
        json_t *o = json_loads(text, 0, NULL);
        rc = o ? fault_add(p, o, err) : error_set(err, ERR_FORMAT, "not valid JSON");
        if (rc) rc = error_wrap(err, rc, "%s line %d", path, line);
        json_decref(o);
    }
    buf_release(&b);
    return rc;
}

void fault_clear(struct practice *p)
{
    free(p->faults);
    p->faults = NULL;
    p->fault_count = 0;
}

static bool strikes(struct fault *f)
{
    int past = ++f->seen - f->nth;
    if (past < 0) return false;
    if (f->every) return past % f->every == 0 && (!f->count || f->hit < f->count);
    return past < f->count || !f->count;
}

void fault_find(struct practice *p, struct call *c)
{
    for (int i = 0; i < p->fault_count; i++) {
        struct fault *f = &p->faults[i];
        bool mine = str_equal(f->on, c->kind) || str_equal(f->on, "any");
        if (!mine || !strikes(f)) continue;
        f->hit++;
        if (c->faulty) continue; /* one at a time; both count */
        c->fault = *f;
        c->faulty = true;
    }
}

bool fault_answers(struct call *c)
{
    const struct fault *f = &c->fault;
    if (!c->faulty || !listed(f->kind, before)) return false;
    c->status = f->status;
    c->retry_after = f->retry_after;
    if (str_equal(f->kind, "redirect")) {
        str_copy(c->location, sizeof c->location, f->location);
        return true;
    }
    c->reply = json_pack("{s:s}", "message", f->message);
    if (f->rc[0]) json_object_set_new(c->reply, "rc", json_string(f->rc));
    return true;
}

static char *flood(size_t *length)
{
    *length = 20u << 20;
    char *text = alloc_zero(*length + 1, 1);
    text[0] = '[';
    for (size_t i = 1; i + 3 < *length; i += 3) memcpy(text + i, "{},", 3);
    memcpy(text + *length - 3, "{}]", 3);
    for (size_t i = *length - 5; i < *length - 3; i++)
        if (!text[i]) text[i] = ' ';
    return text;
}

/* {"a":1,...} -> {"a":1,"a":1,...}: the first member twice */
static char *doubled(const char *body, size_t *length)
{
    json_t *o = json_loads(body, 0, NULL);
    const char *key = json_object_iter_key(json_object_iter(o));
    char *value = key ? json_dumps(json_object_get(o, key), JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *text = value ? alloc_printf("{\"%s\":%s,%s", key, value, body + 1) : alloc_string(body);
    *length = strlen(text);
    free(value);
    json_decref(o);
    return text;
}

/* Every number becomes a text, every text a number, every list an object. */
static json_t *mistyped(const json_t *v)
{
    const char *key;
    json_t *member;
    if (json_is_object(v)) {
        json_t *o = json_object();
        json_object_foreach((json_t *)v, key, member)
        {
            json_object_set_new(o, key, mistyped(member));
        }
        return o;
    }
    if (json_is_array(v)) return json_pack("{s:O}", "list", v);
    if (json_is_number(v)) return json_string("seven");
    if (json_is_string(v)) return json_integer(7);
    return json_is_boolean(v) ? json_string("perhaps") : json_incref((json_t *)v);
}

void fault_spoil(struct call *c, char **body, size_t *length)
{
    const char *kind = c->fault.kind;
    char *spoiled = NULL;
    size_t n = *length;
    if (str_equal(kind, "html")) {
        spoiled = alloc_string("<!doctype html><title>200</title><h1>All is well</h1>\n");
        n = strlen(spoiled);
        c->type = "text/html; charset=utf-8";
        c->status = 200;
    } else if (str_equal(kind, "flood")) {
        spoiled = flood(&n);
    } else if (!*body) {
        return;
    } else if (str_equal(kind, "truncated")) {
        n = n * 2 / 3;
        spoiled = alloc_string_n(*body, n);
    } else if (str_equal(kind, "duplicate_keys")) {
        spoiled = doubled(*body, &n);
    } else if (str_equal(kind, "nul")) {
        spoiled = alloc_string(*body);
        spoiled[n / 2] = '\0';
    } else if (str_equal(kind, "wrong_types")) {
        json_t *o = json_loads(*body, JSON_DECODE_ANY, NULL), *wrong = mistyped(o);
        spoiled = json_dumps(wrong, JSON_COMPACT | JSON_ENCODE_ANY);
        n = strlen(spoiled);
        json_decref(o);
        json_decref(wrong);
    } else if (str_equal(kind, "mismatch")) {
        json_t *o = json_loads(*body, 0, NULL), *urls = json_object_get(o, "r2_uploads");
        if (json_array_size(urls)) json_array_remove(urls, json_array_size(urls) - 1);
        spoiled = json_dumps(o, JSON_COMPACT);
        n = strlen(spoiled);
        json_decref(o);
    }
    if (!spoiled) return;
    free(*body);
    *body = spoiled;
    *length = n;
}
