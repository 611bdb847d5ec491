/*
 * engine_msg.h - what a host (kilnd, or kiln for local work) and kiln-engine say to each other.
 *
 * Place    one message a frame (frame.h, FRAME_ENGINE_MAX) on the engine's stdin and stdout.
 * Owner    To send: fill a zeroed struct with borrowed pointers, encode, release nothing but
 *          what is your own. Received: engine_msg_decode owns everything in the message until
 *          engine_msg_release; to keep an image, take its data and set data to NULL.
 * Failure  ERR_FORMAT naming the field, the kind or the blob; ERR_NO_MEMORY.
 *
 * Payload of a frame, little-endian:
 *     u32 header_length | header (JSON) | u32 blob_count | blob_count x u32 length | the bytes
 * so that images are never base64. Every message carries the launch id that the host gave the
 * engine (--launch N) and, where it is about a job, the job id: the host drops what a dead engine
 * or a finished job still has to say.
 *
 *     host -> engine   load unload prepare generate alchemy train cancel shutdown
 *     engine -> host   hello loaded progress result alchemy_result trained error heartbeat
 *
 * An engine says hello first, a heartbeat every ENGINE_HEARTBEAT_SECONDS, works off jobs in the
 * order they came (the next may be sent while one runs), and ends each job with exactly one result
 * or error. It ends on shutdown or when stdin closes. `prepare` is a hint, never answered: the model
 * that a later job will ask for, which the engine may load beside its work; the last one counts.
 */
#ifndef PROTO_ENGINE_MSG_H
#define PROTO_ENGINE_MSG_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "proto/frame.h"
#include "proto/horde_interrogate.h"
#include "proto/request.h"

#define ENGINE_PROTOCOL 1
#define ENGINE_HEARTBEAT_SECONDS 5
#define ENGINE_JOB_BYTES 64
#define ENGINE_GPU_LOST                                                                            \
    "gpu_lost" /* how the text of a fatal error begins when no restart can help */
#define ENGINE_DEVICES_MAX 16
#define ENGINE_NAMES_MAX 128
#define ENGINE_NOTES_MAX 64
#define ENGINE_OPTIONS_MAX 64
#define ENGINE_POST_MAX 16
#define ENGINE_BLOBS_MAX 64

#define ENGINE_KIND_TABLE(X)                                                                       \
    X(HELLO, "hello")                                                                              \
    X(LOAD, "load")                                                                                \
    X(LOADED, "loaded")                                                                            \
    X(UNLOAD, "unload")                                                                            \
    X(PREPARE, "prepare")                                                                          \
    X(GENERATE, "generate")                                                                        \
    X(PROGRESS, "progress")                                                                        \
    X(RESULT, "result")                                                                            \
    X(ALCHEMY, "alchemy")                                                                          \
    X(ALCHEMY_RESULT, "alchemy_result")                                                            \
    X(TRAIN, "train")                                                                              \
    X(TRAINED, "trained")                                                                          \
    X(ERROR, "error")                                                                              \
    X(CANCEL, "cancel")                                                                            \
    X(HEARTBEAT, "heartbeat")                                                                      \
    X(SHUTDOWN, "shutdown")

#define ENGINE_PHASE_TABLE(X)                                                                      \
    X(QUEUED, "queued")                                                                            \
    X(LOAD, "load")                                                                                \
    X(TEXT, "text")                                                                                \
    X(SAMPLE, "sample")                                                                            \
    X(DECODE, "decode")                                                                            \
    X(POST, "post")                                                                                \
    X(SAFETY, "safety")                                                                            \
    X(ENCODE, "encode")                                                                            \
    X(TRAIN, "train")

#define ENGINE_VERDICT_TABLE(X)                                                                    \
    X(NONE, "none") /* nobody asked */                                                             \
    X(OK, "ok")                                                                                    \
    X(NSFW, "nsfw")                                                                                \
    X(CSAM, "csam")                                                                                \
    X(FAILED, "failed") /* the check broke: never submitted (reliability S2) */

#define ENGINE_FORMAT_TABLE(X)                                                                     \
    X(WEBP, "webp")                                                                                \
    X(PNG, "png")                                                                                  \
    X(JPEG, "jpeg")

enum engine_kind {
#define X(name, text) ENGINE_##name,
    ENGINE_KIND_TABLE(X)
#undef X
        ENGINE_KIND_COUNT
};
enum engine_phase {
#define X(name, text) ENGINE_PHASE_##name,
    ENGINE_PHASE_TABLE(X)
#undef X
        ENGINE_PHASE_COUNT
};
enum engine_verdict {
#define X(name, text) ENGINE_VERDICT_##name,
    ENGINE_VERDICT_TABLE(X)
#undef X
        ENGINE_VERDICT_COUNT
};
enum engine_format {
#define X(name, text) ENGINE_FORMAT_##name,
    ENGINE_FORMAT_TABLE(X)
#undef X
        ENGINE_FORMAT_COUNT
};

const char *engine_kind_name(enum engine_kind k);
const char *engine_phase_name(enum engine_phase p);
const char *engine_verdict_name(enum engine_verdict v);
const char *engine_format_name(enum engine_format f);

struct engine_device {
    const char *name;   /* "cpu", "cuda:0" as --device takes it */
    const char *title;  /* for people: "NVIDIA H100", "AMD EPYC 9R14" */
    const char *driver; /* "" for a CPU */
    int64_t memory_bytes, free_bytes;
};

struct engine_hello {
    const char *version; /* KILN_VERSION */
    int protocol;        /* ENGINE_PROTOCOL */
    int64_t pid;
    const char *kernels;                              /* "avx512-bf16", "cuda sm_90" */
    struct engine_device devices[ENGINE_DEVICES_MAX]; /* the first is the one in use */
    int device_count;
    const char *capabilities[ENGINE_NAMES_MAX]; /* capability.h names it can do now */
    int capability_count;
    const char *samplers[ENGINE_NAMES_MAX]; /* terms.h names */
    int sampler_count;
    const char *forms[ENGINE_NAMES_MAX]; /* alchemy forms whose weights are present */
    int form_count;
    bool safety; /* a safety model is present and whole */
};

struct engine_load {             /* also prepare; and unload: only `model` counts */
    const char *model;           /* name for messages; the request's model of later jobs */
    const char *path, *vae_path; /* vae_path may be NULL */
    const char *precision;       /* auto fp32 bf16 fp16 int8 */
    const char *sha256;          /* NULL: unknown */
};

struct engine_loaded {
    const char *model, *family; /* family_name() */
    const char *sha256;         /* "" until known */
    int64_t bytes;              /* on the device */
    int64_t free_bytes;
    double seconds;
    bool inpainting, v_prediction;
};

struct engine_generate {
    struct image_request request; /* paths filled in, images as bytes */
    const char *post_processing[ENGINE_POST_MAX];
    int post_count;
    double facefixer_strength;
    enum engine_format format;
    int quality; /* WebP and JPEG; 95 for the Horde */
    bool check_safety;
    bool censor_nsfw;        /* replace an NSFW image; CSAM is always replaced */
    int preview_every_steps; /* 0: no previews */
    double deadline_seconds; /* from receipt; 0: none. Past it the engine gives up: ERR_CANCELED */
    int together_max; /* images that may be drawn at once with those of equal requests; 0: alone */
    const char *parameters; /* text for the image's `parameters`; NULL: none */
    const char *xmp;        /* XMP packet; NULL: none */
};

struct engine_progress {
    enum engine_phase phase;
    int step, steps;
    double seconds;      /* since the job began to run */
    double loss;         /* training; NAN otherwise */
    double joules;       /* training, since the job began; NAN: not measured */
    struct blob preview; /* small JPEG or PNG; data NULL: none */
};

struct engine_image {
    struct blob bytes;
    enum engine_verdict verdict;
    bool censored; /* bytes are the replacement picture */
    int width_px, height_px;
    int index; /* in the batch */
};

struct engine_result {
    enum engine_format format;
    struct engine_image images[REQUEST_COUNT_MAX];
    int image_count;
    const char *notes[ENGINE_NOTES_MAX]; /* "lora:download_failed:name" in the Horde's words */
    int note_count;
    double seconds[ENGINE_PHASE_COUNT];
    double joules;             /* NAN: not measured */
    const char *energy_source; /* nvml, rapl, estimated, n/a */
    int64_t peak_bytes;
    int together; /* images of other jobs drawn in the same run; seconds are its share */
    const char *model_sha256; /* "" when unknown */
    const char *kernels, *device;
};

struct engine_alchemy {
    enum alchemy_form form;
    const char *control_type; /* annotation; NULL otherwise */
    struct blob source;
    double strength, fidelity; /* of face fixers, 0 .. 1 */
    bool check_safety;
    bool lossless; /* for one's own pictures */
};

struct engine_alchemy_result {
    enum alchemy_form form;
    const char *text; /* NULL: none */
    bool flag;
    double number;              /* NAN: none */
    struct alchemy_word *words; /* in memory */
    int word_count;
    struct engine_image image; /* bytes.data NULL: none */
    double seconds, joules;
};

struct engine_option {
    const char *name, *value;
};

struct engine_train { /* name and value pairs, read and judged by engine/serve_train */
    struct engine_option options[ENGINE_OPTIONS_MAX];
    int option_count;
};

struct engine_trained {
    const char *path; /* what was written */
    double seconds, final_loss, joules;
    int steps;
};

struct engine_failure {
    int code; /* ERR_* */
    const char *text;
    bool fatal; /* the engine ends now (exit 70) */
};

struct engine_heartbeat {
    bool busy;
    int queued;
    int64_t memory_bytes, free_bytes; /* of the device */
    double temperature_c, watts;      /* NAN: not measured */
    double foreign_use;               /* share of the device others use, 0..1; NAN */
    double idle_seconds;              /* since the last step or message */
};

struct engine_msg {
    enum engine_kind kind;
    uint64_t launch_id;
    char job_id[ENGINE_JOB_BYTES]; /* "" when not about a job */
    union {
        struct engine_hello hello;
        struct engine_load load; /* LOAD, UNLOAD, PREPARE */
        struct engine_loaded loaded;
        struct engine_generate generate;
        struct engine_progress progress;
        struct engine_result result;
        struct engine_alchemy alchemy;
        struct engine_alchemy_result alchemy_result;
        struct engine_train train;
        struct engine_trained trained;
        struct engine_failure error;
        struct engine_heartbeat heartbeat;
    };
    struct arena memory; /* received messages only */
};

/* Zeroes the message and sets the defaults of its kind (request defaults, NANs). What it allocates
 * in generate.request goes with image_request_release. */
void engine_msg_init(struct engine_msg *m, enum engine_kind kind, uint64_t launch_id,
                     const char *job_id);

/* Appends one whole frame to `out`. */
int engine_msg_encode(const struct engine_msg *m, struct buf *out, struct error *err);

/* Two GENERATE messages ask for the same but for the seed: one run can draw both. False also where the
 * seed does more than make noise (choices {a|b} in a prompt, k_dpm_adaptive, a returned map). */
bool engine_msg_equal_but_seed(const struct engine_msg *a, const struct engine_msg *b);

/* `payload` as frame_next gave it. */
int engine_msg_decode(struct engine_msg *m, const uint8_t *payload, size_t length,
                      struct error *err);
void engine_msg_release(struct engine_msg *m);

#endif
