/*
 * horde_interrogate.h - alchemy: work on pictures that already exist.
 *
 * Place    the alchemist's pop and submit (daemon), and asking for it (`kiln caption`, `kiln
 *          upscale`).
 * Owner    strings borrowed in what is sent; *_release frees what was read.
 * Failure  ERR_FORMAT naming the field. A form name we do not know is kept as it is: the caller
 *          faults it (`enum alchemy_form` ALCHEMY_UNKNOWN).
 * Source   horde-api 12. No bridge gate and no multiplier stand here.
 */
#ifndef PROTO_HORDE_INTERROGATE_H
#define PROTO_HORDE_INTERROGATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "proto/horde_pop.h"

#define HORDE_FORMS_MAX 64

enum alchemy_result { ALCHEMY_TEXT, ALCHEMY_FLAG, ALCHEMY_WORDS, ALCHEMY_NUMBER, ALCHEMY_IMAGE };

/*    enum                  wire name                    result  */
#define ALCHEMY_TABLE(X)                                                                           \
    X(CAPTION, "caption", TEXT)                                                                    \
    X(NSFW, "nsfw", FLAG)                                                                          \
    X(INTERROGATION, "interrogation", WORDS)                                                       \
    X(AESTHETIC, "aesthetic", NUMBER)                                                              \
    X(VECTORIZE, "vectorize", TEXT)                                                                \
    X(PALETTE, "palette", WORDS)                                                                   \
    X(DESCRIBE, "describe", WORDS)                                                                 \
    X(GFPGAN, "GFPGAN", IMAGE)                                                                     \
    X(REALESRGAN_X4PLUS, "RealESRGAN_x4plus", IMAGE)                                               \
    X(REALESRGAN_X2PLUS, "RealESRGAN_x2plus", IMAGE)                                               \
    X(REALESRGAN_X4PLUS_ANIME, "RealESRGAN_x4plus_anime_6B", IMAGE)                                \
    X(NMKD_SIAX, "NMKD_Siax", IMAGE)                                                               \
    X(ANIME_SHARP, "4x_AnimeSharp", IMAGE)                                                         \
    X(CODEFORMERS, "CodeFormers", IMAGE)                                                           \
    X(STRIP_BACKGROUND, "strip_background", IMAGE)                                                 \
    X(ANNOTATION, "annotation", IMAGE)

enum alchemy_form {
#define X(name, text, result) ALCHEMY_##name,
    ALCHEMY_TABLE(X)
#undef X
        ALCHEMY_UNKNOWN,
    ALCHEMY_COUNT = ALCHEMY_UNKNOWN
};

const char *alchemy_form_name(enum alchemy_form f);
enum alchemy_form alchemy_form_find(const char *name);
enum alchemy_result alchemy_form_result(enum alchemy_form f);

struct horde_alchemy_pop {
    const char *name, *bridge_agent;
    const char *const *forms; /* a name the server lacks rejects the whole pop */
    int form_count;
    int amount, threads, max_tiles;
    const char *const *priority_usernames;
    int priority_count;
};
int horde_alchemy_pop_format(const struct horde_alchemy_pop *p, struct buf *body,
                             struct error *err);

struct horde_form {
    char id[HORDE_ID_BYTES];
    const char *form_name;
    enum alchemy_form form;
    const char *source_image; /* URL */
    const char *r2_upload;    /* NULL unless the result is an image */
    const char *control_type; /* annotation only */
};

struct horde_forms {
    struct arena memory;
    struct horde_form list[HORDE_FORMS_MAX];
    int count; /* 0: nothing was given */
    struct horde_skipped *skipped;
    int skipped_count;
};
int horde_forms_parse(struct horde_forms *f, const char *body, size_t length, struct error *err);
void horde_forms_release(struct horde_forms *f);

struct alchemy_word {
    const char *group; /* tags, sites, artists, flavors, mediums, movements, techniques */
    const char *text;
    double confidence;
};

struct horde_alchemy_submit {
    const char *id, *form;
    bool faulted;
    enum alchemy_result kind;
    const char *text; /* TEXT; IMAGE sends "R2" by itself */
    bool flag;
    double number;
    const struct alchemy_word *words;
    int word_count;
};
int horde_alchemy_submit_format(const struct horde_alchemy_submit *s, struct buf *body,
                                struct error *err);
/* The answer is horde_submit_parse's. */

/* POST interrogate/async */
struct horde_alchemy_async {
    const char *const *forms;
    int form_count;
    const char *source_image; /* URL, or NULL and: */
    struct blob source;       /* sent as base64 */
    bool slow_workers, trusted_workers;
};
int horde_alchemy_async_format(const struct horde_alchemy_async *a, struct buf *body,
                               struct error *err);
/* The answer is horde_accepted_parse's (id). */

struct horde_form_result {
    const char *form, *state; /* waiting, processing, done, cancelled, faulted */
    const char *result;       /* JSON text of the value, text and URLs without quotes; NULL: none */
};
struct horde_alchemy_result {
    struct arena memory;
    const char *state; /* ... and partial */
    struct horde_form_result list[HORDE_FORMS_MAX];
    int count;
};
int horde_alchemy_result_parse(struct horde_alchemy_result *r, const char *body, size_t length,
                               struct error *err);
void horde_alchemy_result_release(struct horde_alchemy_result *r);

/* An interrogation's result, `result` above: lists of {text, confidence} by group. Groups that are not lists
 * and words without a text are ERR_FORMAT. */
struct horde_words {
    struct arena memory;
    struct alchemy_word *list; /* in the order of the answer */
    int count;
};
#define HORDE_WORDS_MAX 2000
int horde_words_parse(struct horde_words *w, const char *json, size_t length, struct error *err);
void horde_words_release(struct horde_words *w);

/* Thousandths of a kudo that the requester pays for a form of one 512 x 512 tile (horde-api 12.1, 12.2). */
int64_t alchemy_price_milli(enum alchemy_form f, int tiles, bool slow_workers);

#endif
