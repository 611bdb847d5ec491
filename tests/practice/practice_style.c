/* Styles: kept by the server, applied by it to a request that names one. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "practice.h"

#define PAGE 25

static struct style *find(struct practice *p, const char *id, const char *name)
{
    for (int i = 0; i < p->style_count; i++) {
        struct style *s = p->styles[i];
        if (id && str_equal_nocase(s->id, id)) return s;
        if (name && str_equal(json_string_value(json_object_get(s->body, "name")), name)) return s;
    }
    return NULL;
}

bool style_uses_key(struct practice *p, const struct sharedkey *k)
{
    for (int i = 0; i < p->style_count; i++)
        if (p->styles[i]->sharedkey == k) return true;
    return false;
}

json_t *style_refs(struct practice *p, const struct user *u)
{
    json_t *list = json_array();
    for (int i = 0; i < p->style_count; i++)
        if (p->styles[i]->owner == u)
            json_array_append_new(list, json_pack("{s:O,s:s}", "name",
                                                  json_object_get(p->styles[i]->body, "name"), "id",
                                                  p->styles[i]->id));
    return list;
}

static json_t *details(const struct style *s)
{
    json_t *o = json_copy(s->body);
    json_object_del(o, "sharedkey");
    json_object_set_new(o, "id", json_string(s->id));
    json_object_set_new(o, "creator", json_string(s->owner->alias));
    json_object_set_new(o, "use_count", json_integer(s->use_count));
    return o;
}

/* ---- routes ----------------------------------------------------------------------------- */

static bool has(const json_t *list, const char *word)
{
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v) if (str_equal(json_string_value(v), word)) return true;
    return false;
}

static int by_use(const void *a, const void *b)
{
    const struct style *const *x = a, *const *y = b;
    return (*x)->use_count < (*y)->use_count ? 1 : -((*x)->use_count > (*y)->use_count);
}

/* The server's offset is page - 1 styles, not pages: page 2 begins with the second. */
void style_list(struct practice *p, struct call *c)
{
    int64_t page = 1;
    bool popular = !c->sort || str_equal(c->sort, "popular");
    if (c->page) str_parse_i64(c->page, &page);
    if (!popular && !str_equal(c->sort, "age")) {
        call_fail(c, 400, "BadRequest", "'model_state' needs to be one of ['popular', 'age']");
        return;
    }
    struct style **all = alloc_zero((size_t)p->style_count + 1, sizeof(struct style *));
    int n = 0;
    for (int i = 0; i < p->style_count; i++) {
        const json_t *body = p->styles[i]->body;
        bool fits = (!c->tag || has(json_object_get(body, "tags"), c->tag)) &&
                    (!c->model || has(json_object_get(body, "models"), c->model));
        if (fits && !json_is_false(json_object_get(body, "public"))) all[n++] = p->styles[i];
    }
    if (popular) qsort(all, (size_t)n, sizeof *all, by_use);
    c->reply = json_array();
    for (int64_t i = page - 1; i >= 0 && i < n && i < page - 1 + PAGE; i++)
        json_array_append_new(c->reply, details(all[i]));
    free(all);
}

static bool check(struct practice *p, struct call *c)
{
    const char *prompt = json_string_value(json_object_get(c->body, "prompt"));
    const json_t *models = json_object_get(c->body, "models");
    const char *key = json_string_value(json_object_get(c->body, "sharedkey"));
    if (!json_is_string(json_object_get(c->body, "name")))
        call_invalid(c, "name", "'name' is a required property");
    if (!prompt || strlen(prompt) < 7) call_invalid(c, "prompt", "the prompt is too short");
    if (c->reply || !call_authenticate(p, c, 401, "InvalidAPIKey")) return false;
    if (!json_array_size(models) || json_array_size(models) > 5)
        call_fail(c, 400, "BadRequest", "A style has to specify one to five models.");
    else if (!c->user->trusted)
        call_fail(c, 403, "StylesRequiresCustomizer",
                  "Only customizers and trusted users can create new styles.");
    else if (!strstr(prompt, "{p}"))
        call_fail(c, 400, "StylePromptMissingVars", "All style prompts need to have {p}.");
    else if (key && !sharedkey_find(p, key))
        call_fail(c, 400, "SharedKeyInvalid", "This shared key does not exist");
    else if (key && sharedkey_fault(p, sharedkey_find(p, key)))
        call_fail(c, 400, sharedkey_fault(p, sharedkey_find(p, key)), "This shared key is over.");
    return !c->reply;
}

void style_create(struct practice *p, struct call *c)
{
    if (!check(p, c)) return;
    struct style *s = alloc_zero(1, sizeof *s);
    practice_id(p, s->id, p->style_count);
    s->owner = c->user;
    s->body = json_deep_copy(c->body);
    s->sharedkey = sharedkey_find(p, json_string_value(json_object_get(c->body, "sharedkey")));
    p->styles = alloc_grow(p->styles, (size_t)p->style_count + 1, sizeof *p->styles);
    p->styles[p->style_count++] = s;
    c->reply = json_pack("{s:s,s:s,s:[]}", "id", s->id, "message", "OK", "warnings");
}

static void show(struct call *c, const struct style *s)
{
    if (s)
        c->reply = details(s);
    else
        call_fail(c, 404, "Image styleNotFound", "Image style with ID '%s' not found.", c->args[0]);
}

void style_get(struct practice *p, struct call *c)
{
    show(c, find(p, c->args[0], NULL));
}

void style_get_by_name(struct practice *p, struct call *c)
{
    show(c, find(p, NULL, c->args[0]));
}

/* ---- applied ---------------------------------------------------------------------------- */

/* {p} and {np} of the style's prompt, as often as they stand there. Heap. */
static char *fill(const char *pattern, const char *positive, const char *negative)
{
    struct buf b;
    size_t length;
    buf_init(&b, 1 << 20);
    while (*pattern) {
        bool p = str_starts(pattern, "{p}"), np = str_starts(pattern, "{np}");
        const char *piece = p ? positive : np ? negative : pattern;
        if (buf_append(&b, piece, p || np ? strlen(piece) : 1, NULL)) break;
        pattern += p ? 3 : np ? 4 : 1;
    }
    if (buf_append(&b, "", 1, NULL)) abort();
    return buf_take(&b, &length);
}

static void set_prompt(json_t *body, const char *pattern)
{
    const char *asked = json_string_value(json_object_get(body, "prompt"));
    char *positive = alloc_string(asked ? asked : ""), *hashes = strstr(positive, "###");
    char *negative = alloc_string(hashes ? hashes + 3 : "");
    if (hashes) *hashes = '\0';
    if (!strstr(pattern, "###") && *negative && !strstr(negative, "###")) {
        char *marked = alloc_printf("###%s", negative);
        free(negative);
        negative = marked;
    }
    char *whole = fill(pattern, positive, negative);
    json_object_set_new(body, "prompt", json_string(whole));
    free(whole);
    free(negative);
    free(positive);
}

/* The body as the style makes it, the caller's reference; NULL with a complaint. */
json_t *style_apply(struct practice *p, struct call *c)
{
    const char *name = json_string_value(json_object_get(c->body, "style"));
    if (!name) return json_incref(c->body);
    struct style *s = find(p, name, name);
    if (!s) {
        call_fail(c, 404, "StyleNotFound", "Style with ID '%s' not found.", name);
        return NULL;
    }
    static const char *const users[] = {"width", "height"};
    const json_t *asked = json_object_get(c->body, "params");
    json_t *body = json_copy(c->body);
    json_t *params = json_deep_copy(json_object_get(s->body, "params"));
    if (!params) params = json_object();
    json_t *n = json_object_get(asked, "n");
    json_object_set_new(params, "n", n ? json_incref(n) : json_integer(1));
    for (size_t i = 0; i < sizeof users / sizeof users[0]; i++)
        if (!json_object_get(params, users[i]) && json_object_get(asked, users[i]))
            json_object_set(params, users[i], json_object_get(asked, users[i]));
    json_object_set_new(body, "params", params);
    json_object_set(body, "models", json_object_get(s->body, "models"));
    set_prompt(body, json_string_value(json_object_get(s->body, "prompt")));
    if (s->sharedkey && !sharedkey_fault(p, s->sharedkey)) {
        c->sharedkey = s->sharedkey;
        c->styled_key = true;
    }
    s->use_count++;
    return body;
}
