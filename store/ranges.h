/*
 * ranges.h - one file by several requests at once: who fetches which piece of it.
 *
 * Place    store/download starts it when a server shows that it can (Accept-Ranges or a 206, a strong
 *          ETag) and the file's SHA-256 is known: what such a server may get wrong must be found out.
 * Owner    ranges_start / ranges_end around the caller's struct. The caller's thread is the front: its
 *          own request runs from the first missing byte on and takes pieces as it comes to them; up to
 *          RANGES_MAX - 1 threads with clients of their own take pieces ahead of it. The file is
 *          written by pwrite; a piece is told as done only when all of it is in the file.
 * Failure  a piece that fails is free again for the next one; a thread ends after two failures in a
 *          row, or at once when the server says 429. ranges->off: the server does not keep to ranges
 *          (200 for a part, another part than asked); ->changed: it gives another file now.
 * Source   RFC 9110 14 (ranges), 13.1.5 (If-Range); a redirect is asked again for each piece.
 */
#ifndef STORE_RANGES_H
#define STORE_RANGES_H

#include <pthread.h>

#include "store/fetch.h"

#define RANGES_MAX 4                    /* requests at once, to one host */
#define RANGES_FILE_BYTES_MIN (4 << 20) /* smaller files come as a whole */
#define RANGES_PIECE_BYTES_MIN (1 << 20)
#define RANGES_PIECE_BYTES_MAX (16 << 20)
#define RANGES_SLOW_SECONDS 5 /* and four times what a piece usually takes: fetched once more */

struct ranges {
    struct fetch_client *client; /* of the front; its tokens and its stop are everybody's */
    const char *url, *etag;
    int fd;
    int64_t total, piece_bytes;
    int count;
    /* before a piece is begun: is there room for so many bytes? May be NULL. Any thread, locked. */
    int (*room)(void *context, int64_t bytes, struct error *err);
    /* a piece is in the file. May be NULL. Any thread, locked. */
    void (*landed)(void *context);
    void *context;

    /* its own */
    struct range_piece *pieces;
    pthread_t threads[RANGES_MAX - 1];
    int thread_count, working;
    pthread_mutex_t lock;
    pthread_cond_t changed_state;
    atomic_bool stop;
    bool off, changed, started;
    double done_seconds; /* of all pieces done */
    int done;
    struct error err; /* that no other try can mend: no room, refused */
};

/* `done`: ranges_text of an earlier run, or NULL. `at`: the first missing byte, where the front is. */
void ranges_start(struct ranges *r, int64_t at, const char *done, int helpers);
/* Ends the threads. */
void ranges_end(struct ranges *r);
void ranges_release(struct ranges *r);

/* The front has come to this byte: true, it goes on there; false, the piece is somebody else's. */
bool ranges_enter(struct ranges *r, int64_t at);
/* It leaves: the piece that it was in is free when it is not whole. */
void ranges_leave(struct ranges *r, int64_t at);

/* The front's thread as one of the others, until every piece is in the file. tick is called often. */
int ranges_work(struct ranges *r, int tries, void (*tick)(void *context), struct error *err);

int64_t ranges_prefix(struct ranges *r,
                      int64_t at);        /* bytes in the file without a gap; at least `at` */
int64_t ranges_present(struct ranges *r); /* bytes of whole pieces */
char *ranges_text(struct ranges *r);      /* "PIECE-BYTES TOTAL HEX"; free() */
/* Bytes without a gap that such a text tells; 0 when it is none. */
int64_t ranges_text_prefix(const char *text);

#endif
