/*
 * guidance.h - the denoiser that samplers call: network, prediction kind, positive and negative.
 *
 * Place    between sample/ (host floats, NCHW) and unet/ (device, channels last).
 * Owner    guidance_open / guidance_close around the caller's struct, for one sampling run. One
 *          thread.
 * Failure  the pass's.
 * Source   Ho & Salimans 2022 (guidance); Lin et al. 2023 (rescale); ComfyUI samplers.py (masks).
 */
#ifndef DIFFUSION_GUIDANCE_H
#define DIFFUSION_GUIDANCE_H

#include "diffusion/model.h"
#include "diffusion/sample/sampler.h"

struct control_net;

/* One ControlNet; several add up. */
struct guidance_control {
    struct control_net *net;
    const float *picture; /* [8h,8w,3] in [0,1] */
    double strength;
    struct unet_context context; /* guidance's own, as the hint */
    struct tensor hint;
};

struct guidance {
    struct model *model;
    const struct conditioning *positive, *negative; /* negative NULL: no guidance (scale 1) */
    double scale, rescale;
    int images;
    int64_t h, w;    /* of a latent */
    double sizes[6]; /* SDXL: height, width, top, left, target height, target width */

    /* inpainting with a normal model: NULL, or at latent size */
    const float *mask;   /* [h,w], 1 = repaint */
    const float *latent; /* [c,h,w] clean */
    const float *noise;  /* [images,c,h,w] of the start */
    /* inpainting models: mask and masked picture, [5,h,w]; NULL for others */
    const float *extra;

    struct guidance_control *controls;
    int control_count;
    bool (*canceled)(void *context);
    void *canceled_context;

    /* its own */
    struct pass context_pass;
    struct unet_context context;
    int context_images; /* what `context` was made for; 0: nothing yet */
    size_t peak_bytes;
    float *in, *out, *mixed; /* scratch */
    int chunk;               /* images a network call */
};

int guidance_open(struct guidance *g, struct error *err);
void guidance_close(struct guidance *g);
/* For struct denoiser; context is the struct guidance. */
int guidance_denoise(void *context, float *denoised, const float *x, double sigma,
                     struct error *err);

#endif
