/* Shared keys: what the real server 5.1.5 answers, to the word where a client could look at it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "practice.h"

#define DAY_MS 86400000
#define KEYS_OF_ONE 3
#define KEYS_OF_TRUSTED 10

struct sharedkey *sharedkey_find(struct practice *p, const char *id)
{
    for (int i = 0; id && i < p->sharedkey_count; i++)
        if (!p->sharedkeys[i]->deleted && str_equal_nocase(p->sharedkeys[i]->id, id))
            return p->sharedkeys[i];
    return NULL;
}

/* "Tue, 24 Nov 2026 11:00:00 -0000" */
static json_t *expiry_text(struct practice *p, const struct sharedkey *k)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t t = (time_t)((now_wall_ms() + k->expiry_ms - practice_ms(p)) / 1000);
    struct tm tm;
    char text[64];
    gmtime_r(&t, &tm);
    snprintf(text, sizeof text, "%s, %02d %s %d %02d:%02d:%02d -0000", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    return json_string(text);
}

static json_t *details(struct practice *p, const struct sharedkey *k)
{
    json_t *o = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", k->id, "username", k->owner->alias,
                          "kudos", (json_int_t)k->kudos, "utilized", (json_int_t)k->utilized,
                          "max_image_pixels", (json_int_t)k->max_pixels, "max_image_steps",
                          (json_int_t)k->max_steps, "max_text_tokens", (json_int_t)k->max_tokens);
    if (k->name) json_object_set_new(o, "name", json_string(k->name));
    if (k->expires) json_object_set_new(o, "expiry", expiry_text(p, k));
    return o;
}

json_t *sharedkey_ids(struct practice *p, const struct user *u)
{
    json_t *list = json_array();
    for (int i = 0; i < p->sharedkey_count; i++)
        if (p->sharedkeys[i]->owner == u && !p->sharedkeys[i]->deleted)
            json_array_append_new(list, json_string(p->sharedkeys[i]->id));
    return list;
}

bool sharedkey_expired(struct practice *p, const struct sharedkey *k)
{
    return k->expires && k->expiry_ms <= practice_ms(p);
}

const char *sharedkey_fault(struct practice *p, const struct sharedkey *k)
{
    return k->kudos == 0 ? "SharedKeyEmpty" : sharedkey_expired(p, k) ? "SharedKeyExpired" : NULL;
}

/* ---- spending --------------------------------------------------------------------------- */

/* Who pays for an image request: the key's own account, or a shared key's. */
bool sharedkey_authenticate(struct practice *p, struct call *c)
{
    if (c->sharedkey) { /* a style brought its own */
        c->user = c->sharedkey->owner;
        return true;
    }
    struct sharedkey *k = sharedkey_find(p, c->key);
    if (!k) return call_authenticate(p, c, 401, "InvalidAPIKey");
    const char *fault = sharedkey_fault(p, k);
    if (str_equal(fault, "SharedKeyEmpty"))
        call_fail(c, 403, fault, "This shared key has run out of kudos.");
    else if (fault)
        call_fail(c, 403, fault, "This shared key has expired");
    else if (style_uses_key(p, k))
        call_fail(c, 403, "SharedKeyAssignedStyles",
                  "This shared key cannot be used as it has been assigned to specific styles only");
    if (c->reply) return false;
    c->sharedkey = k;
    c->user = k->owner;
    return true;
}

bool sharedkey_allows(struct call *c, const struct image_ask *a, int64_t price_milli)
{
    const struct sharedkey *k = c->sharedkey;
    int64_t pixels = (int64_t)a->width * a->height;
    if (!k) return true;
    if (k->kudos != -1 && price_milli > k->kudos * 1000)
        call_fail(c, 403, "SharedKeyInsufficientKudos",
                  "This shared key does not have enough remaining kudos (%lld) to fulfill this "
                  "request (%g).",
                  (long long)k->kudos, (double)price_milli / 1000);
    else if (c->styled_key)
        return true; /* its owner gave it to the style */
    else if (k->max_pixels > -1 && pixels > k->max_pixels)
        call_fail(c, 400, "BadRequest",
                  "This shared key is limited to %lld pixels per job. You requested %lld pixels.",
                  (long long)k->max_pixels, (long long)pixels);
    else if (k->max_steps > -1 && a->steps > k->max_steps)
        call_fail(c, 400, "BadRequest",
                  "This shared key is limited to %lld steps per job. You requested %d steps.",
                  (long long)k->max_steps, a->steps);
    return !c->reply;
}

/* The real columns are whole numbers: each posting is rounded. */
void sharedkey_consume(struct sharedkey *k, int64_t milli)
{
    if (!k || k->kudos == 0) return;
    if (k->kudos != -1) {
        k->kudos = llround((double)k->kudos - (double)milli / 1000);
        if (k->kudos < 0) k->kudos = 0;
    }
    k->utilized = llround((double)k->utilized + (double)milli / 1000);
}

void sharedkey_fill(struct sharedkey *k, int64_t milli)
{
    if (k && k->kudos != -1) k->kudos += milli / 1000;
}

/* ---- routes ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int64_t most;
    size_t offset;
} limits[] = {
    {"kudos", 50000000, offsetof(struct sharedkey, kudos)},
    {"max_image_pixels", 4194304, offsetof(struct sharedkey, max_pixels)},
    {"max_image_steps", 500, offsetof(struct sharedkey, max_steps)},
    {"max_text_tokens", 500, offsetof(struct sharedkey, max_tokens)},
};

static void check_whole(struct call *c, const char *key, int64_t most)
{
    const json_t *v = json_object_get(c->body, key);
    if (!v || json_is_null(v)) return;
    if (!json_is_integer(v))
        call_invalid(c, key, "this is not of type 'integer'");
    else if (json_integer_value(v) < -1)
        call_invalid(c, key, "%lld is less than the minimum of -1", json_integer_value(v));
    else if (json_integer_value(v) > most)
        call_invalid(c, key, "%lld is greater than the maximum of %lld", json_integer_value(v),
                     (long long)most);
}

static bool check(struct call *c)
{
    const json_t *name = json_object_get(c->body, "name");
    size_t n = json_is_string(name) ? strlen(json_string_value(name)) : 3;
    if (c->body && !json_is_object(c->body)) call_invalid(c, "", "this is not of type 'object'");
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        check_whole(c, limits[i].name, limits[i].most);
    check_whole(c, "expiry", 9000000);
    if (n < 3) call_invalid(c, "name", "the name is too short");
    if (n > 255) call_invalid(c, "name", "the name is too long");
    return !c->reply;
}

/* How many members were there. */
static int apply(struct practice *p, struct sharedkey *k, const json_t *body, bool fresh)
{
    const json_t *name = json_object_get(body, "name"), *days = json_object_get(body, "expiry");
    int changed = json_is_string(name) + json_is_integer(days);
    if (json_is_string(name)) {
        free(k->name);
        k->name = alloc_string(json_string_value(name));
    }
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const json_t *v = json_object_get(body, limits[i].name);
        if (!json_is_integer(v)) continue;
        *(int64_t *)((char *)k + limits[i].offset) = json_integer_value(v);
        changed++;
    }
    if (json_is_integer(days)) {
        int64_t n = json_integer_value(days);
        k->expires =
            n != -1 && !(fresh && n == 0); /* a new key of 0 days lasts for ever, there too */
        k->expiry_ms = practice_ms(p) + n * DAY_MS;
    }
    return changed;
}

void sharedkey_create(struct practice *p, struct call *c)
{
    if (!check(c) || !call_authenticate(p, c, 401, "InvalidAPIKey")) return;
    int have = 0, most = c->user->trusted ? KEYS_OF_TRUSTED : KEYS_OF_ONE;
    for (int i = 0; i < p->sharedkey_count; i++)
        have += p->sharedkeys[i]->owner == c->user && !p->sharedkeys[i]->deleted;
    if (c->user->anonymous)
        call_fail(c, 403, "AnonForbidden",
                  "Anonymous user is forbidden from performing this operation");
    else if (have >= most)
        call_fail(c, 403, "Forbidden", "You cannot have more than %d shared keys.", most);
    if (c->reply) return;
    struct sharedkey *k = alloc_zero(1, sizeof *k);
    *k = (struct sharedkey){
        .owner = c->user, .kudos = 5000, .max_pixels = -1, .max_steps = -1, .max_tokens = -1};
    practice_id(p, k->id, p->sharedkey_count);
    apply(p, k, c->body, true);
    p->sharedkeys =
        alloc_grow(p->sharedkeys, (size_t)p->sharedkey_count + 1, sizeof *p->sharedkeys);
    p->sharedkeys[p->sharedkey_count++] = k;
    c->reply = details(p, k);
}

static struct sharedkey *named(struct practice *p, struct call *c)
{
    struct sharedkey *k = sharedkey_find(p, c->args[0]);
    if (!k) call_fail(c, 401, "InvalidAPIKey", "No user matching sent Shared Key.");
    return k;
}

static struct sharedkey *own(struct practice *p, struct call *c)
{
    struct sharedkey *k = named(p, c);
    if (!k || !call_authenticate(p, c, 401, "InvalidAPIKey")) return NULL;
    if (k->owner == c->user) return k;
    call_fail(c, 403, "Forbidden", "Shared Key %s belongs to %s and not to %s.", k->id,
              k->owner->alias, c->user->alias);
    return NULL;
}

void sharedkey_get(struct practice *p, struct call *c)
{
    struct sharedkey *k = named(p, c);
    if (k) c->reply = details(p, k);
}

void sharedkey_patch(struct practice *p, struct call *c)
{
    struct sharedkey *k = check(c) ? own(p, c) : NULL;
    if (!k) return;
    if (!apply(p, k, c->body, false))
        call_fail(c, 400, "NoSharedKeyModSelected", "No shared key modification selected!");
    else
        c->reply = details(p, k);
}

void sharedkey_delete(struct practice *p, struct call *c)
{
    struct sharedkey *k = own(p, c);
    if (!k) return;
    k->deleted = true;
    c->reply = json_pack("{s:s}", "message", "OK");
}
