#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "practice.h"
#include "proto/horde_interrogate.h"

#define FORM_TTL_MS 180000
#define FORM_ABORTS_MAX 3

static bool is_image(const char *form)
{
    enum capability c;
    return capability_find_post(form, &c) || str_equal(form, "annotation");
}

static bool is_form(const char *name)
{
    return name && (alchemy_form_find(name) != ALCHEMY_UNKNOWN || is_image(name));
}

static struct form_ask *ask_of(struct practice *p, struct call *c)
{
    int i = practice_index(c->args[0]);
    if (i >= 0 && i < p->form_ask_count && str_equal(p->form_asks[i]->id, c->args[0]))
        return p->form_asks[i];
    call_fail(c, 404, "RequestNotFound", "Request with ID '%s' not found.", c->args[0]);
    return NULL;
}

static void form_new(struct practice *p, struct form_ask *a, const char *name)
{
    struct form *f = alloc_zero(1, sizeof *f);
    practice_id(p, f->id, p->form_count);
    str_copy(f->name, sizeof f->name, name);
    f->ask = a;
    p->forms = alloc_grow(p->forms, (size_t)p->form_count + 1, sizeof *p->forms);
    p->forms[p->form_count++] = f;
    a->forms = alloc_grow(a->forms, (size_t)a->form_count + 1, sizeof *a->forms);
    a->forms[a->form_count++] = f;
}

void alchemy_async(struct practice *p, struct call *c)
{
    if (!call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    const json_t *forms = json_object_get(c->body, "forms");
    const char *source = json_string_value(json_object_get(c->body, "source_image"));
    uint8_t *data = NULL;
    size_t length = 0, i;
    json_t *v;
    if (!json_array_size(forms)) call_invalid(c, "forms", "'forms' is a required property");
    json_array_foreach(forms, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        if (!is_form(name))
            call_invalid(c, "forms.name", "'%.60s' is not one of the forms", name ? name : "");
    }
    if (!c->reply && !source)
        call_fail(c, 400, "SourceImageUrlInvalid", "A source image is needed.");
    bool url = source && str_starts(source, "http");
    if (!c->reply && !url && store_decode_base64(source, &data, &length))
        call_fail(c, 400, "ImageValidationFailed", "Image validation failed.");
    if (c->reply) return;
    struct form_ask *a = alloc_zero(1, sizeof *a);
    practice_id(p, a->id, p->form_ask_count);
    memcpy(a->source_id, a->id, sizeof a->source_id);
    a->user = c->user;
    a->born_ms = practice_ms(p);
    a->tiles = 1;
    if (url) {
        a->source_url = alloc_string(source);
    } else {
        char name[96];
        snprintf(name, sizeof name, "source/%s", a->id);
        store_put(p, name, data, length);
        free(data);
    }
    p->form_asks = alloc_grow(p->form_asks, (size_t)p->form_ask_count + 1, sizeof *p->form_asks);
    p->form_asks[p->form_ask_count++] = a;
    json_array_foreach(forms, i, v)
    {
        form_new(p, a, json_string_value(json_object_get(v, "name")));
    }
    c->status = 202;
    c->reply = json_pack("{s:s}", "id", a->id);
}

/* ---- the alchemist ---------------------------------------------------------------------- */

static bool offered(const json_t *forms, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach(forms, i, v)
    {
        if (str_equal(json_string_value(v), name)) return true;
    }
    return false;
}

static json_t *form_json(struct practice *p, const struct form *f)
{
    char name[96];
    snprintf(name, sizeof name, "source/%s", f->ask->source_id);
    char *source = f->ask->source_url ? alloc_string(f->ask->source_url) : store_url(p, name);
    json_t *o = json_pack("{s:s,s:s,s:s}", "id", f->id, "form", f->name, "source_image", source);
    free(source);
    if (is_image(f->name)) {
        snprintf(name, sizeof name, "transient/%s", f->id);
        char *upload = store_url(p, name);
        json_object_set_new(o, "r2_upload", json_string(upload));
        free(upload);
    }
    return o;
}

static struct worker *alchemist(struct practice *p, struct call *c)
{
    const char *name = json_string_value(json_object_get(c->body, "name"));
    const char *agent = json_string_value(json_object_get(c->body, "bridge_agent"));
    const json_t *forms = json_object_get(c->body, "forms");
    size_t i;
    json_t *v;
    if (!name) call_invalid(c, "name", "Missing required parameter in the JSON body");
    if (!json_is_array(forms)) call_invalid(c, "forms", "'forms' is a required property");
    json_array_foreach(forms, i, v)
    {
        if (!is_form(json_string_value(v))) call_invalid(c, "forms", "not one of the forms");
    }
    if (c->reply) return NULL;
    struct worker *w = people_worker(p, name);
    if (w && w->type != WORKER_ALCHEMIST)
        call_fail(c, 400, "PolymorphicNameConflict",
                  "The specified name '%s' is already taken by a different type of worker.", name);
    else if (w && w->owner != c->user)
        call_fail(c, 403, "WrongCredentials", "Wrong credentials to submit as this worker.");
    if (c->reply) return NULL;
    if (!w) {
        w = alloc_zero(1, sizeof *w);
        practice_id(p, w->id, p->worker_count);
        str_copy(w->name, sizeof w->name, name);
        w->type = WORKER_ALCHEMIST;
        w->owner = c->user;
        w->first_ms = practice_ms(p);
        p->workers = alloc_grow(p->workers, (size_t)p->worker_count + 1, sizeof *p->workers);
        p->workers[p->worker_count++] = w;
    }
    str_copy(w->bridge_agent, sizeof w->bridge_agent, agent ? agent : "unknown:0:unknown");
    json_decref(w->models);
    w->models = json_incref((json_t *)forms);
    people_check_in(p, w, practice_ms(p));
    return w;
}

void alchemy_pop(struct practice *p, struct call *c)
{
    if (!call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    if (c->user->anonymous) {
        call_fail(c, 403, "AnonForbiddenWorker", "Anonymous may not run workers.");
        return;
    }
    struct worker *w = alchemist(p, c);
    if (!w) return;
    if (w->maintenance) {
        call_fail(c, 403, "WorkerMaintenance", "%s", w->maintenance_msg);
        return;
    }
    json_t *amount = json_object_get(c->body, "amount"), *list = json_array();
    size_t most = json_is_integer(amount) ? (size_t)json_integer_value(amount) : 1;
    for (int i = 0; i < p->form_count && json_array_size(list) < most; i++) {
        struct form *f = p->forms[i];
        if (f->state != FORM_WAITING || !offered(w->models, f->name)) continue;
        f->state = FORM_PROCESSING;
        f->worker = w;
        f->given_ms = practice_ms(p);
        p->given++;
        log_state(p, "form", f->id, "given", w);
        json_array_append_new(list, form_json(p, f));
    }
    bool none = json_array_size(list) == 0;
    c->reply = json_pack("{s:O,s:{}}", "forms", none ? json_null() : list, "skipped");
    json_decref(list);
}

static void close_form(struct practice *p, struct form *f, int state)
{
    f->state = state;
    log_state(p, "form", f->id,
              state == FORM_DONE      ? "done"
              : state == FORM_WAITING ? "waiting"
                                      : "over",
              f->worker);
    if (f->ask->own && state != FORM_WAITING) p->own_open--;
}

static void abort_form(struct practice *p, struct form *f)
{
    people_abort(p, f->worker);
    p->faulted++;
    close_form(p, f, ++f->aborts >= FORM_ABORTS_MAX ? FORM_FAULTED : FORM_WAITING);
}

static struct form *form_find(struct practice *p, struct call *c)
{
    const char *id = json_string_value(json_object_get(c->body, "id"));
    int i = practice_index(id);
    if (i >= 0 && i < p->form_count && str_equal(p->forms[i]->id, id)) return p->forms[i];
    call_fail(c, 404, "InvalidJobID", "Processing Job with ID %.60s does not exist.", id ? id : "");
    return NULL;
}

static void finish_form(struct practice *p, struct form *f, struct call *c)
{
    const json_t *value = json_object_get(json_object_get(c->body, "result"), f->name);
    int64_t reward = price_form_milli(f->name, f->ask->tiles);
    char name[96];
    f->result = json_deep_copy(value);
    if (is_image(f->name)) {
        snprintf(name, sizeof name, "transient/%s", f->id);
        char *url = store_url(p, name);
        json_decref(f->result);
        f->result = json_string(url);
        free(url);
    }
    p->done++;
    p->told_milli += reward;
    f->worker->fulfilled++;
    people_credit(p, "alchemy", f->worker, f->id, reward, 1000);
    people_charge(p, f->ask->user, f->ask->id, reward + 2000);
    close_form(p, f, FORM_DONE);
    c->reply = json_pack("{s:f}", "reward", (double)reward / 1000);
}

void alchemy_submit(struct practice *p, struct call *c)
{
    if (!call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    const char *state = json_string_value(json_object_get(c->body, "state"));
    if (!json_is_object(json_object_get(c->body, "result"))) {
        call_invalid(c, "result", "the form results are no object");
        return;
    }
    struct form *f = form_find(p, c);
    if (!f) return;
    if (f->worker && f->worker->owner != c->user)
        call_fail(c, 403, "WrongCredentials", "Wrong credentials to submit as this worker.");
    else if (f->state != FORM_PROCESSING) {
        p->duplicates++;
        call_fail(c, 400, "DuplicateGen", "Processing Generation with ID %s already submitted.",
                  f->id);
    } else if (str_equal(state, "faulted")) {
        abort_form(p, f);
        c->reply = json_pack("{s:f}", "reward", 0.0);
    } else {
        finish_form(p, f, c);
    }
}

void alchemy_sweep(struct practice *p)
{
    int64_t now = practice_ms(p);
    for (int i = 0; i < p->form_count; i++)
        if (p->forms[i]->state == FORM_PROCESSING &&
            now - p->forms[i]->given_ms > (int64_t)(FORM_TTL_MS * p->options.ttl_scale))
            abort_form(p, p->forms[i]);
}

/* ---- the requester ---------------------------------------------------------------------- */

static json_t *ask_json(const struct form_ask *a)
{
    static const char *const words[] = {"waiting", "processing", "done", "cancelled", "faulted"};
    json_t *list = json_array();
    int done = 0, waiting = 0, canceled = 0;
    for (int i = 0; i < a->form_count; i++) {
        const struct form *f = a->forms[i];
        json_t *o = json_pack("{s:s,s:s}", "form", f->name, "state", words[f->state]);
        if (f->state == FORM_DONE && f->result)
            json_object_set_new(o, "result", json_pack("{s:O}", f->name, f->result));
        done += f->state == FORM_DONE || f->state == FORM_FAULTED;
        waiting += f->state == FORM_WAITING;
        canceled += f->state == FORM_CANCELED;
        json_array_append_new(list, o);
    }
    const char *state = done == a->form_count      ? "done"
                        : waiting == a->form_count ? "waiting"
                        : canceled || done         ? "partial"
                                                   : "processing";
    return json_pack("{s:s,s:o}", "state", state, "forms", list);
}

void alchemy_status(struct practice *p, struct call *c)
{
    struct form_ask *a = ask_of(p, c);
    if (a) c->reply = ask_json(a);
}

void alchemy_cancel(struct practice *p, struct call *c)
{
    struct form_ask *a = ask_of(p, c);
    if (!a) return;
    for (int i = 0; i < a->form_count; i++)
        if (a->forms[i]->state == FORM_WAITING || a->forms[i]->state == FORM_PROCESSING)
            close_form(p, a->forms[i], FORM_CANCELED);
    c->reply = ask_json(a);
}
