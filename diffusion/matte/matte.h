/*
 * matte.h - a picture without its background.
 *
 * Place    the Horde's post-processor strip_background, and `kiln strip`.
 * Owner    matte_open / matte_close; results are the caller's pixels. One thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_UNSUPPORTED (file); ERR_NO_MEMORY, ERR_DEVICE,
 *          ERR_CANCELED.
 * Source   the steps of danielgatis/rembg with its model "u2net": 320 x 320 by Lanczos, divided by
 *          the brightest value, ImageNet's mean and deviation; the mask stretched to 0 .. 1 and
 *          enlarged by Lanczos; its alpha_matting, which the Horde's worker turns on.
 */
#ifndef DIFFUSION_MATTE_MATTE_H
#define DIFFUSION_MATTE_MATTE_H

#include "diffusion/pipeline.h"

struct matte;

int matte_open(struct matte **m, struct device *device, const char *path, struct error *err);
void matte_close(struct matte *m);

/* mask: grey, the picture's size */
int matte_mask(struct matte *m, struct pixels *mask, const struct pixels *from, struct error *err);
/* to: RGBA. Along the mask's edge alpha and the foreground's own colour are estimated (matting.h).
 * Where that does not work out, a mask of 255 keeps a pixel, 0 leaves nothing of it, and in between
 * colour and alpha fade together. An alpha that `from` has fades the result's. */
int matte_run(struct matte *m, struct pixels *to, const struct pixels *from,
              const struct pipeline_hooks *hooks, struct error *err);
/* The second half of it: from a picture and its mask. hooks may be NULL. */
int matte_cut(struct pixels *to, const struct pixels *from, const struct pixels *mask,
              const struct pipeline_hooks *hooks, struct error *err);

#endif
