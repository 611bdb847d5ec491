#include "cli/horde_client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/str.h"
#include "config/secret.h"
#include "net/address.h"
#include "proto/horde_error.h"

#define PUBLIC_HORDE "https://aihorde.net"
#define CALL_SECONDS 60L
#define REPLY_BYTES_MAX (32u << 20) /* status may carry pictures as base64 */

char *horde_client_config_path(void)
{
    const char *named = getenv("KILN_CONFIG");
    if (named && *named) return alloc_string(named);
    const char *home = getenv("XDG_CONFIG_HOME"), *user = getenv("HOME");
    char *path = home && *home ? alloc_printf("%s/kiln/bridgeData.yaml", home)
                 : user        ? alloc_printf("%s/.config/kiln/bridgeData.yaml", user)
                               : NULL;
    if (path && access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

static bool url_is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    if (!host) return false;
    host += 3;
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    char *text = alloc_string_n(host, n);
    bool loopback = config_host_is_loopback(text);
    free(text);
    return loopback;
}

int horde_client_open(struct horde_client *c, const char *config_path, const char *url,
                      struct error *err)
{
    struct config config = {0};
    char *path = config_path ? alloc_string(config_path) : horde_client_config_path();
    int rc = path ? config_load(&config, path, false, err) : 0;
    *c = (struct horde_client){0};
    if (!rc) {
        c->url = alloc_string(url ? url : path ? config.horde_url : PUBLIC_HORDE);
        c->api_key = alloc_string(path && *config.api_key ? config.api_key : CONFIG_ANON_KEY);
        c->loopback = url_is_loopback(c->url);
        if (!c->loopback && !str_starts(c->url, "https://"))
            rc = error_set(err, ERR_INVALID, "%s: a Horde on another machine needs https://", c->url);
    }
    if (!rc) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        c->curl = curl_easy_init();
        if (!c->curl) rc = error_set(err, ERR_NO_MEMORY, "no memory for the HTTP client");
    }
    if (path) config_release(&config);
    free(path);
    if (rc) horde_client_close(c);
    return rc;
}

void horde_client_close(struct horde_client *c)
{
    if (c->curl) curl_easy_cleanup(c->curl);
    if (c->api_key) secret_wipe(c->api_key, strlen(c->api_key));
    free(c->api_key);
    free(c->url);
    *c = (struct horde_client){0};
}

static size_t on_bytes(char *data, size_t size, size_t count, void *context)
{
    return buf_append(context, data, size * count, NULL) ? 0 : size * count;
}

static curl_socket_t on_open(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    const struct horde_client *c = context;
    (void)purpose;
    if (!c->loopback && !address_is_public(&address->addr)) return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void prepare(struct horde_client *c, const char *url, struct buf *reply)
{
    CURL *curl = c->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, c->loopback ? "http,https" : "https");
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, CALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 15L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
    buf_clear(reply);
}

static int judge(const char *what, long status, const struct buf *reply, struct error *err)
{
    struct horde_error e;
    if (status >= 200 && status < 300) return 0;
    horde_error_parse(&e, (int)status, (const char *)reply->data, reply->length);
    int code = status == 429 || status >= 500 ? ERR_BUSY : ERR_REFUSED;
    if (status >= 300 && status < 400) code = ERR_REFUSED;
    return error_set(err, code, "%s: %s%s%s (HTTP %ld%s%s)", what,
                     e.message[0] ? e.message : "the server gave no reason", e.fields[0] ? ": " : "",
                     e.fields, status, e.rc[0] ? " " : "", e.rc);
}

static int perform(struct horde_client *c, const char *what, const struct buf *reply,
                   struct error *err)
{
    CURLcode code = curl_easy_perform(c->curl);
    long status = 0;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_WRITE_ERROR)
        return error_set(err, ERR_FORMAT, "%s: the answer is longer than %zu bytes", what,
                         reply->limit);
    if (code) return error_set(err, ERR_NETWORK, "%s: %s", what, curl_easy_strerror(code));
    return judge(what, status, reply, err);
}

int horde_client_call(struct horde_client *c, const char *method, const char *path,
                      const struct buf *body, const char *extra, struct buf *reply,
                      struct error *err)
{
    char *url = alloc_printf("%s%s", c->url, path);
    bool secret = str_starts(path, "/api/v2/sharedkeys/"); /* what follows is a key */
    char *what = alloc_printf("%s %s", method, secret ? "/api/v2/sharedkeys/ID" : path);
    char *key = alloc_printf("apikey: %s", c->api_key);
    char *agent = alloc_printf("Client-Agent: %s", KILN_BRIDGE_AGENT);
    struct curl_slist *headers = NULL;
    reply->limit = REPLY_BYTES_MAX;
    prepare(c, url, reply);
    headers = curl_slist_append(headers, key);
    headers = curl_slist_append(headers, agent);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    if (extra) headers = curl_slist_append(headers, extra);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    if (body) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)body->length);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, (const char *)body->data);
    }
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    int rc = perform(c, what, reply, err);
    curl_slist_free_all(headers);
    secret_wipe(key, strlen(key));
    free(key);
    free(agent);
    free(what);
    free(url);
    return rc;
}

int horde_client_fetch(struct horde_client *c, const char *url, struct buf *reply,
                       struct error *err)
{
    char shown[128];
    address_show(shown, sizeof shown, url);
    if (!c->loopback && !str_starts(url, "https://"))
        return error_set(err, ERR_REFUSED, "a picture at %s: https is needed", shown);
    reply->limit = 16u << 20;
    prepare(c, url, reply);
    return perform(c, shown, reply, err);
}
