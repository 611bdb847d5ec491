/*
 * horde_async.h - the spending side: asking the Horde for images.
 *
 * Place    `kiln generate --horde`: quote (dry_run), send, check, status, cancel.
 * Owner    strings borrowed in what is sent; *_release frees what was read.
 * Failure  ERR_INVALID for what the Horde would refuse (named, with the limit); ERR_FORMAT.
 * Source   horde-api 11.
 */
#ifndef PROTO_HORDE_ASYNC_H
#define PROTO_HORDE_ASYNC_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "proto/horde_pop.h"
#include "proto/request.h"

struct horde_async {
    const struct image_request *request; /* its LoRA and embedding `name`s are sent, not the paths;
                                            source and mask travel as base64 */
    const char *const *models;           /* none: any model */
    int model_count;
    const char *const *workers; /* ids, at most 5 */
    int worker_count;
    bool worker_blacklist;
    bool nsfw, censor_nsfw, trusted_workers, slow_workers, extra_slow_workers;
    bool r2; /* false: base64 answers; open to workers the server does not know (5.5) */
    bool shared, replacement_filter, allow_downgrade, dry_run;
    const char *const *post_processing;
    int post_count;
    const char *style; /* id or name; NULL: none. With one the style decides the models and every
                          parameter but size and count, so only those travel */
    bool random_seed;  /* leave the seed to the server */
    bool karras_unset; /* leave `karras` out (rarely wanted) */
};

int horde_async_format(const struct horde_async *a, struct buf *body, struct error *err);

struct horde_warning {
    const char *code, *message;
};

struct horde_accepted { /* 202, or 200 of a dry run (id empty) */
    struct arena memory;
    char id[HORDE_ID_BYTES];
    double kudos;
    const char *message; /* NULL: none */
    struct horde_warning *warnings;
    int warning_count;
};
int horde_accepted_parse(struct horde_accepted *a, const char *body, size_t length,
                         struct error *err);
void horde_accepted_release(struct horde_accepted *a);

struct horde_check {
    int finished, processing, restarted, waiting;
    bool done, faulted, is_possible;
    int64_t wait_seconds, queue_position;
    double kudos;
};
int horde_check_parse(struct horde_check *c, const char *body, size_t length, struct error *err);

struct horde_note { /* gen_metadata as the client sees it */
    const char *type, *value, *ref;
};

struct horde_generation {
    const char *id, *image; /* URL or base64 WebP: horde_source_is_url */
    const char *seed, *model, *worker_id, *worker_name, *state;
    bool censored;
    struct horde_note *notes;
    int note_count;
};

struct horde_result { /* generate/status and the answer of its DELETE */
    struct arena memory;
    struct horde_check check;
    bool shared;
    struct horde_generation *generations;
    int generation_count;
};
int horde_result_parse(struct horde_result *r, const char *body, size_t length, struct error *err);
void horde_result_release(struct horde_result *r);

#endif
