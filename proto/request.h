/*
 * request.h - one image request, whoever asked: command line, Horde job, practice horde, preview.
 *
 * Place    made by cli/ (options) and proto/horde_pop (a job), carried by proto/engine_msg,
 *          executed by diffusion/pipeline. No I/O, no JSON.
 * Owner    image_request_init / image_request_release; strings and blobs are the request's own.
 * Failure  image_request_check: ERR_INVALID with the field, its value and the limit.
 */
#ifndef PROTO_REQUEST_H
#define PROTO_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/terms.h"

#define REQUEST_SIDE_MIN_PX 64
#define REQUEST_SIDE_MAX_PX 3072 /* both sides multiples of 64 */
#define REQUEST_STEPS_MAX 500
#define REQUEST_COUNT_MAX 20
#define REQUEST_CFG_MAX 100.0
#define REQUEST_CLIP_SKIP_MAX 12
#define REQUEST_PROMPT_BYTES_MAX (64 * 1024)
#define REQUEST_LORAS_MAX 16
#define REQUEST_EMBEDDINGS_MAX 20
#define REQUEST_CONTROLS_MAX 4
#define REQUEST_QR_BYTES_MAX 1273 /* what the largest code holds at level H */

/* Encoded image bytes (PNG, JPEG, WebP); data NULL: none. */
struct blob {
    uint8_t *data;
    size_t length;
};

enum qr_drawer {
    QR_SQUARE,
    QR_GAPPED_SQUARE,
    QR_CIRCLE,
    QR_ROUNDED,
    QR_VERTICAL_BARS,
    QR_HORIZONTAL_BARS
};
enum source_use { SOURCE_NONE, SOURCE_IMG2IMG, SOURCE_INPAINTING, SOURCE_OUTPAINTING };
/* whose generators are matched; diffusion/sample/noise.h has the rules */
enum noise_device { NOISE_CPU, NOISE_CUDA, NOISE_HORDE };

struct request_lora {
    char *path;            /* local file */
    char *name;            /* for people and metadata; may be NULL */
    double model_strength; /* -10..10 */
    double clip_strength;
};

struct request_embedding {
    char *path;
    char *name; /* the word in the prompt */
    double strength;
};

/* One more ControlNet. */
struct request_control {
    char *type, *path; /* path: its weights */
    struct blob image;
    double strength; /* 0..3 */
    bool is_map;     /* the image is a ready-made map */
};

/* The Horde's workflow qr_code. */
struct request_qr {
    char *text;   /* NULL: no code */
    char *prompt; /* for the three large squares; NULL: the request's */
    enum qr_drawer drawer;
    int x_px, y_px;     /* of the code; negative: in the middle */
    int border_modules; /* 1 unless said */
};

struct image_request {
    char *model;             /* path or name that the engine's model store knows */
    char *prompt, *negative; /* UTF-8, never NULL after init */
    int width_px, height_px;
    int steps;
    double cfg;
    enum sampler sampler;
    enum schedule schedule; /* karras: SCHEDULE_KARRAS */
    uint64_t seed;
    int count; /* images of one latent batch from one seed */
    /* Prompts as expert interfaces write them: [x], BREAK, <lora:NAME:0.8>, embeddings by bare name.
     * False: the Horde's rules and no others (a stranger's prompt must not name local files). */
    bool expert_prompt;
    /* A LoRA or embedding that cannot be used is an error (local work), not a note (Horde jobs). */
    bool strict;
    int clip_skip; /* 0: the family's own; 1 last layer, 2 penultimate (Horde meaning) */
    enum noise_device noise;
    double eta;              /* NAN: the sampler's own */
    double guidance_rescale; /* 0: off */
    uint64_t variation_seed;
    double variation_strength; /* 0: off */
    bool tiling;
    bool transparent; /* things without background, RGBA (LayerDiffuse; SD 1.x and SDXL) */
    bool hires_fix;
    double hires_denoise; /* NAN: 0.65 */

    enum source_use source_use;
    struct blob source, mask;
    double denoise; /* 0.01..1 */

    struct request_lora loras[REQUEST_LORAS_MAX];
    int lora_count;
    struct request_embedding embeddings[REQUEST_EMBEDDINGS_MAX];
    int embedding_count;

    char *control_type; /* NULL: none */
    char *control_path; /* ControlNet weights */
    struct blob control_image;
    double control_strength;
    bool image_is_control, return_control_map;
    struct request_control more_controls[REQUEST_CONTROLS_MAX - 1]; /* beside that one */
    int more_control_count;

    /* Instead of a plain picture: one that hides a QR code, by the ControlNet of control_path. */
    struct request_qr qr;
};

/* "square", "gapped square" ...: the Horde's words, by enum qr_drawer; NULL at the end */
extern const char *const request_qr_drawers[];

/* Horde defaults: 512x512, 30 steps, cfg 7.5, k_euler_a, karras off, seed 0, count 1, denoise 1. */
void image_request_init(struct image_request *r);
void image_request_release(struct image_request *r);
int image_request_check(const struct image_request *r, struct error *err);

#endif
