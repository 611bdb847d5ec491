/*
 * download.h - a file from there to here, whole and checked, or not at all.
 *
 * Place    store/source says what is wanted; `kiln models get` waits.
 * Owner    the caller's structs; one thread. The unfinished file is locked while it grows.
 * Failure  ERR_FORMAT: the SHA-256 is another one; what came is deleted and the address is left
 *          alone for an hour. ERR_NO_MEMORY: disk floor, quota; what came stays. ERR_REFUSED: too
 *          large, a web page, not allowed. ERR_NETWORK, ERR_BUSY after all tries; what came stays
 *          and the next call goes on with it. ERR_NOT_FOUND, ERR_REFUSED (451) are remembered: a
 *          week, three months.
 *          A large file whose SHA-256 is known comes by several requests where the server shows that it
 *          can (ranges.h); what came so and has another hash is fetched once more, as a whole.
 * Source   reliability F5: temporary file beside the target, SHA-256 while streaming, fsync,
 *          rename; the note that says `unverified` is there before the file is.
 */
#ifndef STORE_DOWNLOAD_H
#define STORE_DOWNLOAD_H

#include "store/fetch.h"
#include "store/store.h"

struct wanted {
    enum store_kind kind;
    char *name;      /* passed store_check_name */
    char *extension; /* one of the kind's */
    char *url;
    char *source;       /* for people: "horde reference", "civitai version 5" */
    char sha256[65];    /* "" when nobody knows */
    char family[80];    /* for people; may be "" */
    int64_t size_bytes; /* 0: not said */
};
void wanted_release(struct wanted *w);

struct download_rule {
    int64_t max_bytes;   /* of one file */
    int64_t floor_bytes; /* to be left free on the disk */
    int64_t quota_bytes; /* of the kind's folder; 0: none */
    int tries;           /* after cuts; at least 1 */
    int seconds_max;     /* of one try; 0: a day */
    bool again;          /* ask an address that said no */
    int ranges;          /* requests at once for one large file, at most RANGES_MAX; 0, 1: one */
    void (*progress)(void *context, int64_t done, int64_t total); /* total -1: not known */
    void *context;
};

enum download_end { DOWNLOAD_DONE, DOWNLOAD_HAD_IT };

/* state: VERIFIED or UNVERIFIED (or OWN of a file that was there); sha256 "" when it was there unhashed */
int download_run(const struct store *s, struct fetch_client *c, const struct wanted *w,
                 const struct download_rule *rule, enum download_end *end, enum store_state *state,
                 char sha256[65], struct error *err);

#endif
