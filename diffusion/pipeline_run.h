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
#include "diffusion/model.h"
#include "diffusion/source_picture.h"

struct run {
    struct model *m;
    const struct image_request *r;
    const struct pipeline_hooks *hooks;
    struct pipeline_result *result;
    double start;

    char *prompt, *negative_prompt;               /* choices made, split at ### */
    struct request_lora loras[REQUEST_LORAS_MAX]; /* the request's and those of its prompt's tags */
    char *found[REQUEST_LORAS_MAX];               /* paths of the tags' files */
    int lora_count;
    struct conditioning positive, negative;
    bool guided; /* a negative side is computed */
    struct embedding embeddings[REQUEST_EMBEDDINGS_MAX];
    int embedding_count;
    struct error unusable; /* the first LoRA that could not be used */

    struct control_net *control; /* the model's; NULL: none */
    struct pixels control_map;   /* at the request's size */

    int steps_done, steps_all; /* for progress, over all passes */
    int pass_steps;            /* of the pass that runs now */
};

/* One sampling of the whole batch. */
struct sampling_pass {
    int width, height; /* pixels */
    int steps;
    double denoise;
    const float *latent; /* start, [images,c,h,w]; NULL: none */
    const float *mask;   /* [h,w]; NULL: none */
    const float *extra;  /* [5,h,w] for inpainting models */
};

void run_note(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void run_progress(struct run *run, enum pipeline_phase phase, int step, int steps);

bool run_canceled(void *run); /* for pass.canceled too */
int run_stopped(struct error *err);

/* pipeline_text.c: choices {a|b}, ###, <lora:...> tags; then adapters; then the conditioning. */
int run_prepare_prompt(struct run *run, struct error *err);
int run_use_loras(struct run *run, struct error *err);
int run_encode_text(struct run *run, struct error *err);
void run_release_text(struct run *run);

/* latents: [images,c,h,w], made here; the caller frees. */
int sampling_pass_run(struct run *run, const struct sampling_pass *pass, float **latents,
                      struct error *err);

/* pipeline_control.c: the request's picture as a map, and its network. */
int run_open_control(struct run *run, struct error *err);
/* The map at a pass's size, [h,w,3] in [0,1]; the caller frees. */
int run_control_picture(const struct run *run, int width, int height, float **picture,
                        struct error *err);

/* hires.c: whether the request's two passes make sense, and the first one's size. */
bool hires_wanted(const struct run *run, int *first_width, int *first_height);
/* Nearest neighbour at pixel centres. */
void hires_enlarge(float *to, int64_t oh, int64_t ow, const float *from, int64_t planes, int64_t h,
                   int64_t w);

#endif
