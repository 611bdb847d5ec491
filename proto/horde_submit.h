/*
 * horde_submit.h - handing one finished or given-up image in.
 *
 * Place    last step of a job before the ledger: daemon/submit.
 * Owner    strings borrowed. Any thread.
 * Failure  horde_submit_format: ERR_INVALID for more than 50 metadata entries or a seed the
 *          wire cannot carry. horde_submit_parse: ERR_FORMAT.
 * Source   horde-api 9.4.
 */
#ifndef PROTO_HORDE_SUBMIT_H
#define PROTO_HORDE_SUBMIT_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define HORDE_METADATA_MAX 50
#define HORDE_GENERATION_R2 "R2" /* the bytes were PUT to the upload URL */

/* A type or value that the server's enum lacks makes the whole submit fail with 400. */
#define METADATA_TYPE_TABLE(X)                                                                     \
    X(LORA, "lora")                                                                                \
    X(TI, "ti")                                                                                    \
    X(CENSORSHIP, "censorship")                                                                    \
    X(SOURCE_IMAGE, "source_image")                                                                \
    X(SOURCE_MASK, "source_mask")                                                                  \
    X(EXTRA_SOURCE_IMAGE, "extra_source_images") /* as the server spells it */                     \
    X(BATCH_INDEX, "batch_index")                                                                  \
    X(INFORMATION, "information")                                                                  \
    X(AESTHETIC_SCORE, "aesthetic_score")

#define METADATA_VALUE_TABLE(X)                                                                    \
    X(DOWNLOAD_FAILED, "download_failed")                                                          \
    X(PARSE_FAILED, "parse_failed")                                                                \
    X(BASELINE_MISMATCH, "baseline_mismatch")                                                      \
    X(NSFW, "nsfw")                                                                                \
    X(CSAM, "csam")                                                                                \
    X(SEE_REF, "see_ref")

enum metadata_type {
#define X(name, text) METADATA_##name,
    METADATA_TYPE_TABLE(X)
#undef X
        METADATA_TYPE_COUNT
};
enum metadata_value {
#define X(name, text) METADATA_VALUE_##name,
    METADATA_VALUE_TABLE(X)
#undef X
        METADATA_VALUE_COUNT
};

const char *metadata_type_name(enum metadata_type t);
const char *metadata_value_name(enum metadata_value v);

struct horde_metadata {
    enum metadata_type type;
    enum metadata_value value;
    const char *ref; /* NULL: none; cut to 255 bytes */
};

enum submit_state { SUBMIT_OK, SUBMIT_CENSORED, SUBMIT_FAULTED, SUBMIT_CSAM };

struct horde_submit {
    const char *id;
    const char *generation; /* HORDE_GENERATION_R2, base64 WebP, or "faulted"; NULL: by state */
    enum submit_state state;
    uint64_t seed; /* of the payload; 0 for faults */
    const struct horde_metadata *metadata;
    int metadata_count;
};

int horde_submit_format(const struct horde_submit *s, struct buf *body, struct error *err);

/* {"reward": 53.12} -> 53120; rounded to the nearest thousandth. */
int horde_submit_parse(int64_t *reward_milli, const char *body, size_t length, struct error *err);

#endif
