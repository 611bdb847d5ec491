#include "daemon/drift.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "daemon/worker.h"

#define FIRST_MS 20
#define EVERY_MS (30 * 60 * 1000)
#define AGAIN_MS 60000
#define BYTES_MAX (8 << 20)

static bool among(const char *const *list, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (str_equal(list[i], name)) return true;
    return false;
}

/* ---- in words ---- */

struct words {
    char *text;
    size_t room;
};

static void say(struct words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct words *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(w->text, w->room, format, args);
    va_end(args);
    if (wrote < 0 || (size_t)wrote >= w->room) wrote = (int)w->room - 1;
    w->text += wrote;
    w->room -= (size_t)wrote;
}

/* names of the server's list that nobody here knows */
static void say_unknown(struct words *w, const char *what, const char *const *list, int count,
                        bool (*known)(const char *name))
{
    int unknown = 0;
    for (int i = 0; i < count; i++) {
        char clean[40];
        if (known(list[i]) || ++unknown > 3) continue;
        str_clean(clean, sizeof clean, list[i]);
        if (unknown == 1) say(w, "; %s that Kiln lacks: ", what);
        say(w, "%s%s", unknown > 1 ? ", " : "", clean);
    }
    if (unknown > 3) say(w, " and %d more", unknown - 3);
}

static bool sampler_here(const char *name)
{
    enum sampler s;
    return sampler_find(name, &s);
}

static bool control_here(const char *name)
{
    for (int i = 0; capability_control_names[i]; i++)
        if (str_equal(capability_control_names[i], name)) return true;
    return false;
}

static bool form_here(const char *name)
{
    return alchemy_form_find(name) != ALCHEMY_UNKNOWN;
}

static void tell(struct drift *d)
{
    const struct horde_swagger *s = &d->swagger;
    struct words w = {d->text, sizeof d->text};
    say(&w, "the server describes itself: %s",
        s->pop_extended_controlnet ? "pops may say allow_extended_controlnet"
                                   : "no pop field beyond 5.1.5");
    if (s->pop_sampler_contract)
        say(&w, "; it would take sampler_execution_contract_version, which Kiln does not promise");
    say_unknown(&w, "samplers", s->samplers, s->sampler_count, sampler_here);
    say_unknown(&w, "control types", s->control_types, s->control_type_count, control_here);
    say_unknown(&w, "forms", s->forms, s->form_count, form_here);
    int missing = 0;
    for (int t = 0; t < METADATA_TYPE_COUNT && s->metadata_type_count; t++)
        missing += !among(s->metadata_types, s->metadata_type_count,
                          metadata_type_name((enum metadata_type)t));
    if (missing) say(&w, "; it lacks %d kinds of gen_metadata, which are not sent", missing);
}

/* ---- asking ---- */

static void look(void *data);

static void on_swagger(void *data, const struct http_reply *reply)
{
    struct worker *w = data;
    struct drift *d = &w->drift;
    struct horde_swagger fresh;
    struct error err = {0};
    int rc = reply->status == 200
                 ? horde_swagger_parse(&fresh, (const char *)reply->body, reply->length, &err)
                 : error_set(&err, ERR_NETWORK, "HTTP %d", reply->status);
    d->asked_wall_ms = now_wall_ms();
    if (rc) {
        char why[sizeof d->trouble];
        snprintf(why, sizeof why, "the server's description cannot be had: %s", err.text);
        if (!str_equal(why, d->trouble)) log_warn("drift.unknown", "text=\"%s\"", why);
        str_copy(d->trouble, sizeof d->trouble, why);
    } else {
        char before[sizeof d->text];
        str_copy(before, sizeof before, d->text);
        drift_release(d);
        d->swagger = fresh;
        d->trouble[0] = 0;
        tell(d);
        if (!str_equal(before, d->text)) log_info("drift.learnt", "text=\"%s\"", d->text);
    }
    alarm_set(w->alarms, &d->alarm, rc ? AGAIN_MS : EVERY_MS, look, w);
}

static void look(void *data)
{
    struct worker *w = data;
    struct http_request r = {.use = HTTP_PLAIN,
                             .method = "GET",
                             .path = "/swagger.json",
                             .limit_bytes = BYTES_MAX,
                             .done = on_swagger,
                             .data = w};
    if (w->phase == WORKER_RUNNING && !outage_is_on(&w->outage))
        http_send(w->http, &r);
    else
        alarm_set(w->alarms, &w->drift.alarm, AGAIN_MS, look, w);
}

void drift_start(struct worker *w)
{
    alarm_set(w->alarms, &w->drift.alarm, FIRST_MS, look, w);
}

void drift_release(struct drift *d)
{
    if (d->swagger.probed) horde_swagger_release(&d->swagger);
    d->swagger = (struct horde_swagger){0};
}

/* ---- what follows ---- */

void drift_pop(const struct drift *d, struct horde_pop *pop)
{
    pop->send_extended_controlnet = d->swagger.pop_extended_controlnet;
}

bool drift_knows_form(const struct drift *d, const char *form)
{
    const struct horde_swagger *s = &d->swagger;
    return !s->form_count || among(s->forms, s->form_count, form);
}

bool drift_knows_note(const struct drift *d, enum metadata_type type, enum metadata_value value)
{
    const struct horde_swagger *s = &d->swagger;
    return (!s->metadata_type_count ||
            among(s->metadata_types, s->metadata_type_count, metadata_type_name(type))) &&
           (!s->metadata_value_count ||
            among(s->metadata_values, s->metadata_value_count, metadata_value_name(value)));
}
