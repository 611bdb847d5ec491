/*
 * http.h - libcurl on the loop, with what a stranger's URL may do bounded.
 *
 * Place    below pop, upload, submit, and the fetches of source images.
 * Owner    http_start / http_stop. A call owns itself from http_send to its `done`; http_cancel
 *          ends it without `done`. Loop thread.
 * Failure  no answer, a redirect where none is allowed, too many bytes, a forbidden address: reply
 *          with status 0 and a sentence. `done` runs exactly once, never from inside http_send.
 * Source   reliability N1-N4, N7.
 *
 * TLS 1.2+, verified always. No redirects but for fetches (at most 3, each judged again). No
 * decompression, no proxies of the environment. The key goes to the Horde alone.
 */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "net/address.h"

#define HTTP_POP_BYTES_MAX (16u << 20)
#define HTTP_SOURCE_BYTES_MAX (16u << 20)
#define HTTP_REPLY_BYTES_MAX (1u << 20)

enum http_use {
    HTTP_API,   /* below the Horde's address, with the key; `path` */
    HTTP_PLAIN, /* below the Horde's address, without the key; `path` */
    HTTP_PUT,   /* a job's upload URL: no key, no redirect; `url` */
    HTTP_FETCH, /* a job's source URL: no key, up to 3 redirects; `url` */
};

struct http_reply {
    int status;          /* 0: none */
    const uint8_t *body; /* borrowed, NUL-terminated */
    size_t length;
    int64_t retry_after_ms; /* 0: not sent */
    struct error err;       /* why status is 0 */
};

struct http_request {
    enum http_use use;
    const char *method; /* GET POST PUT */
    const char *path;   /* "generate/pop", below /api/v2/ */
    const char *url;
    const void *body; /* copied */
    size_t body_length;
    size_t limit_bytes; /* of the reply; 0: HTTP_REPLY_BYTES_MAX */
    int total_ms;       /* 0: 30 s */
    void (*done)(void *data, const struct http_reply *reply);
    void *data;
};

struct http_options {
    const char *horde_url; /* scheme://host[:port] */
    const char *api_key;
    const char *client_agent;
    struct address_rule rule; /* hosts borrowed for the life of http */
};

struct http;
struct http_call;

int http_start(struct http **h, uv_loop_t *loop, const struct http_options *options,
               struct error *err);
void http_stop(struct http *h); /* cancels everything */
int http_change(struct http *h, const struct http_options *options, struct error *err); /* SIGHUP */

struct http_call *http_send(struct http *h, const struct http_request *request);
void http_cancel(struct http_call *call);

#endif
