#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "practice.h"

struct route {
    const char *method, *pattern; /* * stands for one part of the path, ** for all the rest */
    const char *kind;
    void (*act)(struct practice *p, struct call *c);
};

#define API "/api/v2"
static const struct route routes[] = {
    {"POST", API "/generate/pop", "pop", pop_image},
    {"POST", API "/generate/submit", "submit", submit_image},
    {"POST", API "/generate/async", "async", ask_async},
    {"GET", API "/generate/check/*", "check", ask_check},
    {"GET", API "/generate/status/*", "status", ask_status},
    {"DELETE", API "/generate/status/*", "cancel", ask_cancel},
    {"POST", API "/interrogate/async", "alchemy_async", alchemy_async},
    {"POST", API "/interrogate/pop", "alchemy_pop", alchemy_pop},
    {"POST", API "/interrogate/submit", "alchemy_submit", alchemy_submit},
    {"GET", API "/interrogate/status/*", "alchemy_status", alchemy_status},
    {"DELETE", API "/interrogate/status/*", "alchemy_cancel", alchemy_cancel},
    {"GET", API "/find_user", "user", people_find_user},
    {"GET", API "/users", "users", people_users},
    {"GET", API "/users/*", "users", people_get_user},
    {"GET", API "/workers", "workers", people_workers},
    {"GET", API "/workers/name/*", "worker", people_name_worker},
    {"GET", API "/workers/*", "worker", people_get_worker},
    {"PUT", API "/workers/*", "worker_put", people_put_worker},
    {"DELETE", API "/workers/*", "worker_delete", people_delete_worker},
    {"POST", API "/kudos/transfer", "transfer", people_transfer},
    {"PUT", API "/sharedkeys", "sharedkey_put", sharedkey_create},
    {"GET", API "/sharedkeys/*", "sharedkey", sharedkey_get},
    {"PATCH", API "/sharedkeys/*", "sharedkey_patch", sharedkey_patch},
    {"DELETE", API "/sharedkeys/*", "sharedkey_delete", sharedkey_delete},
    {"GET", API "/styles/image", "styles", style_list},
    {"POST", API "/styles/image", "style_post", style_create},
    {"GET", API "/styles/image/*", "style", style_get},
    {"GET", API "/styles/image_by_name/*", "style", style_get_by_name},
    {"GET", API "/status/heartbeat", "heartbeat", status_heartbeat},
    {"GET", API "/status/modes", "modes", status_modes},
    {"PUT", API "/status/modes", "modes", status_put_modes},
    {"GET", API "/status/performance", "performance", status_performance},
    {"GET", API "/status/models", "models", status_models},
    {"GET", API "/status/models/*", "models", status_models},
    {"GET", API "/status/news", "news", status_news},
    {"GET", API "/stats/img/models", "stats", status_stats},
    {"GET", "/api/swagger.json", "swagger", status_swagger},
    {"PUT", "/practice-store/**", "upload", store_route_put},
    {"GET", "/practice-store/**", "download", store_route_get},
    {"POST", "/practice/fault", NULL, control_fault},
    {"DELETE", "/practice/fault", NULL, control_clear},
    {"POST", "/practice/worker", NULL, control_worker},
    {"POST", "/practice/clock", NULL, control_clock},
    {"POST", "/practice/fire", NULL, control_fire},
    {"GET", "/practice/state", NULL, control_state},
    {"GET", "/practice/trap", NULL, control_trap},
    {"POST", "/practice/trap", NULL, control_trap},
    {"PUT", "/practice/trap", NULL, control_trap},
};

void call_fail(struct call *c, int status, const char *rc, const char *format, ...)
{
    char text[512];
    va_list args;
    if (c->reply) return; /* the first complaint counts */
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->status = status;
    c->reply = json_pack("{s:s,s:s}", "message", text, "rc", rc);
    if (!c->reply) c->reply = json_pack("{s:s,s:s}", "message", "not UTF-8", "rc", rc);
}

/* What the schema of the server finds, before its own code runs: an errors map and no rc. */
void call_invalid(struct call *c, const char *field, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!c->reply)
        c->reply = json_pack("{s:{},s:s}", "errors", "message", "Input payload validation failed");
    c->status = 400;
    json_object_set_new(json_object_get(c->reply, "errors"), field, json_string(text));
}

bool call_authenticate(struct practice *p, struct call *c, int status, const char *rc)
{
    if (!c->key || !*c->key) {
        call_invalid(c, "apikey", "Missing required parameter in the HTTP headers");
        return false;
    }
    c->user = people_find(p, c->key);
    if (!c->user) call_fail(c, status, rc, "No user matching sent API Key.");
    return c->user != NULL;
}

static bool matches(const char *pattern, const char *path, struct call *c)
{
    int arg = 0;
    for (; *pattern; pattern++) {
        if (*pattern != '*') {
            if (*path++ != *pattern) return false;
            continue;
        }
        bool rest = pattern[1] == '*';
        const char *end = rest ? path + strlen(path) : path + strcspn(path, "/");
        size_t n = (size_t)(end - path);
        if (n == 0 || n >= sizeof c->args[0]) return false;
        str_copy(c->args[arg++], n + 1, path);
        path = end;
        if (rest) pattern++;
    }
    return *path == '\0';
}

/* Only names of this machine: a page in a browser must not reach in by rebinding. */
static bool host_is_ours(const struct call *c)
{
    static const char *const ours[] = {"127.0.0.1", "localhost", "[::1]"};
    if (!c->host) return true; /* HTTP/1.0; no browser leaves it out */
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        size_t n = strlen(ours[i]);
        if (str_starts(c->host, ours[i]) && (c->host[n] == ':' || c->host[n] == '\0')) return true;
    }
    return false;
}

void route_call(struct practice *p, struct call *c)
{
    bool known = false;
    if (!host_is_ours(c)) {
        call_fail(c, 403, "BadHost", "Only 127.0.0.1 and localhost are served.");
        return;
    }
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        memset(c->args, 0, sizeof c->args);
        if (!matches(r->pattern, c->path, c)) continue;
        known = true;
        if (!str_equal(r->method, c->method)) continue;
        c->kind = r->kind;
        if (c->kind) fault_find(p, c);
        if (!fault_answers(c)) r->act(p, c);
        return;
    }
    c->status = known ? 405 : 404;
    c->reply = json_pack("{s:s}", "message", known ? "The method is not allowed." : "Not found.");
}
