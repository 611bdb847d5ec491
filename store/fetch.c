#include "store/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/str.h"
#include "config/config.h"
#include "config/secret.h"
#include "net/address.h"
#include "proto/model_reference.h"

#define CONNECT_SECONDS 20L
#define DOCUMENT_SECONDS 60
#define DAY_SECONDS 86400
#define SLOW_BYTES_S 1024L /* for a minute: given up, and resumed later */
#define SLOW_SECONDS 60L
#define CONNECTION_SECONDS 3600L

/* where models are published, and the stores those places send us to */
static const char *const hosts[] = {
    "raw.githubusercontent.com",
    "github.com",
    "*.githubusercontent.com",
    "storage.googleapis.com", /* BLIP, store/known.h */
    "huggingface.co",
    "*.huggingface.co",
    "*.hf.co",
    "civitai.com",
    "*.civitai.com",
    NULL,
};

/* ---- the client ---- */

static char *token_of(const char *variable, const char *given)
{
    const char *set = getenv(variable);
    return alloc_string(set && *set ? set : given ? given : "");
}

static int take_origin(struct fetch_client *c, struct error *err)
{
    const char *origin = getenv("KILN_STORE_TEST_ORIGIN");
    if (!origin || !*origin) return 0;
    size_t scheme = str_starts(origin, "http://") ? 7 : 0;
    size_t length = scheme ? strcspn(origin + scheme, ":/") : 0;
    char *host = alloc_string_n(origin + scheme, length);
    bool here = scheme && str_starts(host, "127.") && config_host_is_loopback(host);
    free(host);
    if (!here || strchr(origin, '@') || strchr(origin + scheme, '/'))
        return error_set(err, ERR_INVALID,
                         "KILN_STORE_TEST_ORIGIN must be http://127.0.0.1:PORT; it is for tests");
    c->origin = alloc_string(origin);
    return 0;
}

int fetch_open(struct fetch_client *c, const char *civitai_token, const char *hub_token,
               struct error *err)
{
    *c = (struct fetch_client){0};
    int rc = take_origin(c, err);
    if (rc) return rc;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c->curl = curl_easy_init();
    c->civitai_token = token_of("CIVITAI_API_TOKEN", civitai_token);
    c->hub_token = token_of("HF_TOKEN", hub_token);
    if (!c->curl) {
        fetch_close(c);
        return error_set(err, ERR_NO_MEMORY, "no memory for the HTTP client");
    }
    return 0;
}

static void wipe(char *secret)
{
    if (secret) secret_wipe(secret, strlen(secret));
    free(secret);
}

void fetch_close(struct fetch_client *c)
{
    if (c->curl) curl_easy_cleanup(c->curl);
    wipe(c->civitai_token);
    wipe(c->hub_token);
    free(c->origin);
    *c = (struct fetch_client){0};
}

/* ---- URLs ---- */

static char *part_of(const char *url, CURLUPart part)
{
    CURLU *u = curl_url();
    char *text = NULL, *copy = NULL;
    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
        !curl_url_get(u, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0))
        copy = alloc_string(text);
    curl_free(text);
    curl_url_cleanup(u);
    return copy;
}

char *fetch_show(const char *url)
{
    size_t length = strcspn(url, "?#");
    char *cut = alloc_string_n(url, length < 400 ? length : 400), *shown = alloc_zero(401, 1);
    const char *at = strchr(cut, '@');
    str_clean(shown, 401, at ? "a URL with a user name" : cut);
    free(cut);
    return shown;
}

static struct address_rule rule_of(const struct fetch_client *c)
{
    return (struct address_rule){.loopback = c->origin != NULL, .hosts = hosts};
}

/* also for redirects, whose signed queries are the business of those who made them */
static int check_place(const struct fetch_client *c, const char *url, struct error *err)
{
    struct address_rule rule = rule_of(c);
    int rc = address_check_url(&rule, url, err);
    char *port = rc || c->origin ? NULL : part_of(url, CURLUPART_PORT);
    if (port && strcmp(port, "443") != 0)
        rc = error_set(err, ERR_REFUSED, "a URL with port %s; only 443 is allowed", port);
    free(port);
    return rc;
}

int fetch_check_url(const struct fetch_client *c, const char *url, struct error *err)
{
    const char *query = strchr(url, '?');
    if (query &&
        (strstr(query, "?token=") || strstr(query, "&token=") || strstr(query, "api_key=")))
        return error_set(err, ERR_REFUSED,
                         "a token in a URL would end in logs; put it into civitai_api_token of "
                         "bridgeData.yaml or into CIVITAI_API_TOKEN");
    return check_place(c, url, err);
}

/* https://HOST/PATH -> ORIGIN/HOST/PATH in tests */
static char *to_origin(const struct fetch_client *c, const char *url)
{
    if (!c->origin || !str_starts(url, "https://")) return alloc_string(url);
    return alloc_printf("%s/%s", c->origin, url + 8);
}

static bool same_place(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    bool same = true;
    for (size_t i = 0; i < COUNT_OF(parts) && same; i++) {
        char *x = part_of(a, parts[i]), *y = part_of(b, parts[i]);
        same = x && y && str_equal_nocase(x, y);
        free(x);
        free(y);
    }
    return same;
}

static char *resolve(const char *base, const char *location)
{
    CURLU *u = curl_url();
    char *text = NULL, *copy = NULL;
    if (u && !curl_url_set(u, CURLUPART_URL, base, 0) &&
        !curl_url_set(u, CURLUPART_URL, location, 0) && !curl_url_get(u, CURLUPART_URL, &text, 0))
        copy = alloc_string(text);
    curl_free(text);
    curl_url_cleanup(u);
    return copy;
}

/* ---- one request ---- */

struct hop {
    struct fetch_client *client;
    const struct fetch *fetch;
    struct fetch_reply *reply;
    struct error *err;
    bool trusted_hub; /* this is Hugging Face itself */
    bool started, blocked;
    int rc; /* of a callback */
    int64_t length;
    char location[4096];
};

static curl_socket_t on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct hop *h = context;
    (void)purpose;
    bool allowed =
        h->client->origin ? address_is_loopback(&address->addr) : address_is_public(&address->addr);
    if (!allowed) {
        h->blocked = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool header_is(const char *line, const char *name, char *value, size_t room)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length) != 0 || line[length] != ':') return false;
    const char *start = line + length + 1 + strspn(line + length + 1, " \t");
    size_t n = strcspn(start, "\r\n");
    while (n && (start[n - 1] == ' ' || start[n - 1] == '\t')) n--;
    if (n >= room) n = 0; /* too long to be used */
    memcpy(value, start, n);
    value[n] = 0;
    return true;
}

static void take_linked(struct hop *h, const char *value)
{
    size_t length = strlen(value);
    char *bare =
        value[0] == '"' && length > 2 ? alloc_string_n(value + 1, length - 2) : alloc_string(value);
    if (h->trusted_hub) sha256_normalise(h->reply->linked_sha256, bare);
    free(bare);
}

static void take_range(struct hop *h, const char *value)
{
    long long from = 0, to = 0, total = -1;
    if (sscanf(value, "bytes %lld-%lld/%lld", &from, &to, &total) == 3) {
        h->reply->from_byte = from;
        h->reply->to_byte = to;
    } else if (sscanf(value, "bytes %lld-%lld/*", &from, &to) == 2) {
        h->reply->from_byte = from;
        h->reply->to_byte = to;
    } else
        sscanf(value, "bytes */%lld", &total);
    h->reply->total_bytes = total;
}

static size_t on_header(char *data, size_t size, size_t count, void *context)
{
    struct hop *h = context;
    struct fetch_reply *r = h->reply;
    char *line = alloc_string_n(data, size * count), value[4096];
    if (str_starts(line, "HTTP/")) {
        h->length = r->total_bytes = -1;
        r->from_byte = r->to_byte = 0;
        r->accepts_ranges = false;
        r->etag[0] = r->content_type[0] = h->location[0] = 0;
    } else if (header_is(line, "location", value, sizeof value)) {
        str_copy(h->location, sizeof h->location, value);
    } else if (header_is(line, "etag", value, sizeof r->etag)) {
        str_copy(r->etag, sizeof r->etag, value);
    } else if (header_is(line, "content-type", value, sizeof r->content_type)) {
        str_copy(r->content_type, sizeof r->content_type, value);
    } else if (header_is(line, "content-length", value, sizeof value)) {
        str_parse_i64(value, &h->length);
    } else if (header_is(line, "content-range", value, sizeof value)) {
        take_range(h, value);
    } else if (header_is(line, "accept-ranges", value, sizeof value)) {
        r->accepts_ranges = str_equal_nocase(value, "bytes");
    } else if (header_is(line, "x-linked-etag", value, sizeof value)) {
        take_linked(h, value);
    }
    free(line);
    return size * count;
}

static int read_status(struct hop *h)
{
    long status = 0;
    curl_easy_getinfo(h->client->curl, CURLINFO_RESPONSE_CODE, &status);
    h->reply->status = (int)status;
    return (int)status;
}

static int start(struct hop *h)
{
    struct fetch_reply *r = h->reply;
    h->started = true;
    if (r->status == 200) r->total_bytes = h->length;
    return h->fetch->on_start ? h->fetch->on_start(h->fetch->context, r, h->err) : 0;
}

static size_t on_data(char *data, size_t size, size_t count, void *context)
{
    struct hop *h = context;
    int status = read_status(h);
    if (status != 200 && status != 206) return 0; /* pages about errors are not read */
    if (!h->started) h->rc = start(h);
    if (!h->rc) h->rc = h->fetch->on_bytes(h->fetch->context, data, size * count, h->err);
    return h->rc ? 0 : size * count;
}

static const char *token_for(const struct fetch_client *c, const char *first, bool here)
{
    char *host = here ? part_of(first, CURLUPART_HOST) : NULL;
    const char *token = !host                                      ? ""
                        : str_equal_nocase(host, "civitai.com")    ? c->civitai_token
                        : str_equal_nocase(host, "huggingface.co") ? c->hub_token
                                                                   : "";
    free(host);
    return token;
}

static struct curl_slist *headers_of(const struct hop *h, const char *first, bool here)
{
    const struct fetch *f = h->fetch;
    const char *token = token_for(h->client, first, here);
    struct curl_slist *list = curl_slist_append(NULL, "User-Agent: kiln/" KILN_VERSION);
    char *line = NULL;
    if (*token) {
        line = alloc_printf("Authorization: Bearer %s", token);
        list = curl_slist_append(list, line);
        wipe(line);
    }
    if (f->if_none_match && *f->if_none_match) {
        line = alloc_printf("If-None-Match: %s", f->if_none_match);
        list = curl_slist_append(list, line);
        free(line);
    }
    if (f->from_byte > 0 || f->to_byte > 0) {
        char to[24] = "";
        if (f->to_byte > 0) snprintf(to, sizeof to, "%lld", (long long)f->to_byte);
        line = alloc_printf("Range: bytes=%lld-%s", (long long)f->from_byte, to);
        list = curl_slist_append(list, line);
        free(line);
        /* a weak ETag cannot be used here (RFC 9110, 13.1.5) */
        if (f->if_range && f->if_range[0] == '"') {
            line = alloc_printf("If-Range: %s", f->if_range);
            list = curl_slist_append(list, line);
            free(line);
        }
    }
    return list;
}

/* curl asks about once a second, also while it only waits */
static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t x, curl_off_t y)
{
    const struct hop *h = context;
    return h->client->stop && *h->client->stop;
}

static void prepare(struct hop *h, const char *url, struct curl_slist *headers)
{
    CURL *curl = h->client->curl;
    long seconds = h->fetch->seconds_max ? h->fetch->seconds_max : DAY_SECONDS;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, h->client->origin ? "http,https" : "https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_MAXLIFETIME_CONN, CONNECTION_SECONDS);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, seconds);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SLOW_SECONDS);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, h);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, h);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, h);
}

static int judge(const char *shown, int status, struct error *err)
{
    switch (status) {
    case 401:
    case 403:
        return error_set(
            err, ERR_REFUSED,
            "%s: not without a token that may have it (HTTP %d); see civitai_api_token "
            "in bridgeData.yaml, CIVITAI_API_TOKEN, HF_TOKEN",
            shown, status);
    case 404:
    case 410: return error_set(err, ERR_NOT_FOUND, "%s: not there (HTTP %d)", shown, status);
    case 451:
        return error_set(err, ERR_REFUSED, "%s: withheld for legal reasons (HTTP 451)", shown);
    default:
        return error_set(err, status == 429 || status >= 500 ? ERR_BUSY : ERR_REFUSED,
                         "%s: answered with HTTP %d", shown, status);
    }
}

/* One request; 0 with a status of 200, 206, 304 or a redirect. */
static int ask(struct hop *h, const char *first, const char *url, struct error *err)
{
    char *origin_url = to_origin(h->client, first), *shown = fetch_show(url);
    bool here = same_place(origin_url, url);
    char *host = part_of(first, CURLUPART_HOST);
    h->trusted_hub = here && host && str_equal_nocase(host, "huggingface.co");
    struct curl_slist *headers = headers_of(h, first, here);
    prepare(h, url, headers);
    CURLcode code = curl_easy_perform(h->client->curl);
    for (struct curl_slist *l = headers; l; l = l->next) secret_wipe(l->data, strlen(l->data));
    curl_slist_free_all(headers);
    int status = read_status(h), rc = h->rc;
    address_show(h->reply->host, sizeof h->reply->host, url);
    bool said_no = status >= 300 && status != 304;
    if (rc)
        error_wrap(err, rc, "%s", shown);
    else if (h->blocked)
        rc = error_set(err, ERR_REFUSED, "%s: its address is not a public one", shown);
    else if (code == CURLE_ABORTED_BY_CALLBACK)
        rc = error_set(err, ERR_CANCELED, "%s: given up", shown);
    else if (code && !(code == CURLE_WRITE_ERROR && said_no))
        rc = error_set(err, ERR_NETWORK, "%s: %s", shown, curl_easy_strerror(code));
    else if (said_no && !(status < 400 && h->location[0]))
        rc = judge(shown, status, err);
    else if (status == 200 || status == 206) {
        if (!h->started) rc = start(h); /* an empty body */
    }
    free(host);
    free(shown);
    free(origin_url);
    return rc;
}

int fetch_run(struct fetch_client *c, const struct fetch *f, struct fetch_reply *reply,
              struct error *err)
{
    struct hop *h = alloc_zero(1, sizeof *h);
    memset(reply, 0, sizeof *reply);
    reply->total_bytes = -1;
    int rc = fetch_check_url(c, f->url, err);
    char *url = to_origin(c, f->url);
    while (!rc) {
        *h = (struct hop){.client = c, .fetch = f, .reply = reply, .err = err};
        rc = ask(h, f->url, url, err);
        if (rc || reply->status < 300 || reply->status == 304) break;
        char *next = resolve(url, h->location), *shown = fetch_show(url);
        if (reply->redirects++ == FETCH_REDIRECTS_MAX)
            rc = error_set(err, ERR_REFUSED, "%s: more than %d redirects", shown,
                           FETCH_REDIRECTS_MAX);
        else if (!next)
            rc = error_set(err, ERR_REFUSED, "%s: redirects to what is no URL", shown);
        else if ((rc = check_place(c, next, err)))
            error_wrap(err, rc, "%s redirects to", shown);
        free(shown);
        free(url);
        url = next;
    }
    free(url);
    free(h);
    return rc;
}

/* ---- documents ---- */

static int append(void *context, const void *bytes, size_t length, struct error *err)
{
    struct buf *to = context;
    if (buf_append(to, bytes, length, NULL))
        return error_set(err, ERR_FORMAT, "longer than %zu bytes", to->limit);
    return 0;
}

int fetch_document(struct fetch_client *c, const char *url, const char *etag, struct buf *to,
                   struct fetch_reply *reply, struct error *err)
{
    struct fetch f = {.url = url,
                      .if_none_match = etag,
                      .seconds_max = DOCUMENT_SECONDS,
                      .on_bytes = append,
                      .context = to};
    buf_clear(to);
    to->limit = FETCH_DOCUMENT_BYTES_MAX;
    return fetch_run(c, &f, reply, err);
}
