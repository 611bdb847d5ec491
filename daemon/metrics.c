#include "daemon/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/str.h"
#include "proto/http_head.h"

#define PAGE_BYTES_MAX (256u << 10)

struct visitor {
    struct metrics *m;
    uv_tcp_t tcp;
    uv_write_t write;
    struct buf in, out;
    struct alarm alarm;
    bool writing, keep, closing;
    struct visitor *next, **back;
};

struct metrics {
    struct worker *w;
    uv_tcp_t listener;
    int port, count;
    struct visitor *visitors;
};

static void take(struct visitor *v);

static void on_gone(uv_handle_t *handle)
{
    struct visitor *v = handle->data;
    buf_release(&v->in);
    buf_release(&v->out);
    free(v);
}

static void leave(struct visitor *v)
{
    if (v->closing) return;
    v->closing = true;
    alarm_drop(&v->alarm);
    *v->back = v->next;
    if (v->next) v->next->back = v->back;
    v->m->count--;
    uv_close((uv_handle_t *)&v->tcp, on_gone);
}

static void on_time_over(void *data)
{
    leave(data);
}

static void on_written(uv_write_t *write, int status)
{
    struct visitor *v = write->data;
    v->writing = false;
    if (v->closing) return;
    if (status || !v->keep)
        leave(v);
    else
        take(v);
}

static const char *words_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    default: return "Internal Server Error";
    }
}

/* also when nothing is to be seen: nobody may frame, sniff or keep it */
static int write_answer(struct visitor *v, const struct http_head *h, struct error *err)
{
    struct buf page;
    int status = h->refusal ? h->refusal : str_equal(h->target, "/metrics") ? 200 : 404;
    buf_init(&page, PAGE_BYTES_MAX);
    int rc = status == 200 ? metrics_write(v->m->w, &page, err)
                           : buf_printf(&page, err, "%s\n", words_of(status));
    if (!rc)
        rc = buf_printf(
            &v->out, err,
            "HTTP/1.1 %d %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            "Content-Length: %zu\r\nContent-Security-Policy: default-src 'none'; "
            "frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n"
            "Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n"
            "%sConnection: %s\r\n\r\n",
            status, words_of(status), page.length, status == 405 ? "Allow: GET, HEAD\r\n" : "",
            h->keep ? "keep-alive" : "close");
    if (!rc && !h->head) rc = buf_append(&v->out, page.data, page.length, err);
    buf_release(&page);
    return rc;
}

static void take(struct visitor *v)
{
    struct http_head h;
    struct error err = {0};
    if (v->writing || v->closing) return;
    int rc = http_head_parse(&h, v->in.length ? (const char *)v->in.data : "", v->in.length,
                             v->m->port, &err);
    if (!rc) return; /* the rest is on its way */
    if (rc == 1) {
        buf_consume(&v->in, h.length);
        buf_clear(&v->out);
        v->keep = h.keep;
        rc = write_answer(v, &h, &err);
    }
    if (rc) {
        leave(v);
        return;
    }
    uv_buf_t b = uv_buf_init((char *)v->out.data, (unsigned)v->out.length);
    v->write.data = v;
    v->writing = true;
    if (uv_write(&v->write, (uv_stream_t *)&v->tcp, &b, 1, on_written)) {
        v->writing = false;
        leave(v);
    }
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *room)
{
    struct visitor *v = handle->data;
    size_t left = v->in.limit - v->in.length;
    uint8_t *at = left ? buf_reserve(&v->in, left, NULL) : NULL;
    *room = uv_buf_init((char *)at, at ? (unsigned)left : 0);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room)
{
    struct visitor *v = stream->data;
    if (v->closing) return;
    if (got < 0) { /* also when it sent more than one head could have */
        leave(v);
        return;
    }
    buf_commit(&v->in, (size_t)got);
    take(v);
}

static void on_visitor(uv_stream_t *listener, int status)
{
    struct metrics *m = listener->data;
    if (status) return;
    struct visitor *v = alloc_zero(1, sizeof *v);
    v->m = m;
    buf_init(&v->in, HTTP_HEAD_BYTES_MAX);
    buf_init(&v->out, PAGE_BYTES_MAX + 2048);
    uv_tcp_init(m->w->loop, &v->tcp);
    v->tcp.data = v;
    v->next = m->visitors;
    v->back = &m->visitors;
    if (v->next) v->next->back = &v->next;
    m->visitors = v;
    m->count++;
    if (uv_accept(listener, (uv_stream_t *)&v->tcp) || m->count > METRICS_CONNECTIONS_MAX) {
        leave(v);
        return;
    }
    uv_read_start((uv_stream_t *)&v->tcp, on_room, on_read);
    alarm_set(m->w->alarms, &v->alarm, METRICS_SECONDS_MAX * 1000, on_time_over, v);
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void metrics_start(struct metrics **metrics, struct worker *w, int port)
{
    if (!port) return;
    struct metrics *m = alloc_zero(1, sizeof *m);
    struct sockaddr_in here;
    m->w = w;
    m->port = port;
    uv_ip4_addr("127.0.0.1", port, &here);
    uv_tcp_init(w->loop, &m->listener);
    m->listener.data = m;
    int bad = uv_tcp_bind(&m->listener, (struct sockaddr *)&here, 0);
    if (!bad) bad = uv_listen((uv_stream_t *)&m->listener, 16, on_visitor);
    if (bad) {
        log_error("metrics.off", "port=%d text=\"%s\"", port, uv_strerror(bad));
        uv_close((uv_handle_t *)&m->listener, on_listener_closed);
        return;
    }
    log_info("metrics.on", "url=http://127.0.0.1:%d/metrics", port);
    *metrics = m;
}

void metrics_stop(struct metrics *m)
{
    if (!m) return;
    while (m->visitors) leave(m->visitors);
    uv_close((uv_handle_t *)&m->listener, on_listener_closed);
}
