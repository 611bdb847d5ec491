#include "store/ranges.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"

#define FAILURES_MAX 2
#define WAIT_MS_MAX 30000

enum piece_state { PIECE_FREE, PIECE_TAKEN, PIECE_FRONT, PIECE_DONE };

struct range_piece {
    enum piece_state state;
    double since; /* now_seconds, when it was taken */
    bool twice;   /* two fetch it: the first one was slow */
};

static int64_t start_of(const struct ranges *r, int piece)
{
    return piece * r->piece_bytes;
}

static int64_t end_of(const struct ranges *r, int piece)
{
    int64_t end = start_of(r, piece) + r->piece_bytes;
    return end < r->total ? end : r->total;
}

/* ---- what is there, as text ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_text(const char *text, int64_t *piece_bytes, int64_t *total, const char **digits)
{
    long long piece = 0, all = 0;
    int used = 0;
    if (!text || sscanf(text, "%lld %lld %n", &piece, &all, &used) < 2 || !used) return false;
    if (piece < RANGES_PIECE_BYTES_MIN || piece > RANGES_PIECE_BYTES_MAX || all < 1) return false;
    *piece_bytes = piece;
    *total = all;
    *digits = text + used;
    return (int64_t)strlen(*digits) == ((all + piece - 1) / piece + 3) / 4;
}

static bool is_set(const char *digits, int piece)
{
    return hex_digit(digits[piece / 4]) >> piece % 4 & 1;
}

char *ranges_text(struct ranges *r)
{
    size_t digits = (size_t)(r->count + 3) / 4;
    char *hex = alloc_zero(digits + 1, 1);
    for (size_t i = 0; i < digits; i++) {
        int value = 0;
        for (int k = 0; k < 4 && (int)i * 4 + k < r->count; k++)
            value |= (r->pieces[i * 4 + (size_t)k].state == PIECE_DONE) << k;
        hex[i] = "0123456789abcdef"[value];
    }
    char *text = alloc_printf("%lld %lld %s", (long long)r->piece_bytes, (long long)r->total, hex);
    free(hex);
    return text;
}

int64_t ranges_text_prefix(const char *text)
{
    int64_t piece, total, at = 0;
    const char *digits;
    if (!read_text(text, &piece, &total, &digits)) return 0;
    for (int i = 0; at < total && is_set(digits, i); i++) at += piece;
    return at < total ? at : total;
}

/* ---- the pieces ---- */

static int64_t prefix(const struct ranges *r, int64_t at)
{
    int i = (int)(at / r->piece_bytes);
    while (i < r->count && r->pieces[i].state == PIECE_DONE) at = end_of(r, i++);
    return at;
}

int64_t ranges_prefix(struct ranges *r, int64_t at)
{
    pthread_mutex_lock(&r->lock);
    at = prefix(r, at);
    pthread_mutex_unlock(&r->lock);
    return at;
}

int64_t ranges_present(struct ranges *r)
{
    int64_t sum = 0;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < r->count; i++)
        if (r->pieces[i].state == PIECE_DONE) sum += end_of(r, i) - start_of(r, i);
    pthread_mutex_unlock(&r->lock);
    return sum;
}

static void set_state(struct ranges *r, int piece, enum piece_state state)
{
    struct range_piece *p = &r->pieces[piece];
    if (p->state == PIECE_DONE) return; /* two fetched it */
    if (state == PIECE_DONE) {
        r->done_seconds += now_seconds() - p->since;
        r->done++;
    }
    p->state = state;
    p->since = now_seconds();
    if (state == PIECE_DONE && r->landed) r->landed(r->context);
    pthread_cond_broadcast(&r->changed_state);
}

bool ranges_enter(struct ranges *r, int64_t at)
{
    int piece = (int)(at / r->piece_bytes);
    pthread_mutex_lock(&r->lock);
    bool mine = piece < r->count &&
                (r->pieces[piece].state == PIECE_FREE || r->pieces[piece].state == PIECE_FRONT);
    if (piece > 0 && at == start_of(r, piece) && r->pieces[piece - 1].state == PIECE_FRONT)
        set_state(r, piece - 1, PIECE_DONE);
    if (mine && r->pieces[piece].state == PIECE_FREE) set_state(r, piece, PIECE_FRONT);
    pthread_mutex_unlock(&r->lock);
    return mine;
}

void ranges_leave(struct ranges *r, int64_t at)
{
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < r->count; i++)
        if (r->pieces[i].state == PIECE_FRONT)
            set_state(r, i, at >= end_of(r, i) ? PIECE_DONE : PIECE_FREE);
    pthread_mutex_unlock(&r->lock);
}

/* The next free one; with `slow` also one that another has had for long. -1: none. Locked. */
static int take(struct ranges *r, bool slow)
{
    for (int i = 0; i < r->count; i++) {
        /* the front comes to the next one by itself */
        bool next_to_front = i > 0 && r->pieces[i - 1].state == PIECE_FRONT;
        if (r->pieces[i].state == PIECE_FREE && !(next_to_front && i + 1 < r->count)) {
            set_state(r, i, PIECE_TAKEN);
            return i;
        }
    }
    double usual = r->done ? r->done_seconds / r->done : 0;
    for (int i = 0; slow && i < r->count; i++) {
        struct range_piece *p = &r->pieces[i];
        double out = now_seconds() - p->since;
        if (p->state != PIECE_TAKEN || p->twice || out < RANGES_SLOW_SECONDS || out < 4 * usual)
            continue;
        p->twice = true;
        return i;
    }
    return -1;
}

/* ---- fetching one ---- */

struct piece_fetch {
    struct ranges *r;
    int piece;
    int64_t at;
    void (*tick)(void *context);
};

static int on_start(void *context, const struct fetch_reply *reply, struct error *err)
{
    struct piece_fetch *f = context;
    struct ranges *r = f->r;
    bool other_file = !str_equal(reply->etag, r->etag) ||
                      (reply->total_bytes >= 0 && reply->total_bytes != r->total);
    bool other_part = reply->status != 206 || reply->from_byte != start_of(r, f->piece) ||
                      reply->to_byte != end_of(r, f->piece) - 1;
    if (!other_file && !other_part) return 0;
    pthread_mutex_lock(&r->lock);
    r->changed = r->changed || other_file;
    r->off = r->off || !other_file;
    pthread_cond_broadcast(&r->changed_state);
    pthread_mutex_unlock(&r->lock);
    return error_set(err, ERR_NETWORK,
                     other_file ? "the file changed while it was fetched"
                                : "the server does not keep to ranges");
}

static int on_bytes(void *context, const void *bytes, size_t length, struct error *err)
{
    struct piece_fetch *f = context;
    const char *from = bytes;
    if (f->at + (int64_t)length > end_of(f->r, f->piece)) {
        pthread_mutex_lock(&f->r->lock);
        f->r->off = true;
        pthread_mutex_unlock(&f->r->lock);
        return error_set(err, ERR_NETWORK, "more bytes came than were asked for");
    }
    while (length) {
        ssize_t done = pwrite(f->r->fd, from, length, f->at);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0)
            return error_set_errno(err, errno == ENOSPC || errno == EDQUOT ? ERR_NO_MEMORY : ERR_IO,
                                   errno, "writing");
        f->at += done;
        from += done;
        length -= (size_t)done;
    }
    if (f->tick) f->tick(f->r->context);
    return 0;
}

/* A taken piece; afterwards it is done or free. */
static int fetch_piece(struct ranges *r, struct fetch_client *client, int piece,
                       void (*tick)(void *context), struct fetch_reply *reply, struct error *err)
{
    struct piece_fetch own = {.r = r, .piece = piece, .at = start_of(r, piece), .tick = tick};
    struct fetch f = {.url = r->url,
                      .from_byte = own.at,
                      .to_byte = end_of(r, piece) - 1,
                      .if_range = r->etag,
                      .on_start = on_start,
                      .on_bytes = on_bytes,
                      .context = &own};
    int rc = fetch_run(client, &f, reply, err);
    if (!rc && own.at != end_of(r, piece))
        rc = error_set(err, ERR_NETWORK, "a part ended after %lld of %lld bytes",
                       (long long)(own.at - start_of(r, piece)),
                       (long long)(end_of(r, piece) - start_of(r, piece)));
    pthread_mutex_lock(&r->lock);
    r->pieces[piece].twice = false;
    set_state(r, piece, rc ? PIECE_FREE : PIECE_DONE);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static bool is_over(const struct ranges *r)
{
    return r->stop || r->off || r->changed || r->err.code;
}

/* A piece to fetch, with room for it; -1: none. */
static int begin(struct ranges *r, bool slow)
{
    pthread_mutex_lock(&r->lock);
    int piece = is_over(r) ? -1 : take(r, slow);
    if (piece >= 0 && r->room &&
        r->room(r->context, end_of(r, piece) - start_of(r, piece), &r->err)) {
        set_state(r, piece, PIECE_FREE);
        piece = -1;
    }
    pthread_mutex_unlock(&r->lock);
    return piece;
}

static void *help(void *context)
{
    struct ranges *r = context;
    struct fetch_client client;
    struct fetch_reply reply;
    struct error err;
    int piece, failures = 0;
    if (!fetch_open(&client, r->client->civitai_token, r->client->hub_token, &err)) {
        client.stop = &r->stop;
        while (failures < FAILURES_MAX && (piece = begin(r, false)) >= 0) {
            if (!fetch_piece(r, &client, piece, NULL, &reply, &err)) {
                failures = 0;
            } else {
                failures += reply.status == 429 ? FAILURES_MAX : 1;
            }
        }
        fetch_close(&client);
    }
    pthread_mutex_lock(&r->lock);
    r->working--;
    pthread_cond_broadcast(&r->changed_state);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- the whole ---- */

void ranges_start(struct ranges *r, int64_t at, const char *done, int helpers)
{
    int64_t piece = 0, total = 0;
    const char *digits;
    bool known = read_text(done, &piece, &total, &digits) && total == r->total;
    r->piece_bytes =
        known ? piece : r->total / 64 / RANGES_PIECE_BYTES_MIN * RANGES_PIECE_BYTES_MIN;
    if (r->piece_bytes < RANGES_PIECE_BYTES_MIN) r->piece_bytes = RANGES_PIECE_BYTES_MIN;
    if (r->piece_bytes > RANGES_PIECE_BYTES_MAX) r->piece_bytes = RANGES_PIECE_BYTES_MAX;
    r->count = (int)((r->total + r->piece_bytes - 1) / r->piece_bytes);
    r->pieces = alloc_zero((size_t)r->count, sizeof *r->pieces);
    for (int i = 0; i < r->count; i++)
        if (end_of(r, i) <= at || (known && is_set(digits, i))) r->pieces[i].state = PIECE_DONE;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed_state, NULL);
    r->started = true;
    ranges_enter(r, at);
    r->working = helpers < RANGES_MAX ? helpers : RANGES_MAX - 1;
    for (int i = 0, wanted = r->working; i < wanted; i++) {
        if (pthread_create(&r->threads[r->thread_count], NULL, help, r) == 0) {
            r->thread_count++;
        } else {
            pthread_mutex_lock(&r->lock);
            r->working--;
            pthread_mutex_unlock(&r->lock);
        }
    }
}

void ranges_end(struct ranges *r)
{
    if (!r->started) return;
    r->stop = true;
    for (int i = 0; i < r->thread_count; i++) pthread_join(r->threads[i], NULL);
    r->thread_count = 0;
}

void ranges_release(struct ranges *r)
{
    if (!r->started) return;
    ranges_end(r);
    pthread_cond_destroy(&r->changed_state);
    pthread_mutex_destroy(&r->lock);
    free(r->pieces);
    r->pieces = NULL;
    r->started = false;
}

static bool wait_a_little(struct ranges *r)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&r->lock);
    bool whole = prefix(r, 0) == r->total;
    if (!whole && !is_over(r)) pthread_cond_timedwait(&r->changed_state, &r->lock, &until);
    whole = prefix(r, 0) == r->total;
    pthread_mutex_unlock(&r->lock);
    return whole;
}

int ranges_work(struct ranges *r, int tries, void (*tick)(void *context), struct error *err)
{
    struct fetch_reply reply;
    int rc = 0, failures = 0, wait_ms = 1000;
    while (ranges_prefix(r, 0) < r->total) {
        tick(r->context);
        if (r->client->stop && *r->client->stop) return error_set(err, ERR_CANCELED, "given up");
        if (r->err.code) return error_set(err, r->err.code, "%s", r->err.text);
        if (is_over(r)) return error_set(err, ERR_NETWORK, "not by ranges any more");
        int piece = begin(r, true);
        if (piece < 0) {
            wait_a_little(r);
            continue;
        }
        rc = fetch_piece(r, r->client, piece, tick, &reply, err);
        if (!rc) {
            failures = 0;
            wait_ms = 1000;
        } else if (rc == ERR_NOT_FOUND || rc == ERR_REFUSED) { /* the whole was not refused */
            pthread_mutex_lock(&r->lock);
            r->off = true;
            pthread_mutex_unlock(&r->lock);
        } else if (rc != ERR_NETWORK && rc != ERR_BUSY) {
            return rc;
        } else if (!is_over(r)) {
            if (++failures >= tries) return rc;
            usleep((unsigned)wait_ms * 1000);
            wait_ms = wait_ms * 2 > WAIT_MS_MAX ? WAIT_MS_MAX : wait_ms * 2;
        }
    }
    tick(r->context);
    return 0;
}
