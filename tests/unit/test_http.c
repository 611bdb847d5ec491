/* daemon/http: completions come once and later, sizes are counted, inside addresses are never connected
 * to whatever name leads there. A listener on loopback plays the server. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "daemon/http.h"

/* ---- a server that says one thing to everybody and remembers what it was told ---- */

struct server {
    int fd, port, accepted;
    const char *answer;
    size_t answer_length;
    char heard[8192];
    pthread_t thread;
    volatile bool stop;
};

/* The whole request: a body may come in a piece of its own, and closing before it was read resets. */
static void hear(struct server *s, int c)
{
    size_t got = 0, want = sizeof s->heard - 1;
    while (got < want) {
        ssize_t n = read(c, s->heard + got, sizeof s->heard - 1 - got);
        if (n <= 0) break;
        got += (size_t)n;
        s->heard[got] = 0;
        const char *end = strstr(s->heard, "\r\n\r\n");
        const char *length = strstr(s->heard, "Content-Length: ");
        if (end)
            want = (size_t)(end + 4 - s->heard) + (length ? strtoul(length + 16, NULL, 10) : 0);
    }
    s->heard[got] = 0;
}

static void *serve(void *arg)
{
    struct server *s = arg;
    while (!s->stop) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int c = accept(s->fd, NULL, NULL);
        if (c < 0) continue;
        s->accepted++;
        hear(s, c);
        for (size_t at = 0; at < s->answer_length;) {
            ssize_t wrote = send(c, s->answer + at, s->answer_length - at, MSG_NOSIGNAL);
            if (wrote <= 0) break;
            at += (size_t)wrote;
        }
        close(c);
    }
    return NULL;
}

static void server_start(struct server *s, const char *answer, size_t length)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    memset(s, 0, sizeof *s);
    s->answer = answer;
    s->answer_length = length;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, size), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    getsockname(s->fd, (struct sockaddr *)&a, &size);
    s->port = ntohs(a.sin_port);
    pthread_create(&s->thread, NULL, serve, s);
}

static void server_stop(struct server *s)
{
    s->stop = true;
    pthread_join(s->thread, NULL);
    close(s->fd);
}

/* ---- one request ---- */

struct outcome {
    int times, status, code;
    size_t length;
    int64_t retry_after_ms;
    char text[512], body[64];
};

static void on_done(void *data, const struct http_reply *reply)
{
    struct outcome *o = data;
    o->times++;
    o->status = reply->status;
    o->code = reply->err.code;
    o->length = reply->length;
    o->retry_after_ms = reply->retry_after_ms;
    snprintf(o->text, sizeof o->text, "%s", reply->err.text);
    snprintf(o->body, sizeof o->body, "%s", (const char *)reply->body);
}

static struct outcome ask(const char *horde_url, const struct address_rule *rule,
                          struct http_request r)
{
    uv_loop_t loop;
    struct http *h = NULL;
    struct outcome o = {0};
    struct http_options options = {
        .horde_url = horde_url, .api_key = "the-key", .client_agent = "kiln:0:test", .rule = *rule};
    uv_loop_init(&loop);
    assert_int_equal(http_start(&h, &loop, &options, NULL), 0);
    r.done = on_done;
    r.data = &o;
    http_send(h, &r);
    assert_int_equal(o.times, 0); /* never from inside the call */
    for (int i = 0; i < 500 && !o.times; i++) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(o.times, 1);
    http_stop(h);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(o.times, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
    return o;
}

static const struct address_rule here = {.loopback = true};
static const struct address_rule away = {.loopback = false};

static const char good[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nok";

static void an_answer_arrives_with_its_headers(void **state)
{
    struct server s;
    char url[64];
    server_start(&s, good, sizeof good - 1);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", s.port);
    struct outcome o = ask(url, &here,
                           (struct http_request){.use = HTTP_API,
                                                 .method = "POST",
                                                 .path = "generate/pop",
                                                 .body = "{}",
                                                 .body_length = 2});
    assert_int_equal(o.status, 200);
    assert_string_equal(o.body, "ok");
    assert_int_equal(o.retry_after_ms, 7000);
    assert_non_null(strstr(s.heard, "POST /api/v2/generate/pop HTTP/1.1\r\n"));
    assert_non_null(strstr(s.heard, "apikey: the-key\r\n"));
    assert_non_null(strstr(s.heard, "Client-Agent: kiln:0:test\r\n"));
    assert_null(strstr(s.heard, "Accept-Encoding"));
    server_stop(&s);
}

static void an_upload_carries_its_length_and_no_key(void **state)
{
    struct server s;
    char url[96], base[64];
    server_start(&s, good, sizeof good - 1);
    snprintf(base, sizeof base, "http://127.0.0.1:%d", s.port);
    snprintf(url, sizeof url, "%s/store/a.webp?sig=1", base);
    struct outcome o =
        ask(base, &here,
            (struct http_request){
                .use = HTTP_PUT, .method = "PUT", .url = url, .body = "bytes", .body_length = 5});
    assert_int_equal(o.status, 200);
    assert_non_null(strstr(s.heard, "PUT /store/a.webp?sig=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(s.heard, "Content-Length: 5\r\n"));
    assert_null(strstr(s.heard, "apikey"));
    assert_null(strstr(s.heard, "Expect"));
    assert_null(strstr(s.heard, "Content-Type"));
    assert_null(strstr(s.heard, "chunked"));
    server_stop(&s);
}

static void too_many_bytes_end_the_transfer(void **state)
{
    struct server s;
    size_t length = 3 << 20;
    char *answer = alloc_zero(length, 1), url[64];
    /* no Content-Length: only counting helps */
    memset(answer, 'x', length);
    memcpy(answer, "HTTP/1.1 200 OK\r\n\r\n", 19);
    server_start(&s, answer, length);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", s.port);
    struct outcome o = ask(
        url, &here, (struct http_request){.use = HTTP_API, .method = "GET", .path = "find_user"});
    assert_int_equal(o.status, 0);
    assert_string_equal(o.text, "the answer is longer than the limit of 1048576 bytes");
    assert_true(o.length <= 1 << 20);
    server_stop(&s);
    free(answer);
}

static void redirects_are_not_followed_by_the_key(void **state)
{
    struct server s;
    char url[64], answer[128] = "";
    server_start(&s, answer, 0);
    s.answer_length = (size_t)snprintf(
        answer, sizeof answer,
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/x\r\nContent-Length: 0\r\n\r\n",
        s.port);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", s.port);
    struct outcome o = ask(
        url, &here, (struct http_request){.use = HTTP_API, .method = "GET", .path = "find_user"});
    assert_int_equal(o.status, 0);
    assert_int_equal(o.code, ERR_REFUSED);
    assert_int_equal(s.accepted, 1);
    /* a fetch follows, three times */
    char from[96];
    snprintf(from, sizeof from, "%s/source", url);
    o = ask(url, &here, (struct http_request){.use = HTTP_FETCH, .method = "GET", .url = from});
    assert_string_equal(o.text, "more than 3 redirects");
    assert_int_equal(s.accepted, 5);
    server_stop(&s);
}

/* A name that leads inside: localhost stands for a rebound one. Nothing may be connected to. */
static void names_that_lead_inside_are_not_connected(void **state)
{
    struct server s;
    char url[64], base[64];
    static const char *const hosts[] = {"localhost", NULL};
    const struct address_rule listed = {.hosts = hosts};
    server_start(&s, good, sizeof good - 1);
    snprintf(base, sizeof base, "https://localhost:%d", s.port);
    snprintf(url, sizeof url, "%s/x", base);
    struct outcome o = ask(
        base, &away, (struct http_request){.use = HTTP_API, .method = "GET", .path = "find_user"});
    assert_int_equal(o.code, ERR_REFUSED);
    assert_non_null(strstr(o.text, "inside this machine or network"));
    for (int use = HTTP_PUT; use <= HTTP_FETCH; use++) {
        o = ask("https://aihorde.net", &listed,
                (struct http_request){.use = (enum http_use)use,
                                      .method = use == HTTP_PUT ? "PUT" : "GET",
                                      .url = url});
        assert_int_equal(o.status, 0);
        assert_int_equal(o.code, ERR_REFUSED);
        assert_non_null(strstr(o.text, "inside this machine or network"));
    }
    assert_int_equal(s.accepted, 0);
    server_stop(&s);
}

static void unlisted_urls_fail_without_a_request(void **state)
{
    static const char *const urls[] = {"https://evil.example/x", "http://127.0.0.1:1/x",
                                       "file:///etc/passwd", "nonsense"};
    for (unsigned i = 0; i < COUNT_OF(urls); i++) {
        struct outcome o =
            ask("https://aihorde.net", &away,
                (struct http_request){.use = HTTP_PUT, .method = "PUT", .url = urls[i]});
        assert_int_equal(o.status, 0);
        assert_int_equal(o.code, ERR_REFUSED);
    }
}

static void a_cancelled_call_is_silent(void **state)
{
    uv_loop_t loop;
    struct http *h = NULL;
    struct outcome o = {0};
    struct http_options options = {
        .horde_url = "https://aihorde.net", .api_key = "k", .client_agent = "a"};
    struct http_request r = {.use = HTTP_PUT,
                             .method = "PUT",
                             .url = "https://evil.example/",
                             .done = on_done,
                             .data = &o};
    uv_loop_init(&loop);
    assert_int_equal(http_start(&h, &loop, &options, NULL), 0);
    http_cancel(http_send(h, &r));
    http_send(h, &r); /* stopped with one out */
    http_stop(h);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(o.times, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_arrives_with_its_headers),
        cmocka_unit_test(an_upload_carries_its_length_and_no_key),
        cmocka_unit_test(too_many_bytes_end_the_transfer),
        cmocka_unit_test(redirects_are_not_followed_by_the_key),
        cmocka_unit_test(names_that_lead_inside_are_not_connected),
        cmocka_unit_test(unlisted_urls_fail_without_a_request),
        cmocka_unit_test(a_cancelled_call_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
