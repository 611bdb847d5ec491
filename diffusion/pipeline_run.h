/*
 * pipeline_run.h - one request on its way through pipeline.c, hires.c and their like.
 *
 * Place    inside the pipeline; nobody else includes it.
 * Owner    pipeline_run's stack. One thread.
 * Failure  pipeline.h's.
 */
#ifndef DIFFUSION_PIPELINE_RUN_H
#define DIFFUSION_PIPELINE_RUN_H

#include "diffusion/guidance.h"
#include "diffusion/lora/lora.h"
#include "diffusion/model.h"
#include "diffusion/source_picture.h"

/* A ControlNet and what it looks at. */
struct run_control {
    struct control_net *net; /* the model's */
    struct pixels map;       /* at the request's size */
    const float *picture;    /* instead of map, when the pass has the request's size: [h,w,3] */
    double strength;
};

struct run {
    struct model *m;
    const struct image_request *r;
    const struct pipeline_hooks *hooks;
    struct pipeline_result *result;
    double start;
    const struct pipeline_share *shares; /* whose images they are; NULL: one request's */
    int share_count;

    char *prompt, *negative_prompt;          /* choices made, split at ### */
    struct request_lora loras[LORA_SET_MAX]; /* the request's, its prompt's tags', layered_change */
    char *found[REQUEST_LORAS_MAX];          /* paths of the tags' files */
    int lora_count;
    char *layered_change; /* what makes the UNet draw without background; NULL: nothing */
    struct conditioning positive, negative;
    bool guided; /* a negative side is computed */
    bool lean;   /* the second try after ERR_NO_MEMORY: one image a call, small tiles */
    struct embedding embeddings[REQUEST_EMBEDDINGS_MAX];
    int embedding_count;
    struct error unusable;  /* the first LoRA that could not be used */
    struct error unlayered; /* why layered_change could not */

    struct run_control controls[REQUEST_CONTROLS_MAX];
    int control_count;

    int steps_done, steps_all; /* for progress, over all passes */
    int pass_steps;            /* of the pass that runs now */
    int latent_width, latent_height;
};

/* One sampling of the whole batch. */
struct sampling_pass {
    int width, height; /* pixels */
    int steps;
    double denoise;
    enum schedule schedule;
    const struct conditioning *positive; /* NULL: the run's */
    const float *latent;                 /* start, [images,c,h,w]; NULL: none */
    const float *mask;                   /* [h,w]; NULL: none */
    const float *extra;                  /* [5,h,w] for inpainting models */
    const struct run_control *controls;
    int control_count;
    /* Only steps first_step .. last_step - 1 of all; last_step 0: to the end. What is left at the
     * last one is still noisy. */
    int first_step, last_step;
    bool noisy; /* the latent is noisy already, nothing is added at the start */
};

void run_note(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void run_progress(struct run *run, enum pipeline_phase phase, int step, int steps);

bool run_canceled(void *run); /* for pass.canceled too */
int run_stopped(struct error *err);

/* pipeline_text.c: choices {a|b}, ###, <lora:...> tags; then adapters; then the conditioning. */
int run_prepare_prompt(struct run *run, struct error *err);
int run_use_loras(struct run *run, struct error *err);
int run_encode_text(struct run *run, struct error *err);
/* One more positive side, in the form of the run's; conditioning_release. */
int run_encode_side(struct run *run, struct conditioning *c, const char *prompt, struct error *err);
void run_release_text(struct run *run);

/* latents: [images,c,h,w], made here; the caller frees. */
int sampling_pass_run(struct run *run, const struct sampling_pass *pass, float **latents,
                      struct error *err);

int run_encode_picture(struct run *run, const float *rgb, int width, int height, float *latent,
                       struct error *err);

/* pipeline_control.c: the request's pictures as maps, and their networks. */
int run_open_controls(struct run *run, struct error *err);
/* The model's ControlNet of this path, opened if it is not; borrowed. */
int run_open_control_net(struct run *run, struct control_net **net, const char *path,
                         struct error *err);
void run_release_controls(struct run *run);

/* pipeline_layered.c: for a transparent request, opens the model's decoder of alpha and adds to the
 * run's LoRAs; then a picture [h,w,3] in [-1,1] and its latents become RGBA. */
int run_use_layered(struct run *run, struct error *err);
int run_decode_alpha(struct run *run, const float *rgb, const float *latent, struct pixels *picture,
                     struct error *err);

/* pipeline_qr.c: the QR code's three passes instead of one. latents as above. */
int run_draw_qr(struct run *run, float **latents, struct error *err);

#endif
