/*
 * fetch.h - one GET from the places where models are, with the rules for going there.
 *
 * Place    store/download (files) and store/reference, store/source (documents).
 * Owner    fetch_open / fetch_close; one thread; waits for the answer.
 * Failure  ERR_REFUSED (a URL or address that is not allowed, 401, 403, 451, more than 3
 *          redirects), ERR_NOT_FOUND (404, 410), ERR_BUSY (429, 5xx), ERR_NETWORK, or what a
 *          callback returned. Sentences name the host and path; never a query, never a token.
 * Source   reliability N1 (TLS verified), N2, N3 (sizes counted while receiving, low-speed abort,
 *          no decompression), N4 (https, host list, connected address judged, no proxies, at most 3
 *          redirects, ours), F6 (tokens in `Authorization: Bearer`, dropped on another host).
 *
 * Tests: KILN_STORE_TEST_ORIGIN=http://127.0.0.1:PORT sends https://HOST/PATH to ORIGIN/HOST/PATH. It must
 * be a loopback address, and with it no other address is reached at all.
 */
#ifndef STORE_FETCH_H
#define STORE_FETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define FETCH_REDIRECTS_MAX 3
#define FETCH_DOCUMENT_BYTES_MAX (8u << 20)

struct fetch_client {
    void *curl;
    char *origin;            /* of tests, or NULL */
    char *civitai_token;     /* "" without; wiped on close */
    char *hub_token;         /* Hugging Face's */
    const atomic_bool *stop; /* NULL, or true: give up within a second, ERR_CANCELED */
};

/* tokens may be NULL; the environment's CIVITAI_API_TOKEN and HF_TOKEN come first */
int fetch_open(struct fetch_client *c, const char *civitai_token, const char *hub_token,
               struct error *err);
void fetch_close(struct fetch_client *c);

struct fetch_reply {
    int status;
    int64_t from_byte;      /* of a 206 */
    int64_t to_byte;        /* its last one */
    bool accepts_ranges;    /* says that it does */
    int64_t total_bytes;    /* of the whole thing; -1: not said */
    char etag[200];         /* as sent; "" without */
    char linked_sha256[65]; /* what Hugging Face says of a file that lies elsewhere, or "" */
    char content_type[64];
    char host[128]; /* that gave it */
    int redirects;
};

struct fetch {
    const char *url;
    int64_t from_byte;         /* asks for the rest only */
    int64_t to_byte;           /* or for a part: up to this one, included; 0: to the end */
    const char *if_range;      /* its ETag then */
    const char *if_none_match; /* 304 is no error */
    int seconds_max;           /* of the whole transfer; 0: a day */
    /* once, before the first byte of a 200 or 206 */
    int (*on_start)(void *context, const struct fetch_reply *reply, struct error *err);
    int (*on_bytes)(void *context, const void *bytes, size_t length, struct error *err);
    void *context;
};

int fetch_run(struct fetch_client *c, const struct fetch *f, struct fetch_reply *reply,
              struct error *err);
/* A document of at most FETCH_DOCUMENT_BYTES_MAX into `to`, cleared first. etag "" or the one at hand. */
int fetch_document(struct fetch_client *c, const char *url, const char *etag, struct buf *to,
                   struct fetch_reply *reply, struct error *err);

/* Would that URL be asked at all? Also refuses a token in its query. */
int fetch_check_url(const struct fetch_client *c, const char *url, struct error *err);
/* "https://host/path" without query, for people and notes; free(). */
char *fetch_show(const char *url);

#endif
