/*
 * horde_pop.h - asking the Horde for image work, and what it gave.
 *
 * Place    first step of a job: daemon/pop sends what horde_pop_format wrote and keeps the raw
 *          reply (reliability L2) before it acts on what horde_pop_parse read.
 * Owner    struct horde_job: horde_job_release. Strings live in its arena, the request's in the
 *          request.
 * Failure  horde_pop_parse: ERR_FORMAT when not even the ids can be read: nothing was given as
 *          far as anyone can tell. Once the ids are known everything else that is wrong
 *          (uploads that do not match, an unknown sampler, a size) lands in `refusal`: report
 *          every id as faulted, so that the image goes to somebody else at once instead of at
 *          its TTL.
 * Source   horde-api sections 6 and 7 (AI-Horde horde/apis/models/stable_v2.py).
 */
#ifndef PROTO_HORDE_POP_H
#define PROTO_HORDE_POP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "proto/request.h"

#define HORDE_ID_BYTES 64 /* UUID text with room to spare */
#define HORDE_BATCH_MAX REQUEST_COUNT_MAX
#define HORDE_MODELS_MAX 300
#define HORDE_POST_MAX 16
#define HORDE_TEXTS_MAX 8
#define HORDE_EXTRA_SOURCES_MAX 5
#define HORDE_LORAS_MAX 5
#define HORDE_TIS_MAX 20

struct horde_pop { /* request body; strings borrowed */
    const char *name;
    const char *bridge_agent; /* "name:version:url" */
    const char *const *models;
    int model_count;
    int threads, amount;
    int64_t max_pixels;
    bool nsfw;
    const char *const *blacklist;
    int blacklist_count;
    const char *const *priority_usernames; /* alias#id */
    int priority_count;
    bool require_upfront_kudos, extra_slow_worker, limit_max_steps;
    bool allow_img2img, allow_painting, allow_unsafe_ipaddr, allow_post_processing;
    bool allow_controlnet, allow_sdxl_controlnet, allow_lora;
    /* sent only when the server's swagger knows them (horde_swagger.h) */
    bool send_extended_controlnet, allow_extended_controlnet;
    const char *sampler_contract; /* NULL: not sent; "1.0" */
};

int horde_pop_format(const struct horde_pop *pop, struct buf *body, struct error *err);

struct horde_lora {
    const char *name; /* name, CivitAI model id, or version id when is_version */
    double model_strength, clip_strength;
    const char *inject_trigger; /* NULL: none; "any", "all" or a word */
    bool is_version;
};

struct horde_ti {
    const char *name;
    const char *inject; /* NULL: the prompt names it itself; "prompt" or "negprompt" */
    double strength;
};

struct horde_text {
    const char *text, *reference;
};

struct horde_source {
    const char *image; /* https URL, or base64 (horde_source_is_url) */
    double strength;
};

struct horde_skipped {
    const char *name; /* as the server spells it: "bridge_version", "post-processing" ... */
    int64_t count;
};

struct horde_message {
    const char *id, *message, *origin, *expiry; /* raw: str_clean before showing */
};

struct horde_job {
    struct arena memory;
    int count; /* images = ids; 0: nothing was given */
    char ids[HORDE_BATCH_MAX][HORDE_ID_BYTES];
    const char *upload_urls[HORDE_BATCH_MAX]; /* NULL: the server gave none */
    const char *model;
    int ttl_seconds;

    /* Prompt split at ###, sizes, sampler, seed, steps ... LoRAs, embeddings, images and model are
     * left empty: the daemon fetches what stands below and fills them in. */
    struct image_request request;
    struct error refusal; /* code 0: can be run as far as this file knows */

    const char *seed_text;
    const char *source_processing; /* "img2img" even for plain text; see request.source_use */
    const char *source_image, *source_mask; /* URL or base64; NULL none */
    struct horde_source extra_sources[HORDE_EXTRA_SOURCES_MAX];
    int extra_source_count;
    struct horde_lora loras[HORDE_LORAS_MAX];
    int lora_count;
    struct horde_ti tis[HORDE_TIS_MAX];
    int ti_count;
    const char *post_processing[HORDE_POST_MAX];
    int post_count;
    double facefixer_strength; /* 1 when absent */
    bool use_nsfw_censor;
    const char *workflow; /* NULL: none */
    struct horde_text texts[HORDE_TEXTS_MAX];
    int text_count;
    bool has_scheduler, has_solver_options, has_flow_shift, has_control_strength;
    bool has_special;           /* a non-empty `special` object */
    const char *unknown_fields; /* names of payload fields nobody here knows, ", " between; NULL */

    struct horde_skipped *skipped; /* in memory */
    int skipped_count;
    struct horde_message *messages;
    int message_count;
};

int horde_pop_parse(struct horde_job *job, const char *body, size_t length, struct error *err);
void horde_job_release(struct horde_job *job);

bool horde_source_is_url(const char *source);
/* base64 (with or without line ends and data: prefix) into bytes; free with free().
 * ERR_FORMAT, ERR_NO_MEMORY above limit_bytes. */
int horde_source_decode(struct blob *bytes, const char *base64, size_t limit_bytes,
                        struct error *err);

/* Server's own rule: when it will abort an image that was popped now (horde-api 10.1). */
int horde_ttl_seconds(const struct image_request *r, bool flux_class, bool extra_slow_worker);

#endif
