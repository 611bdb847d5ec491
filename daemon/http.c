#include "daemon/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/str.h"
#include "config/secret.h"

#define REDIRECTS_MAX 3

struct http {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer; /* curl's */
    uv_timer_t soon;  /* calls that failed before they began */
    char *horde_url, *api_key, *client_agent;
    struct address_rule rule;
    char *horde_host;
    struct http_call *calls;
    int closing; /* handles still to close */
};

struct http_call {
    struct http *h;
    CURL *easy;
    struct curl_slist *headers;
    enum http_use use;
    char method[8];
    char *url;
    struct buf body, reply;
    size_t sent;
    int redirects;
    int64_t retry_after_ms;
    struct error err; /* set before curl could say it better */
    bool stillborn;
    void (*done)(void *data, const struct http_reply *reply);
    void *data;
    struct http_call *next, **back;
    int total_ms;
};

struct watch { /* a socket of curl's */
    uv_poll_t poll;
    curl_socket_t fd;
    struct http *h;
};

/* ---- the end of a call ---- */

static void unlink_call(struct http_call *c)
{
    *c->back = c->next;
    if (c->next) c->next->back = c->back;
}

static void free_call(struct http_call *c)
{
    if (c->easy) {
        curl_multi_remove_handle(c->h->multi, c->easy);
        curl_easy_cleanup(c->easy);
    }
    for (struct curl_slist *s = c->headers; s; s = s->next) secret_wipe(s->data, strlen(s->data));
    curl_slist_free_all(c->headers);
    buf_release(&c->body);
    buf_release(&c->reply);
    free(c->url);
    free(c);
}

static void finish(struct http_call *c, int status)
{
    struct http_reply reply = {.status = status,
                               .body = c->reply.data ? c->reply.data : (const uint8_t *)"",
                               .length = c->reply.length,
                               .retry_after_ms = c->retry_after_ms,
                               .err = c->err};
    unlink_call(c);
    c->done(c->data, &reply);
    free_call(c);
}

void http_cancel(struct http_call *call)
{
    if (!call) return;
    unlink_call(call);
    free_call(call);
}

/* ---- curl's callbacks ---- */

static size_t on_bytes(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_call *c = arg;
    struct error err = {0};
    if (!buf_append(&c->reply, bytes, size * count, &err)) return size * count;
    error_set(&c->err, ERR_NETWORK, "the answer is longer than the limit of %zu bytes",
              c->reply.limit);
    return 0;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_call *c = arg;
    static const char name[] = "retry-after:";
    char line[64];
    size_t length = size * count;
    str_copy(line, length < sizeof line ? length + 1 : sizeof line, bytes);
    if (length > sizeof name && !strncasecmp(line, name, sizeof name - 1)) {
        char *end, *value = line + sizeof name - 1;
        long seconds = strtol(value, &end, 10);
        if (end != value && seconds >= 0)
            c->retry_after_ms = (seconds < 3600 ? seconds : 3600) * 1000L;
    }
    return length;
}

static size_t on_want(char *to, size_t size, size_t count, void *arg)
{
    struct http_call *c = arg;
    size_t room = size * count, left = c->body.length - c->sent;
    if (room > left) room = left;
    if (room) memcpy(to, c->body.data + c->sent, room);
    c->sent += room;
    return room;
}

static int on_rewind(void *arg, curl_off_t offset, int origin)
{
    struct http_call *c = arg;
    if (origin != SEEK_SET || offset < 0 || (size_t)offset > c->body.length)
        return CURL_SEEKFUNC_FAIL;
    c->sent = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* The address that would really be connected to is judged, whatever name led to it. The Horde's own
 * address is the operator's word; job URLs are strangers'. */
static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_call *c = arg;
    const struct address_rule *rule = &c->h->rule;
    bool here = rule->loopback && address_is_loopback(&address->addr);
    bool ours = c->use == HTTP_API || c->use == HTTP_PLAIN;
    bool allowed = here || address_is_public(&address->addr) ||
                   (ours && !rule->loopback && !address_is_loopback(&address->addr));
    if (!allowed) {
        char shown[128];
        address_show(shown, sizeof shown, c->url);
        error_set(&c->err, ERR_REFUSED, "%s leads to an address inside this machine or network",
                  shown);
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- the loop's side ---- */

static void collect(struct http *h);

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct http *h = w->h;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
    if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(h->multi, w->fd, flags, &running);
    collect(h);
}

static void on_time(uv_timer_t *timer)
{
    struct http *h = timer->data;
    int running;
    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(h);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct http *h = arg;
    if (timeout_ms < 0) return uv_timer_stop(&h->timer), 0;
    uv_update_time(h->loop);
    /* 0 would be inside the call that started it */
    uv_timer_start(&h->timer, on_time, (uint64_t)timeout_ms, 0);
    return 0;
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct http *h = arg;
    struct watch *w = of_socket;
    if (what == CURL_POLL_REMOVE) {
        if (w) {
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, on_watch_closed);
            curl_multi_assign(h->multi, fd, NULL);
        }
        return 0;
    }
    if (!w) {
        w = alloc_zero(1, sizeof *w);
        w->fd = fd;
        w->h = h;
        if (uv_poll_init_socket(h->loop, &w->poll, fd)) {
            free(w);
            return -1;
        }
        w->poll.data = w;
        curl_multi_assign(h->multi, fd, w);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_ready);
}

/* ---- starting ---- */

static int follow(struct http_call *c, const char *where);

static void collect(struct http *h)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        struct http_call *c;
        long status = 0;
        char *where = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        curl_easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(m->easy_handle, CURLINFO_REDIRECT_URL, &where);
        curl_multi_remove_handle(h->multi, c->easy);
        if (code != CURLE_OK) {
            if (!c->err.code) error_set(&c->err, ERR_NETWORK, "%s", curl_easy_strerror(code));
            status = 0;
        } else if (status >= 300 && status < 400) {
            if (c->use == HTTP_FETCH && where && !follow(c, where)) continue;
            if (!c->err.code)
                error_set(&c->err, ERR_REFUSED,
                          "the server answered with a redirect, which is not followed");
            status = 0;
        }
        finish(c, (int)status);
    }
}

static int check_target(struct http_call *c)
{
    if (c->use == HTTP_API || c->use == HTTP_PLAIN) return 0;
    return address_check_url(&c->h->rule, c->url, &c->err);
}

static int follow(struct http_call *c, const char *where)
{
    if (++c->redirects > REDIRECTS_MAX)
        return error_set(&c->err, ERR_REFUSED, "more than %d redirects", REDIRECTS_MAX);
    free(c->url);
    c->url = alloc_string(where);
    if (check_target(c)) return c->err.code;
    buf_clear(&c->reply);
    curl_easy_setopt(c->easy, CURLOPT_URL, c->url);
    curl_multi_add_handle(c->h->multi, c->easy);
    return 0;
}

static void on_soon(uv_timer_t *timer)
{
    struct http *h = timer->data;
    for (struct http_call *c = h->calls; c;) {
        if (c->stillborn) {
            finish(c, 0);
            c = h->calls; /* the list may be another now */
        } else {
            c = c->next;
        }
    }
}

static void add_headers(struct http_call *c)
{
    struct http *h = c->h;
    char *line;
    c->headers = curl_slist_append(c->headers, "Expect:");
    if (c->use == HTTP_API) {
        line = alloc_printf("apikey: %s", h->api_key);
        c->headers = curl_slist_append(c->headers, line);
        secret_wipe(line, strlen(line));
        free(line);
    }
    if (c->use == HTTP_API || c->use == HTTP_PLAIN) {
        line = alloc_printf("Client-Agent: %s", h->client_agent);
        c->headers = curl_slist_append(c->headers, line);
        free(line);
        if (c->body.length)
            c->headers = curl_slist_append(c->headers, "Content-Type: application/json");
    } else {
        c->headers = curl_slist_append(c->headers, "Content-Type:"); /* the signature has none */
    }
}

static void configure(struct http_call *c)
{
    CURL *e = c->easy;
    bool clear = c->h->rule.loopback;
    curl_easy_setopt(e, CURLOPT_URL, c->url);
    curl_easy_setopt(e, CURLOPT_PRIVATE, c);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, clear ? "http,https" : "https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, 3600L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)c->total_ms);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 100L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, 30L);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 65536L);
    if (!strcmp(c->method, "PUT")) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_want);
        curl_easy_setopt(e, CURLOPT_READDATA, c);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, c);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)c->body.length);
        if (c->use == HTTP_API) curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, "PUT");
    } else if (strcmp(c->method, "GET") != 0) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, c->body.data ? (char *)c->body.data : "");
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->body.length);
        if (strcmp(c->method, "POST") != 0) curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, c->method);
    }
}

struct http_call *http_send(struct http *h, const struct http_request *r)
{
    struct http_call *c = alloc_zero(1, sizeof *c);
    bool to_horde = r->use == HTTP_API || r->use == HTTP_PLAIN;
    c->h = h;
    c->use = r->use;
    c->done = r->done;
    c->data = r->data;
    c->total_ms = r->total_ms ? r->total_ms : 30000;
    str_copy(c->method, sizeof c->method, r->method);
    c->url = to_horde ? alloc_printf("%s/api/%s%s", h->horde_url, *r->path == '/' ? "" : "v2/",
                                     *r->path == '/' ? r->path + 1 : r->path)
                      : alloc_string(r->url);
    buf_init(&c->body, SIZE_MAX);
    buf_init(&c->reply, r->limit_bytes ? r->limit_bytes : HTTP_REPLY_BYTES_MAX);
    c->next = h->calls;
    c->back = &h->calls;
    if (c->next) c->next->back = &c->next;
    h->calls = c;
    int rc = r->body_length ? buf_append(&c->body, r->body, r->body_length, &c->err) : 0;
    if (!rc) rc = check_target(c);
    c->easy = rc ? NULL : curl_easy_init();
    if (c->easy) {
        add_headers(c);
        configure(c);
        curl_multi_add_handle(h->multi, c->easy);
    } else {
        if (!rc) error_set(&c->err, ERR_NO_MEMORY, "no memory for a request");
        c->stillborn = true;
        uv_timer_start(&h->soon, on_soon, 0, 0);
    }
    return c;
}

/* ---- life ---- */

static void forget(struct http *h)
{
    if (h->api_key) secret_wipe(h->api_key, strlen(h->api_key));
    free(h->api_key);
    free(h->horde_url);
    free(h->client_agent);
    free(h->horde_host);
}

int http_change(struct http *h, const struct http_options *o, struct error *err)
{
    forget(h);
    h->horde_url = alloc_string(o->horde_url);
    h->api_key = alloc_string(o->api_key);
    h->client_agent = alloc_string(o->client_agent);
    const char *host = strstr(o->horde_url, "://");
    host = host ? host + 3 : o->horde_url;
    size_t length = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    h->horde_host = alloc_string_n(host, length);
    h->rule = o->rule;
    h->rule.horde_host = h->horde_host;
    return 0;
}

int http_start(struct http **http, uv_loop_t *loop, const struct http_options *o, struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return error_set(err, ERR_INTERNAL, "libcurl does not start");
    struct http *h = alloc_zero(1, sizeof *h);
    h->loop = loop;
    h->multi = curl_multi_init();
    if (!h->multi) {
        free(h);
        return error_set(err, ERR_NO_MEMORY, "no memory for libcurl");
    }
    uv_timer_init(loop, &h->timer);
    uv_timer_init(loop, &h->soon);
    h->timer.data = h->soon.data = h;
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 16L);
    *http = h;
    return http_change(h, o, err);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct http *h = handle->data;
    if (--h->closing) return;
    forget(h);
    free(h);
}

void http_stop(struct http *h)
{
    if (!h) return;
    while (h->calls) http_cancel(h->calls);
    curl_multi_cleanup(h->multi);
    h->closing = 2;
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
    uv_close((uv_handle_t *)&h->soon, on_timer_closed);
}
