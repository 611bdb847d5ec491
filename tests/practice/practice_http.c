#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/now.h"
#include "base/str.h"
#include "practice.h"

#define BODY_MAX (32u << 20)

static struct MHD_Daemon *server;
static char *tls_cert, *tls_key;

int64_t practice_ms(const struct practice *p)
{
    return now_ms() - p->start_ms;
}

void practice_sleep(const struct practice *p, int ms)
{
    while (ms > 0 && !p->stopping && !p->closed) {
        int slice = ms < 20 ? ms : 20;
        nanosleep(&(struct timespec){0, slice * 1000000L}, NULL);
        ms -= slice;
    }
}

/* ---- answers written by hand, for faults that no HTTP library would make ---------------- */

struct exchange {
    struct buf body;
    bool too_large;
};

static int fd_of(struct MHD_Connection *m)
{
    return MHD_get_connection_info(m, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static void send_all(struct practice *p, int fd, const char *data, size_t length)
{
    while (length && !p->stopping) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        } else {
            struct pollfd ready = {fd, POLLOUT, 0};
            if (poll(&ready, 1, 5000) <= 0 || ready.revents & (POLLERR | POLLHUP)) return;
        }
    }
}

static void send_slowly(struct practice *p, int fd, const char *data, size_t length, int ms)
{
    int pause = length ? ms / (int)length : 0;
    size_t chunk = pause ? 1 : length / (size_t)(ms / 10 + 1) + 1;
    for (size_t at = 0; at < length && !p->stopping; at += chunk) {
        send_all(p, fd, data + at, length - at < chunk ? length - at : chunk);
        practice_sleep(p, pause ? pause : 10);
    }
}

static char *raw_head(const struct call *c, size_t length)
{
    return alloc_printf("HTTP/1.1 %d Practice\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                        c->status, c->type, length);
}

static enum MHD_Result raw_answer(struct practice *p, struct MHD_Connection *m,
                                  const struct call *c, const char *body, size_t length)
{
    const struct fault *f = &c->fault;
    int fd = fd_of(m);
    char *head = raw_head(c, length);
    if (str_equal(f->kind, "slow_headers"))
        send_slowly(p, fd, head, strlen(head), f->ms);
    else
        send_all(p, fd, head, strlen(head));
    if (str_equal(f->kind, "cut"))
        send_all(p, fd, body, length / 2);
    else if (str_equal(f->kind, "slow_body"))
        send_slowly(p, fd, body, length, f->ms);
    else
        send_all(p, fd, body, length);
    if (str_equal(f->kind, "twice")) {
        send_all(p, fd, head, strlen(head));
        send_all(p, fd, body, length);
    }
    free(head);
    return MHD_NO; /* closes */
}

static enum MHD_Result reset(struct MHD_Connection *m)
{
    struct linger now = {1, 0};
    setsockopt(fd_of(m), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    return MHD_NO;
}

/* ---- ordinary answers ------------------------------------------------------------------- */

static enum MHD_Result answer(struct practice *p, struct MHD_Connection *m, const struct call *c,
                              const char *body, size_t length)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(length, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    char number[16];
    MHD_add_response_header(r, "Content-Type", c->type);
    MHD_add_response_header(r, "Horde-Node", "practice:5.1.5");
    if (c->location[0]) MHD_add_response_header(r, "Location", c->location);
    if (c->retry_after >= 0) {
        snprintf(number, sizeof number, "%d", c->retry_after);
        MHD_add_response_header(r, "Retry-After", number);
    }
    enum MHD_Result queued = MHD_queue_response(m, (unsigned)c->status, r);
    MHD_destroy_response(r);
    return queued;
}

static const char *header(struct MHD_Connection *m, const char *name)
{
    return MHD_lookup_connection_value(m, MHD_HEADER_KIND, name);
}

static enum MHD_Result collect_header(void *context, enum MHD_ValueKind kind, const char *key,
                                      const char *value)
{
    json_object_set_new(context, key, json_string(value ? value : ""));
    return MHD_YES;
}

static enum MHD_Result deliver(struct practice *p, struct MHD_Connection *m, const struct call *c,
                               const char *out, size_t length)
{
    const char *kind = c->faulty ? c->fault.kind : "";
    if (str_equal(kind, "delay")) practice_sleep(p, c->fault.ms ? c->fault.ms : 1000);
    if (str_equal(kind, "hang")) practice_sleep(p, c->fault.ms ? c->fault.ms : 3600000);
    if (str_equal(kind, "reset") || str_equal(kind, "drop_reset")) return reset(m);
    if (str_equal(kind, "drop") || str_equal(kind, "hang")) return MHD_NO;
    if (str_equal(kind, "cut") || str_equal(kind, "twice") || str_starts(kind, "slow"))
        return raw_answer(p, m, c, out, length);
    return answer(p, m, c, out, length);
}

static enum MHD_Result serve(struct practice *p, struct MHD_Connection *m, const char *url,
                             const char *method, const uint8_t *bytes, size_t length)
{
    struct call c = {.method = method,
                     .path = url,
                     .key = header(m, "apikey"),
                     .agent = header(m, "Client-Agent"),
                     .host = header(m, "Host"),
                     .idempotency = header(m, "Idempotency-Key"),
                     .bytes = bytes,
                     .length = length,
                     .status = 200,
                     .type = "application/json",
                     .retry_after = -1};
    c.query = MHD_lookup_connection_value(m, MHD_GET_ARGUMENT_KIND, "type");
    c.sort = MHD_lookup_connection_value(m, MHD_GET_ARGUMENT_KIND, "sort");
    c.page = MHD_lookup_connection_value(m, MHD_GET_ARGUMENT_KIND, "page");
    c.tag = MHD_lookup_connection_value(m, MHD_GET_ARGUMENT_KIND, "tag");
    c.model = MHD_lookup_connection_value(m, MHD_GET_ARGUMENT_KIND, "model");
    if (str_starts(url, "/practice/trap")) { /* what a redirected client gives away */
        json_t *headers = json_object();
        MHD_get_connection_values(m, MHD_HEADER_KIND, collect_header, headers);
        c.body = json_pack("{s:o}", "headers", headers);
    } else if (length && bytes[0] != 'R') {
        c.body = json_loadb((const char *)bytes, length, 0, NULL);
    }
    pthread_mutex_lock(&p->lock);
    route_call(p, &c);
    char *body = NULL;
    if (!c.data && c.reply) body = json_dumps(c.reply, JSON_COMPACT | JSON_ENCODE_ANY);
    size_t out_length = body ? strlen(body) : c.data_length;
    if (c.faulty) fault_spoil(&c, &body, &out_length);
    log_exchange(p, &c);
    pthread_mutex_unlock(&p->lock);
    const char *out = body ? body : c.data ? (const char *)c.data : "";
    enum MHD_Result result = deliver(p, m, &c, out, out_length);
    json_decref(c.body);
    json_decref(c.reply);
    free(c.data);
    free(body);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *m, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    struct practice *p = context;
    struct exchange *x = *state;
    if (!x) {
        *state = x = alloc_zero(1, sizeof *x);
        buf_init(&x->body, BODY_MAX);
        return MHD_YES;
    }
    if (*upload_size) {
        x->too_large = x->too_large || buf_append(&x->body, upload, *upload_size, NULL) != 0;
        *upload_size = 0;
        return MHD_YES;
    }
    if (x->too_large) return MHD_NO;
    return serve(p, m, url, method, x->body.data, x->body.length);
}

static void on_end(void *context, struct MHD_Connection *m, void **state,
                   enum MHD_RequestTerminationCode why)
{
    struct exchange *x = *state;
    if (!x) return;
    buf_release(&x->body);
    free(x);
    *state = NULL;
}

static int read_file(const char *path, char **text, struct error *err)
{
    struct buf b;
    size_t length;
    buf_init(&b, 1 << 20);
    int rc = buf_read_file(&b, path, err);
    if (!rc) *text = (char *)buf_take(&b, &length);
    buf_release(&b);
    return rc;
}

int http_start(struct practice *p, struct error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)p->options.port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL;
    bool tls = p->options.tls_cert && p->options.tls_key;
    int rc = 0;
    if (tls && !tls_cert) rc = read_file(p->options.tls_cert, &tls_cert, err);
    if (tls && !tls_key && !rc) rc = read_file(p->options.tls_key, &tls_key, err);
    if (rc) return rc;
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem secure[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, tls_cert},
                                      {MHD_OPTION_HTTPS_MEM_KEY, 0, tls_key},
                                      {MHD_OPTION_END, 0, NULL}};
    server = MHD_start_daemon(flags | (tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, p,
                              MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
                              MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL,
                              MHD_OPTION_CONNECTION_LIMIT, 200u, MHD_OPTION_CONNECTION_TIMEOUT, 60u,
                              MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_ARRAY,
                              tls ? secure : none, MHD_OPTION_END);
    if (!server)
        return error_set(err, ERR_IO, "port %d on 127.0.0.1 cannot be opened", p->options.port);
    p->port = MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT)->port;
    p->options.port = p->port; /* the same again after a refuse fault */
    snprintf(p->base_url, sizeof p->base_url, "%s://127.0.0.1:%d", tls ? "https" : "http", p->port);
    return 0;
}

void http_stop(struct practice *p)
{
    if (server) MHD_stop_daemon(server);
    server = NULL;
}
