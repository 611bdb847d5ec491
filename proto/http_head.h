/*
 * http_head.h - the head of an HTTP request to this machine, and whether it may be answered.
 *
 * Place    daemon/metrics, the one thing here that speaks HTTP as a server.
 * Owner    const text in, a struct of fixed arrays out. Any thread.
 * Failure  ERR_FORMAT for what is no request or is larger than HTTP_HEAD_BYTES_MAX. A well-formed one that
 *          must not be answered has its status: 403, 405, 413.
 * Source   reliability V7: Host is this machine by name or number, with the port listened on (a name that was
 *          rebound to 127.0.0.1 is another); GET and HEAD only; nothing that a web page of another origin sent.
 *          RFC 9112.
 */
#ifndef PROTO_HTTP_HEAD_H
#define PROTO_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define HTTP_HEAD_BYTES_MAX 8192

struct http_head {
    char target[256]; /* "/metrics", without query */
    bool head;        /* HEAD: no body is sent */
    bool keep;        /* the connection stays */
    int refusal;      /* 0, or the status of the answer */
    size_t length;    /* bytes of the head, with its empty line */
};

/* 1: whole; 0: more bytes are needed; ERR_FORMAT: close the connection. */
int http_head_parse(struct http_head *h, const char *bytes, size_t length, int port,
                    struct error *err);

#endif
