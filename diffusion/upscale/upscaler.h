/*
 * upscaler.h - pictures two or four times as large by a network of the ESRGAN family.
 *
 * Place    after decoding, as the Horde's post-processors RealESRGAN_x4plus, RealESRGAN_x2plus,
 *          RealESRGAN_x4plus_anime_6B, NMKD_Siax and 4x_AnimeSharp.
 * Owner    upscaler_open / upscaler_close; results are the caller's pixels. One thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED (file); ERR_INVALID (too large a
 *          result); ERR_NO_MEMORY, ERR_DEVICE; ERR_CANCELED between tiles.
 * Source   Wang et al. 2018 (ESRGAN: RRDB), 2021 (Real-ESRGAN: pixel unshuffle for x2); names of
 *          xinntao/Real-ESRGAN and of the older ESRGAN.
 */
#ifndef DIFFUSION_UPSCALE_UPSCALER_H
#define DIFFUSION_UPSCALE_UPSCALER_H

#include "diffusion/pipeline.h"

struct upscaler;

int upscaler_open(struct upscaler **u, struct device *device, const char *path,
                  enum precision precision, struct error *err);
void upscaler_close(struct upscaler *u);
int upscaler_factor(const struct upscaler *u);

/* from: grey, RGB or RGBA; alpha is enlarged without the network. Works in tiles of bounded memory. */
int upscaler_run(struct upscaler *u, struct pixels *to, const struct pixels *from,
                 const struct pipeline_hooks *hooks, struct error *err);

#endif
