#include "store/download.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "proto/model_reference.h"
#include "store/digest.h"
#include "store/note.h"
#include "store/ranges.h"
#include "store/refusals.h"

#define CHUNK_BYTES (1u << 20)
#define FLOOR_EVERY_BYTES (64 << 20) /* how often the disk is looked at */
#define WAIT_MS_MAX 30000
#define CATCH_UP_BYTES (8 << 20) /* read again for the digest between two looks at the network */

void wanted_release(struct wanted *w)
{
    free(w->name);
    free(w->extension);
    free(w->url);
    free(w->source);
    *w = (struct wanted){0};
}

struct download {
    const struct store *s;
    struct fetch_client *client;
    const struct wanted *w;
    const struct download_rule *rule;
    int folder, fd;
    char *file, *note, *part, *part_note; /* names in the folder */
    struct digest digest;
    bool digesting, locked;
    int64_t have, total, checked_at;
    int64_t used_before; /* of the folder, without this file */
    char etag[200];
    char linked_sha256[65];
    int status;
    struct ranges ranges; /* while several requests run */
    char *pieces;         /* ranges_text of what came so before; NULL: no gaps */
    bool by_ranges;       /* some of it came so */
    bool single;          /* and is not to again */
    bool met;             /* the front came to what another request fetches */
    bool exhausted;       /* all tries are made */
};

/* ---- room ---- */

static int check_room(struct download *d, int64_t more, struct error *err)
{
    struct statvfs v;
    const struct download_rule *r = d->rule;
    if (fstatvfs(d->fd, &v))
        return error_set_errno(err, ERR_IO, errno, "asking for the free space of %s", d->s->folder);
    int64_t left = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    if (left - more < r->floor_bytes)
        return error_set(err, ERR_NO_MEMORY,
                         "%lld MB are free on the disk; with %lld MB more, less than the floor of "
                         "%lld MB would be left",
                         (long long)(left >> 20), (long long)(more >> 20),
                         (long long)(r->floor_bytes >> 20));
    /* between the pieces are holes, which the quota counts as if they were full */
    int64_t here = d->ranges.started ? 0 : d->have; /* with ranges, another thread may ask */
    int64_t whole = here + more > d->total ? here + more : d->total;
    if (r->quota_bytes && d->used_before + whole > r->quota_bytes)
        return error_set(
            err, ERR_NO_MEMORY,
            "%s/%s would hold %lld MB; its quota is %lld MB (kiln models rm makes room)",
            d->s->folder, store_kind_name(d->w->kind), (long long)((d->used_before + whole) >> 20),
            (long long)(r->quota_bytes >> 20));
    return 0;
}

static int check_size(const struct download *d, int64_t bytes, struct error *err)
{
    if (bytes <= d->rule->max_bytes) return 0;
    return error_set(err, ERR_REFUSED, "more than %lld bytes, the limit for one file",
                     (long long)d->rule->max_bytes);
}

/* ---- the unfinished file ---- */

static void start_over(struct download *d)
{
    char unused[65];
    if (d->digesting) digest_finish(&d->digest, unused);
    digest_start(&d->digest);
    d->digesting = true;
    d->have = d->checked_at = 0;
}

static void forget_pieces(struct download *d)
{
    free(d->pieces);
    d->pieces = NULL;
}

static int empty_part(struct download *d, struct error *err)
{
    start_over(d);
    forget_pieces(d);
    if (ftruncate(d->fd, 0) || lseek(d->fd, 0, SEEK_SET))
        return error_set_errno(err, ERR_IO, errno, "emptying %s", d->part);
    return 0;
}

/* Adds what is in the file behind d->have to the digest, up to `to` or the file's end. */
static int digest_file(struct download *d, int64_t to, struct error *err)
{
    uint8_t *chunk = alloc_zero(CHUNK_BYTES, 1);
    ssize_t got = 1;
    while (d->have < to && got > 0) {
        size_t wanted = to - d->have < CHUNK_BYTES ? (size_t)(to - d->have) : CHUNK_BYTES;
        got = pread(d->fd, chunk, wanted, d->have);
        if (got > 0) digest_add(&d->digest, chunk, (size_t)got);
        if (got > 0) d->have += got;
    }
    free(chunk);
    return got < 0 ? error_set_errno(err, ERR_IO, errno, "reading %s", d->part) : 0;
}

static int read_part(struct download *d, struct error *err)
{
    start_over(d);
    int64_t to = d->pieces ? ranges_text_prefix(d->pieces) : INT64_MAX;
    int rc = digest_file(d, to, err);
    if (!rc && lseek(d->fd, d->have, SEEK_SET) < 0)
        rc = error_set_errno(err, ERR_IO, errno, "reading %s", d->part);
    return rc;
}

/* Only what is there without a gap counts from now on. */
static int close_gaps(struct download *d, struct error *err)
{
    forget_pieces(d);
    if (ftruncate(d->fd, d->have) || lseek(d->fd, d->have, SEEK_SET) < 0)
        return error_set_errno(err, ERR_IO, errno, "cutting %s", d->part);
    return 0;
}

/* What is there counts only when it is of the same thing: the same hash, or the same address and ETag. */
static bool part_is_of_this(struct download *d)
{
    struct note n;
    note_read(&n, d->folder, d->part_note);
    const char *sha256 = note_get(&n, "sha256");
    bool same = *d->w->sha256
                    ? str_equal(sha256, d->w->sha256)
                    : str_equal(note_get(&n, "url"), d->w->url) && note_get(&n, "etag")[0] == '"';
    str_copy(d->etag, sizeof d->etag, note_get(&n, "etag"));
    sha256_normalise(d->linked_sha256, note_get(&n, "linked_sha256"));
    if (same && *note_get(&n, "ranges")) {
        d->pieces = alloc_string(note_get(&n, "ranges"));
        d->by_ranges = true;
    }
    /* another address of the same bytes has ETags of its own */
    if (!str_equal(note_get(&n, "url"), d->w->url)) d->etag[0] = 0;
    note_release(&n);
    return same;
}

static int open_part(struct download *d, struct error *err)
{
    d->fd = openat(d->folder, d->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->fd < 0)
        return error_set_errno(err, ERR_IO, errno, "making %s/%s/%s", d->s->folder,
                               store_kind_name(d->w->kind), d->part);
    /* locked, and not renamed by the other one between open and lock */
    struct stat mine, there;
    if (flock(d->fd, LOCK_EX | LOCK_NB) || fstat(d->fd, &mine) ||
        fstatat(d->folder, d->part, &there, AT_SYMLINK_NOFOLLOW) || mine.st_ino != there.st_ino)
        return error_set(err, ERR_BUSY, "another kiln is fetching it");
    d->locked = true;
    if (part_is_of_this(d)) return read_part(d, err);
    d->etag[0] = d->linked_sha256[0] = 0;
    return empty_part(d, err);
}

static int note_part(struct download *d, struct error *err)
{
    struct note n;
    note_init(&n);
    note_set(&n, "url", d->w->url); /* no token is ever in it: fetch_check_url */
    note_set(&n, "etag", d->etag);
    note_set(&n, "sha256", d->w->sha256);
    note_set(&n, "linked_sha256", d->linked_sha256);
    note_set(&n, "source", d->w->source);
    char *pieces = d->ranges.started ? ranges_text(&d->ranges) : NULL;
    if (pieces || d->pieces) note_set(&n, "ranges", pieces ? pieces : d->pieces);
    free(pieces);
    int rc = note_write(&n, d->folder, d->part_note, err);
    note_release(&n);
    return rc;
}

static void drop_part(struct download *d)
{
    unlinkat(d->folder, d->part, 0);
    unlinkat(d->folder, d->part_note, 0);
}

/* ---- several requests at once ---- */

static const char *known_sha256(const struct download *d)
{
    return *d->w->sha256 ? d->w->sha256 : d->linked_sha256;
}

static int on_piece_room(void *context, int64_t bytes, struct error *err)
{
    return check_room(context, bytes, err);
}

/* the bytes first, then the note that counts on them */
static void on_piece_landed(void *context)
{
    struct download *d = context;
    if (!fdatasync(d->fd)) note_part(d, NULL);
}

/* What a server must show: parts of one and the same file, and a hash by which a lie comes out. */
static bool ranges_fit(const struct download *d, const struct fetch_reply *r)
{
    return !d->single && d->rule->ranges > 1 && *known_sha256(d) && r->etag[0] == '"' &&
           d->total - d->have >= RANGES_FILE_BYTES_MIN && (r->status == 206 || r->accepts_ranges);
}

static void begin_ranges(struct download *d)
{
    d->ranges = (struct ranges){.client = d->client,
                                .url = d->w->url,
                                .etag = d->etag,
                                .fd = d->fd,
                                .total = d->total,
                                .room = on_piece_room,
                                .landed = on_piece_landed,
                                .context = d};
    ranges_start(&d->ranges, d->have, d->pieces, d->rule->ranges - 1);
    d->by_ranges = true;
}

static void show_progress(const struct download *d, int64_t done)
{
    if (d->rule->progress) d->rule->progress(d->rule->context, done, d->total);
}

/* While this thread fetches pieces too, the digest follows what is there without a gap. */
static void on_tick(void *context)
{
    struct download *d = context;
    int64_t to = ranges_prefix(&d->ranges, d->have), present = ranges_present(&d->ranges);
    digest_file(d, to < d->have + CATCH_UP_BYTES ? to : d->have + CATCH_UP_BYTES, NULL);
    show_progress(d, present > d->have ? present : d->have);
}

/* The front's request is over, for whatever reason: the rest comes in pieces. */
static int end_ranges(struct download *d, int rc, struct error *err)
{
    struct ranges *r = &d->ranges;
    ranges_leave(r, d->have);
    if (d->met || !rc || rc == ERR_NETWORK || rc == ERR_BUSY) {
        rc = ranges_work(r, d->rule->tries, on_tick, err);
        d->exhausted = rc && !r->off && !r->changed;
    }
    ranges_end(r);
    int64_t to = ranges_prefix(r, d->have);
    forget_pieces(d);
    d->pieces = ranges_text(r);
    bool changed = r->changed, off = r->off;
    ranges_release(r);
    int bad = digest_file(d, to, err);
    if (!bad && changed) bad = empty_part(d, err);
    if (!bad && (off || to == d->total)) bad = close_gaps(d, err);
    d->single = d->single || off || changed;
    if (!bad && rc) note_part(d, NULL);
    return bad ? bad : rc;
}

/* ---- receiving ---- */

static int on_start(void *context, const struct fetch_reply *r, struct error *err)
{
    struct download *d = context;
    int rc = 0;
    if (r->status == 206 && r->from_byte != d->have)
        return error_set(err, ERR_NETWORK, "sent the bytes from %lld on, asked for %lld",
                         (long long)r->from_byte, (long long)d->have);
    if (r->status == 200 && (d->have || d->pieces))
        rc = empty_part(d, err); /* it does not resume */
    if (!rc && str_starts(r->content_type, "text/html"))
        rc = error_set(err, ERR_REFUSED,
                       "a web page came instead of a file (some files need a token or a login)");
    d->total = r->total_bytes;
    if (r->linked_sha256[0]) str_copy(d->linked_sha256, sizeof d->linked_sha256, r->linked_sha256);
    bool ranges = !rc && ranges_fit(d, r);
    /* pieces of before are of this file only under the same ETag */
    if (!rc && d->pieces && !(ranges && str_equal(d->etag, r->etag))) rc = close_gaps(d, err);
    str_copy(d->etag, sizeof d->etag, r->etag);
    if (!rc && d->total >= 0) rc = check_size(d, d->total, err);
    if (!rc) rc = check_room(d, d->total >= 0 ? d->total - d->have : 0, err);
    d->checked_at = d->have;
    if (!rc && ranges) begin_ranges(d);
    if (!rc) rc = note_part(d, err);
    return rc;
}

static int append(struct download *d, const uint8_t *from, size_t length, struct error *err)
{
    while (length) {
        ssize_t done = pwrite(d->fd, from, length, d->have);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0)
            return error_set_errno(err, errno == ENOSPC || errno == EDQUOT ? ERR_NO_MEMORY : ERR_IO,
                                   errno, "writing");
        digest_add(&d->digest, from, (size_t)done);
        d->have += done;
        from += done;
        length -= (size_t)done;
    }
    return 0;
}

/* Piece by piece, up to one that another request fetches. */
static int append_in_pieces(struct download *d, const uint8_t *from, size_t length,
                            struct error *err)
{
    int rc = 0;
    while (!rc && length) {
        size_t left = (size_t)(d->ranges.piece_bytes - d->have % d->ranges.piece_bytes);
        size_t part = length < left ? length : left;
        rc = append(d, from, part, err);
        from += part;
        length -= part;
        if (rc || part < left) break;
        if (!ranges_enter(&d->ranges, d->have) && d->have < d->total) {
            d->met = true;
            return error_set(err, ERR_NETWORK, "another request has the rest");
        }
    }
    return rc;
}

static int on_bytes(void *context, const void *bytes, size_t length, struct error *err)
{
    struct download *d = context;
    int rc = check_size(d, d->have + (int64_t)length, err);
    if (!rc && d->have - d->checked_at > FLOOR_EVERY_BYTES) {
        d->checked_at = d->have;
        rc = check_room(d, (int64_t)length, err);
    }
    if (!rc)
        rc = d->ranges.started ? append_in_pieces(d, bytes, length, err)
                               : append(d, bytes, length, err);
    if (!rc) show_progress(d, d->have);
    return rc;
}

static int receive_once(struct download *d, struct error *err)
{
    struct fetch_reply reply;
    struct fetch f = {.url = d->w->url,
                      .from_byte = d->have,
                      .if_range = d->etag,
                      .seconds_max = d->rule->seconds_max,
                      .on_start = on_start,
                      .on_bytes = on_bytes,
                      .context = d};
    d->total = -1;
    d->met = false;
    int rc = fetch_run(d->client, &f, &reply, err);
    d->status = reply.status;
    if (d->ranges.started) rc = end_ranges(d, rc, err);
    if (reply.status == 416) { /* nothing after what is here: it is all, or not this file */
        if (d->have && reply.total_bytes == d->have) return 0;
        rc = empty_part(d, err);
        return rc ? rc : error_set(err, ERR_NETWORK, "what was here was longer than the file");
    }
    if (!rc && d->total >= 0 && d->have != d->total)
        rc = error_set(err, ERR_NETWORK, "ended after %lld of %lld bytes", (long long)d->have,
                       (long long)d->total);
    return rc;
}

static int receive(struct download *d, struct error *err)
{
    int rc = 0, wait_ms = 1000, failed = 0;
    for (;;) {
        int64_t before = d->have;
        rc = receive_once(d, err);
        if ((rc != ERR_NETWORK && rc != ERR_BUSY) || d->exhausted) return rc;
        if (d->have > before) failed = 0, wait_ms = 1000; /* it goes on, if in pieces */
        if (++failed >= d->rule->tries) return rc;
        usleep((unsigned)wait_ms * 1000);
        wait_ms = wait_ms * 2 > WAIT_MS_MAX ? WAIT_MS_MAX : wait_ms * 2;
    }
}

/* ---- the end ---- */

static int note_file(struct download *d, enum store_state state, const char *sha256,
                     struct error *err)
{
    struct note n;
    char *shown = fetch_show(d->w->url);
    note_init(&n);
    note_set(&n, "state", store_state_name(state));
    note_set(&n, "sha256", sha256);
    note_set_i64(&n, "bytes", d->have);
    note_set(&n, "source", d->w->source);
    note_set(&n, "url", shown);
    note_set(&n, "family", d->w->family);
    note_set_i64(&n, "fetched_ms", now_wall_ms());
    note_set_i64(&n, "checked_ms", now_wall_ms());
    int rc = note_write(&n, d->folder, d->note, err);
    note_release(&n);
    free(shown);
    return rc;
}

/* ERR_BUSY: it came in pieces, and they are not the file. What is there is worth nothing. */
static int settle(struct download *d, enum store_state *state, char sha256[65], struct error *err)
{
    char got[65];
    const char *known = known_sha256(d);
    digest_finish(&d->digest, got);
    d->digesting = false;
    if (!d->have) {
        drop_part(d);
        return error_set(err, ERR_FORMAT, "an empty file");
    }
    if (*known && strcmp(known, got) != 0 && d->by_ranges)
        return error_set(err, ERR_BUSY, "the parts do not make the file");
    if (*known && strcmp(known, got) != 0) {
        drop_part(d);
        refusal_remember(d->s, d->w->url, REFUSAL_WRONG_BYTES);
        return error_set(err, ERR_FORMAT, "its SHA-256 is %s, it must be %s; deleted", got, known);
    }
    enum store_state now = *known ? STORE_VERIFIED : STORE_UNVERIFIED;
    int rc = fsync(d->fd) ? error_set_errno(err, ERR_IO, errno, "fsync of %s", d->part) : 0;
    /* what is known comes first: nobody may find the file without it */
    if (!rc) rc = note_file(d, now, got, err);
    if (!rc && renameat(d->folder, d->part, d->folder, d->file))
        rc = error_set_errno(err, ERR_IO, errno, "renaming to %s", d->file);
    if (rc) return rc;
    unlinkat(d->folder, d->part_note, 0);
    fsync(d->folder);
    *state = now;
    memcpy(sha256, got, sizeof got);
    return 0;
}

/* A file of that name is there already. */
static bool had_it(struct download *d, enum store_state *state, char sha256[65], int *rc,
                   struct error *err)
{
    struct stat st;
    if (fstatat(d->folder, d->file, &st, 0)) return false;
    struct note n;
    note_read(&n, d->folder, d->note);
    const char *noted = note_get(&n, "sha256");
    if (*d->w->sha256 && *noted && !str_equal(noted, d->w->sha256))
        *rc = error_set(err, ERR_REFUSED,
                        "another file of that name is there (SHA-256 %s); kiln models rm %s/%s "
                        "first",
                        noted, store_kind_name(d->w->kind), d->w->name);
    *state = str_equal(note_get(&n, "state"), "verified")     ? STORE_VERIFIED
             : str_equal(note_get(&n, "state"), "unverified") ? STORE_UNVERIFIED
                                                              : STORE_OWN;
    str_copy(sha256, 65, noted);
    note_release(&n);
    return true;
}

static int64_t used_without(const struct download *d)
{
    struct stat st;
    int64_t used = store_used_bytes(d->s, d->w->kind);
    return fstatat(d->folder, d->part, &st, 0) ? used : used - st.st_size;
}

static int fetch_it(struct download *d, enum store_state *state, char sha256[65], struct error *err)
{
    int rc = d->rule->again ? 0 : refusal_check(d->s, d->w->url, err);
    if (rc) return rc;
    d->used_before = used_without(d);
    rc = open_part(d, err);
    if (!rc) rc = receive(d, err);
    /* without a token, or while the network is away, what came is kept */
    bool final = (rc == ERR_REFUSED || rc == ERR_NOT_FOUND) && d->status != 401 && d->status != 403;
    if (rc && d->locked && (final || !d->have)) drop_part(d);
    if (final) refusal_remember(d->s, d->w->url, d->status);
    if (!rc) rc = settle(d, state, sha256, err);
    if (rc == ERR_BUSY && d->by_ranges &&
        !d->digesting) { /* the server lied about ranges: all at once */
        d->by_ranges = false;
        d->single = true;
        rc = empty_part(d, err);
        if (!rc) rc = receive(d, err);
        if (!rc) rc = settle(d, state, sha256, err);
    }
    if (!rc) refusal_forget(d->s, d->w->url);
    return rc;
}

int download_run(const struct store *s, struct fetch_client *c, const struct wanted *w,
                 const struct download_rule *rule, enum download_end *end, enum store_state *state,
                 char sha256[65], struct error *err)
{
    struct download d = {.s = s, .client = c, .w = w, .rule = rule, .fd = -1};
    char unused[65];
    d.folder = store_folder(s, store_kind_name(w->kind), err);
    if (d.folder < 0) return d.folder;
    d.file = alloc_printf("%s.%s", w->name, w->extension);
    d.note = alloc_printf(".%s.note", d.file);
    d.part = alloc_printf(".%s.part", d.file);
    d.part_note = alloc_printf(".%s.part.note", d.file);
    int rc = 0;
    *end = DOWNLOAD_HAD_IT;
    if (!had_it(&d, state, sha256, &rc, err)) {
        *end = DOWNLOAD_DONE;
        rc = fetch_it(&d, state, sha256, err);
    }
    if (rc) error_wrap(err, rc, "%s/%s", store_kind_name(w->kind), w->name);
    if (d.digesting) digest_finish(&d.digest, unused);
    if (d.fd >= 0) close(d.fd);
    close(d.folder);
    free(d.file);
    free(d.note);
    free(d.part);
    free(d.part_note);
    free(d.pieces);
    return rc;
}
