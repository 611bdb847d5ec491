/* cmd_sharedkey.c - keys that others may spend one's kudos with, within limits: a workshop's. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/horde_client.h"
#include "cli/table.h"
#include "proto/horde_sharedkey.h"
#include "proto/horde_worker.h"

#define PATH "/api/v2/sharedkeys"

struct sharing {
    struct horde_client client;
    struct horde_sharedkey_change change;
    const char *id; /* or NULL */
    const char *config, *url;
    bool json;
    struct buf reply, out;
    struct json_write w;
};

/* ---- what comes out ---- */

static const char *limit(char text[24], int64_t value)
{
    snprintf(text, 24, "%lld", (long long)value);
    return value < 0 ? "no limit" : text;
}

static int64_t expiry_ms(const struct horde_sharedkey *k)
{
    time_t seconds = k->expiry[0] ? curl_getdate(k->expiry, NULL) : -1;
    return seconds < 0 ? 0 : (int64_t)seconds * 1000;
}

static const char *state(const struct horde_sharedkey *k)
{
    int64_t end = expiry_ms(k);
    if (end && end <= now_wall_ms()) return "expired";
    return k->kudos == 0 ? "spent" : "good";
}

static void print_key(const struct horde_sharedkey *k)
{
    char kudos[24], pixels[24], steps[24], when[24], owner[300], name[300];
    str_clean(owner, sizeof owner, k->username);
    str_clean(name, sizeof name, k->name);
    printf("key         %s\nname        %s\nof          %s\nstate       %s\n", k->id,
           name[0] ? name : "-", owner, state(k));
    printf("kudos left  %s, %lld spent\n", limit(kudos, k->kudos), (long long)k->utilized);
    printf("expires     %s\n", k->expiry[0] ? format_when(when, expiry_ms(k)) : "never");
    printf("pixels      %s\n", limit(pixels, k->max_image_pixels));
    printf("steps       %s\n", limit(steps, k->max_image_steps));
}

static void json_key(struct json_write *w, const struct horde_sharedkey *k)
{
    json_write_object(w, NULL);
    json_write_text(w, "id", k->id);
    json_write_text(w, "username", k->username);
    json_write_text(w, "name", k->name);
    json_write_text(w, "state", state(k));
    json_write_int(w, "kudos", k->kudos);
    json_write_int(w, "utilized", k->utilized);
    json_write_text(w, "expiry", k->expiry[0] ? k->expiry : NULL);
    json_write_int(w, "max_image_pixels", k->max_image_pixels);
    json_write_int(w, "max_image_steps", k->max_image_steps);
    json_write_close(w, '}');
}

static void row(struct table *t, const struct horde_sharedkey *k)
{
    char kudos[24], spent[24], pixels[24], steps[24], when[24];
    snprintf(spent, sizeof spent, "%lld", (long long)k->utilized);
    table_row(t, k->id, k->name[0] ? k->name : "-", state(k), limit(kudos, k->kudos), spent,
              k->expiry[0] ? format_when(when, expiry_ms(k)) : "never",
              limit(pixels, k->max_image_pixels), limit(steps, k->max_image_steps));
}

/* ---- what is asked ---- */

static int call(struct sharing *s, const char *method, const char *id, const struct buf *body,
                struct error *err)
{
    char *path = id ? alloc_printf(PATH "/%s", id) : alloc_string(PATH);
    int rc = horde_client_call(&s->client, method, path, body, NULL, &s->reply, err);
    free(path);
    return rc;
}

static int answer(struct sharing *s, struct error *err)
{
    struct horde_sharedkey k = {0};
    int rc = horde_sharedkey_parse(&k, (const char *)s->reply.data, s->reply.length, err);
    if (rc) return rc;
    if (s->json)
        json_key(&s->w, &k);
    else
        print_key(&k);
    horde_sharedkey_release(&k);
    return 0;
}

static int create(struct sharing *s, struct error *err)
{
    struct buf body;
    buf_init(&body, 1 << 16);
    int rc = horde_sharedkey_change_format(&s->change, true, &body, err);
    if (!rc) rc = call(s, "PUT", NULL, &body, err);
    if (!rc) rc = answer(s, err);
    buf_release(&body);
    return rc;
}

static int change(struct sharing *s, struct error *err)
{
    struct buf body;
    buf_init(&body, 1 << 16);
    int rc = horde_sharedkey_change_format(&s->change, false, &body, err);
    if (!rc) rc = call(s, "PATCH", s->id, &body, err);
    if (!rc) rc = answer(s, err);
    buf_release(&body);
    return rc;
}

static int expire(struct sharing *s, struct error *err)
{
    s->change = (struct horde_sharedkey_change){.set_days = true, .days = 0};
    return change(s, err);
}

static int delete (struct sharing *s, struct error *err)
{
    int rc = call(s, "DELETE", s->id, NULL, err);
    if (rc) return rc;
    if (s->json) {
        json_write_object(&s->w, NULL);
        json_write_text(&s->w, "deleted", s->id);
        json_write_close(&s->w, '}');
    } else {
        puts("deleted; what was asked with it and still waited is gone too");
    }
    return 0;
}

/* Without an id: the key in use, when it is a shared one. */
static int show(struct sharing *s, struct error *err)
{
    const char *id = s->id ? s->id : s->client.api_key;
    if (!horde_is_uuid(id))
        return error_set(err, ERR_INVALID, "the key in use is no shared key: ID is missing");
    int rc = call(s, "GET", id, NULL, err);
    return rc ? rc : answer(s, err);
}

static int list_one(struct sharing *s, const char *id, struct table *t, struct error *err)
{
    struct horde_sharedkey k = {0};
    if (!horde_is_uuid(id)) return error_set(err, ERR_FORMAT, "a shared key's id is no UUID");
    int rc = call(s, "GET", id, NULL, err);
    if (!rc) rc = horde_sharedkey_parse(&k, (const char *)s->reply.data, s->reply.length, err);
    if (rc) return rc;
    if (s->json)
        json_key(&s->w, &k);
    else
        row(t, &k);
    horde_sharedkey_release(&k);
    return 0;
}

static int list(struct sharing *s, struct error *err)
{
    struct horde_user u = {0};
    struct table t;
    int rc = horde_client_call(&s->client, "GET", "/api/v2/find_user", NULL, NULL, &s->reply, err);
    if (!rc) rc = horde_user_parse(&u, (const char *)s->reply.data, s->reply.length, err);
    if (rc) return rc;
    table_start(&t, "key|name|state|>kudos left|>spent|expires|>pixels|>steps");
    if (s->json) json_write_array(&s->w, NULL);
    for (int i = 0; i < u.sharedkey_id_count && !rc; i++)
        rc = list_one(s, u.sharedkey_ids[i], &t, err);
    if (s->json) json_write_close(&s->w, ']');
    if (!rc && !s->json && !u.sharedkey_id_count)
        puts(horde_is_uuid(s->client.api_key)
                 ? "a shared key has no keys of its own; `kiln sharedkey show` tells of this one"
                 : "no shared keys");
    else if (!s->json)
        table_print(&t);
    horde_user_release(&u);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(struct sharing *s, struct error *err);
    bool id_needed, id_allowed, options;
} verbs[] = {
    {"create", create, false, false, true}, {"list", list, false, false, false},
    {"show", show, false, true, false},     {"change", change, true, true, true},
    {"expire", expire, true, true, false},  {"delete", delete, true, true, false},
};

/* ---- the command line ---- */

enum option_id { NAME = 256, KUDOS, DAYS, PIXELS, STEPS, JSON, CONFIG, URL };

static bool take_limit(int64_t *to, bool *set, const char *text)
{
    *set = true;
    *to = SHAREDKEY_UNLIMITED;
    if (str_equal(text, "unlimited")) return true;
    return str_parse_i64(text, to) && *to >= 0;
}

/* 1048576 or 1024x1024 */
static bool take_pixels(struct horde_sharedkey_change *c, const char *text)
{
    const char *by = strchr(text, 'x');
    int64_t width, height;
    if (!by) return take_limit(&c->pixels, &c->set_pixels, text);
    char *first = alloc_string_n(text, (size_t)(by - text));
    bool both = str_parse_i64(first, &width) && str_parse_i64(by + 1, &height);
    free(first);
    if (!both || width < 0 || height < 0 || width > 65536 || height > 65536) return false;
    c->set_pixels = true;
    c->pixels = width * height;
    return true;
}

static bool take(struct sharing *s, int id, const char *arg)
{
    struct horde_sharedkey_change *c = &s->change;
    switch (id) {
    case NAME: c->name = arg; return true;
    case KUDOS: return take_limit(&c->kudos, &c->set_kudos, arg);
    case DAYS:
        return take_limit(&c->days, &c->set_days, str_equal(arg, "never") ? "unlimited" : arg);
    case PIXELS: return take_pixels(c, arg);
    case STEPS: return take_limit(&c->steps, &c->set_steps, arg);
    case JSON: s->json = true; return true;
    case CONFIG: s->config = arg; return true;
    default: s->url = arg; return true;
    }
}

/* EXIT_DONE and *verb, or the exit code of wrong usage. */
static int parse(struct sharing *s, int argc, char **argv, size_t *verb)
{
    static const struct option table[] = {{"name", required_argument, NULL, NAME},
                                          {"kudos", required_argument, NULL, KUDOS},
                                          {"days", required_argument, NULL, DAYS},
                                          {"max-pixels", required_argument, NULL, PIXELS},
                                          {"max-steps", required_argument, NULL, STEPS},
                                          {"json", no_argument, NULL, JSON},
                                          {"config", required_argument, NULL, CONFIG},
                                          {"horde-url", required_argument, NULL, URL},
                                          {0}};
    const struct command *c = &command_sharedkey;
    bool limits = false;
    int index = 0;
    optind = 1;
    opterr = 0;
    for (int id; (id = getopt_long(argc, argv, "", table, &index)) != -1;) {
        if (id == '?')
            return command_usage(c, "option %s is unknown or lacks its value", argv[optind - 1]);
        limits = limits || id < JSON;
        if (!take(s, id, optarg))
            return command_usage(c, "--%s %s: a whole number from 0%s is expected",
                                 table[index].name, optarg,
                                 id == DAYS     ? " or \"never\""
                                 : id == PIXELS ? ", WxH or \"unlimited\""
                                                : " or \"unlimited\"");
    }
    const char *word = optind < argc ? argv[optind] : "list";
    for (*verb = 0; *verb < COUNT_OF(verbs) && !str_equal(verbs[*verb].name, word);) ++*verb;
    if (*verb == COUNT_OF(verbs))
        return command_usage(c, "\"%s\" is none of create, list, show, change, expire, delete",
                             word);
    s->id = optind + 1 < argc ? argv[optind + 1] : NULL;
    if (argc - optind > 2 || (s->id && !verbs[*verb].id_allowed))
        return command_usage(c, "too many words after %s", word);
    if (!s->id && verbs[*verb].id_needed) return command_usage(c, "%s ID is expected", word);
    if (s->id && !horde_is_uuid(s->id))
        return command_usage(c, "ID: a shared key is 8-4-4-4-12 hexadecimal digits");
    if (limits && !verbs[*verb].options)
        return command_usage(c, "%s takes no limits: those are create's and change's", word);
    if (str_equal(word, "create") && !s->change.name)
        return command_usage(c, "--name is missing: 3 to 255 characters that tell whose key it is");
    return EXIT_DONE;
}

static int run(int argc, char **argv)
{
    struct sharing s = {0};
    struct error err = {0};
    size_t verb = 0;
    int code = parse(&s, argc, argv, &verb);
    if (code) return code;
    buf_init(&s.reply, 1 << 20);
    buf_init(&s.out, 16u << 20);
    if (s.json) json_write_start(&s.w, &s.out);
    int rc = horde_client_open(&s.client, s.config, s.url, &err);
    if (!rc) {
        rc = verbs[verb].run(&s, &err);
        horde_client_close(&s.client);
    }
    if (!rc && s.json) rc = json_write_end(&s.w, &err);
    if (!rc && s.json) fwrite(s.out.data, 1, s.out.length, stdout);
    buf_release(&s.out);
    buf_release(&s.reply);
    return rc ? command_fail(&command_sharedkey, &err) : EXIT_DONE;
}

const struct command command_sharedkey = {
    .name = "sharedkey",
    .summary = "keys with which others may spend one's kudos, within limits",
    .usage =
        "usage: kiln sharedkey create --name NAME [LIMITS]\n"
        "       kiln sharedkey list\n"
        "       kiln sharedkey show [ID]\n"
        "       kiln sharedkey change ID [--name NAME] [LIMITS]\n"
        "       kiln sharedkey expire ID\n"
        "       kiln sharedkey delete ID\n\n"
        "One account, many limited keys: for a workshop, a class, a friend. The id is the key: it\n"
        "stands as api_key in its user's bridgeData.yaml, can ask for pictures and cannot work.\n"
        "An account has 3 of them, a trusted one 10.\n\n"
        "  --kudos N|unlimited        what may be spent with it, to 50,000,000 (5000)\n"
        "  --days N|never             how long it lasts from now (never)\n"
        "  --max-pixels N|WxH|unlimited   of one picture, to 4,194,304 (unlimited)\n"
        "  --max-steps N|unlimited    of one picture, to 500 (unlimited)\n"
        "  --json                     results as JSON; -1 is no limit\n"
        "  --config FILE              the bridgeData.yaml that holds the account's key\n"
        "  --horde-url URL            another server\n\n"
        "expire ends a key at once and leaves it in the list; delete takes it and its waiting\n"
        "requests away. `kiln kudos send ID AMOUNT` from another account fills a key up.\n",
    .run = run,
};
