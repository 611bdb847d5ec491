#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "config/schedule.h"
#include "config/secret.h"

bool config_host_is_loopback(const char *host)
{
    unsigned a, b, c, d;
    char rest;
    if (str_equal_nocase(host, "localhost") || str_equal(host, "::1") || str_equal(host, "[::1]"))
        return true;
    return sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &rest) == 4 && a == 127 && b < 256 &&
           c < 256 && d < 256;
}

static int check_host(const char *key, const char *host, struct error *err)
{
    if (!*host || strlen(host) > 253)
        return error_set(err, ERR_INVALID, "%s names no host of 1 to 253 characters", key);
    for (const char *at = host; *at; at++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-[]:", *at))
            return error_set(err, ERR_INVALID, "%s: a host name has no '%c'", key, *at);
    return 0;
}

/* "https://aihorde.net/api/" and "https://aihorde.net/api/v2" are the same server as without */
static int check_horde_url(struct config *c, struct error *err)
{
    const char *url = c->horde_url;
    bool plain = str_starts(url, "http://");
    if (!plain && !str_starts(url, "https://"))
        return error_set(err, ERR_INVALID, "horde_url \"%.100s\" does not start with https://",
                         url);
    if (strpbrk(url, "@?# \\"))
        return error_set(err, ERR_INVALID, "horde_url must be https://host[:port] and no more");
    const char *start = url + (plain ? 7 : 8);
    size_t host_length = strcspn(start, "/");
    const char *path = start + host_length;
    if (*path && strcmp(path, "/") && strcmp(path, "/api") && strcmp(path, "/api/") &&
        strcmp(path, "/api/v2") && strcmp(path, "/api/v2/"))
        return error_set(err, ERR_INVALID,
                         "horde_url: the path \"%.60s\" is not one of /, /api/, /api/v2/", path);
    char *host = alloc_string_n(start, host_length);
    char *base = alloc_printf("%s%s", plain ? "http://" : "https://", host);
    char *port = strrchr(host, ':');
    int rc = 0;
    if (port && !strchr(port, ']')) {
        int64_t number;
        if (!str_parse_i64(port + 1, &number) || number < 1 || number > 65535)
            rc = error_set(err, ERR_INVALID, "horde_url: \"%.20s\" is no port from 1 to 65535",
                           port + 1);
        *port = 0;
    }
    if (!rc) rc = check_host("horde_url", host, err);
    c->horde_loopback = config_host_is_loopback(host);
    if (!rc && plain && !c->horde_loopback)
        rc = error_set(err, ERR_INVALID,
                       "horde_url: http:// would send the key in clear to %.100s; use https://",
                       host);
    free(host);
    if (rc) {
        free(base);
        return rc;
    }
    free(c->horde_url);
    c->horde_url = base;
    return 0;
}

static int check_name(const char *key, const char *name, struct error *err)
{
    static const char *const refused[] = {"colab", "tpu", "google"};
    size_t length = strlen(name);
    if (length < 3 || length > 100)
        return error_set(err, ERR_INVALID, "%s has %zu characters, not 3 to 100", key, length);
    for (unsigned i = 0; i < COUNT_OF(refused); i++)
        if (strcasestr(name, refused[i]))
            return error_set(err, ERR_INVALID, "%s: the Horde refuses names with \"%s\"", key,
                             refused[i]);
    return 0;
}

static int check_list(const char *key, const struct config_list *list, unsigned most,
                      size_t longest, struct error *err)
{
    if (list->count > most)
        return error_set(err, ERR_INVALID, "%s has %u entries, the limit is %u", key, list->count,
                         most);
    for (unsigned i = 0; i < list->count; i++) {
        size_t length = strlen(list->items[i]);
        if (length < 1 || length > longest)
            return error_set(err, ERR_INVALID, "%s: entry %u has %zu characters, not 1 to %zu", key,
                             i + 1, length, longest);
    }
    return 0;
}

static int check_priority(const struct config *c, struct error *err)
{
    for (unsigned i = 0; i < c->priority_usernames.count; i++) {
        const char *name = c->priority_usernames.items[i], *hash = strrchr(name, '#');
        uint64_t number;
        if (!hash || !str_parse_u64(hash + 1, &number))
            return error_set(err, ERR_INVALID, "priority_usernames: \"%.60s\" is not alias#id",
                             name);
    }
    return 0;
}

/* name:version:url, where the server splits at the first two colons (horde-api 5.1) */
static int check_agent(const char *agent, struct error *err)
{
    const char *first = strchr(agent, ':'), *second = first ? strchr(first + 1, ':') : NULL;
    if (!second || first == agent || second == first + 1 || strlen(agent) > 1000)
        return error_set(err, ERR_INVALID, "bridge_agent \"%.80s\" is not name:version:url", agent);
    return 0;
}

static int check_word(const char *key, const char *word, const char *const *words,
                      struct error *err)
{
    char list[128] = "";
    for (const char *const *w = words; *w; w++) {
        if (str_equal(word, *w)) return 0;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", *w);
    }
    return error_set(err, ERR_INVALID, "%s: \"%.40s\" is not one of %s", key, word, list);
}

static int check_devices(const struct config *c, struct error *err)
{
    if (c->devices.count > 16)
        return error_set(err, ERR_INVALID, "devices has %u entries, the limit is 16",
                         c->devices.count);
    for (unsigned i = 0; i < c->devices.count; i++) {
        const char *d = c->devices.items[i];
        uint64_t number;
        if (!strcmp(d, "cpu") || !strcmp(d, "cuda")) continue;
        if (!str_starts(d, "cuda:") || !str_parse_u64(d + 5, &number) || number > 63)
            return error_set(err, ERR_INVALID, "devices: \"%.40s\" is neither cpu nor cuda:N", d);
    }
    return 0;
}

static int check_models(const struct config *c, struct error *err)
{
    static const char *const baselines[] = {"stable_diffusion_1",     "stable diffusion 1",
                                            "stable_diffusion_2_512", "stable diffusion 2 512",
                                            "stable_diffusion_2_768", "stable diffusion 2",
                                            "stable_diffusion_xl",    NULL};
    for (unsigned i = 0; i < c->custom_model_count; i++) {
        char key[300];
        snprintf(key, sizeof key, "custom_models: baseline of \"%s\"", c->custom_models[i].name);
        int rc = check_word(key, c->custom_models[i].baseline, baselines, err);
        if (rc) return rc;
        for (unsigned k = 0; k < i; k++)
            if (str_equal(c->custom_models[i].name, c->custom_models[k].name))
                return error_set(err, ERR_INVALID, "custom_models names \"%s\" twice",
                                 c->custom_models[i].name);
    }
    return 0;
}

static int check_forms(const struct config *c, struct error *err)
{
    static const char *const forms[] = {"caption", "nsfw", "interrogation", "post-process", NULL};
    for (unsigned i = 0; i < c->forms.count; i++) {
        int rc = check_word("forms", c->forms.items[i], forms, err);
        if (rc) return rc;
    }
    if (c->forms.count && str_equal(c->worker_name, c->alchemist_name))
        return error_set(err, ERR_INVALID,
                         "dreamer_name and alchemist_name are the same; the Horde wants two names");
    return 0;
}

int config_check(struct config *c, struct error *err)
{
    static const char *const precisions[] = {"auto", "fp32", "bf16", "fp16", "int8", NULL};
    static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
    int rc = check_horde_url(c, err);
    if (!rc) rc = check_name("dreamer_name", c->worker_name, err);
    if (!rc && c->forms.count) rc = check_name("alchemist_name", c->alchemist_name, err);
    if (!rc) rc = check_list("blacklist", &c->blacklist, 200, 15, err);
    if (!rc) rc = check_list("censorlist", &c->censorlist, 1000, 100, err);
    if (!rc) rc = check_list("models_to_load", &c->models_to_load, 300, 255, err);
    if (!rc) rc = check_list("models_to_skip", &c->models_to_skip, 1000, 255, err);
    if (!rc) rc = check_list("upload_hosts", &c->upload_hosts, 32, 253, err);
    if (!rc) rc = check_priority(c, err);
    if (!rc) rc = check_agent(c->bridge_agent, err);
    if (!rc) rc = check_word("precision", c->precision, precisions, err);
    if (!rc) rc = check_word("log_level", c->log_level, levels, err);
    if (!rc) rc = check_devices(c, err);
    if (!rc) rc = check_models(c, err);
    if (!rc) rc = check_forms(c, err);
    for (unsigned i = 0; i < c->schedule.count && !rc; i++) {
        struct schedule_span span;
        rc = schedule_parse(&span, c->schedule.items[i], err);
    }
    if (!rc && c->extra_slow_worker) { /* the reference worker does the same */
        c->queue_size = 0;
        c->max_threads = 1;
    }
    if (!rc && !c->allow_img2img) c->allow_painting = false;
    return rc;
}
