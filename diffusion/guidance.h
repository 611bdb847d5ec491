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
};

/* What calls over one number of images share over all steps: keys and values of every cross attention,
 * first those of all positive rows, then the negative ones. */
struct guidance_batch {
    int images;   /* 0: not made yet */
    bool planned; /* its calls have their memory */
    struct unet_context context, control[REQUEST_CONTROLS_MAX];
    struct tensor hint[REQUEST_CONTROLS_MAX];
};

struct guidance {
    struct model *model;
    const struct conditioning *positive, *negative; /* negative NULL: no guidance (scale 1) */
    double scale, rescale;
    int images;
    bool lean;       /* one image a network call */
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

    /* the timesteps that are known beforehand: what the network is told of them is computed at once.
     * NULL: none */
    const double *times;
    int time_count;

    /* its own */
    struct pass context_pass; /* holds what all calls share, once context_open */
    bool context_open;
    struct guidance_batch batch[2]; /* whole chunks, and the last one where it is smaller */
    struct unet_steps steps;
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
