/*
 * clip_pair.h - CLIP with both sides: what pictures and phrases become, so that they can be compared.
 *
 * Place    safety.c (phrases of a table) and alchemy/interrogator.c (lists of words). The picture side
 *          stays open; the text side is open only while phrases are read, since they rarely change.
 * Owner    clip_pair_open / clip_pair_close. One thread, the device's.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_NO_MEMORY, ERR_DEVICE; ERR_INTERNAL when a picture's
 *          numbers are not finite.
 * Source   Radford et al. 2021; openai/clip-vit-large-patch14, sizes from the file.
 *
 * Works in F32 whatever the device prefers: thresholds and ranks lie close together.
 */
#ifndef SAFETY_CLIP_PAIR_H
#define SAFETY_CLIP_PAIR_H

#include "diffusion/text/vocab.h"
#include "image/pixels.h"
#include "kernels/device.h"

struct clip_pair;

int clip_pair_open(struct clip_pair **c, struct device *device, const char *model_path,
                   struct error *err);
void clip_pair_close(struct clip_pair *c);
int clip_pair_width(const struct clip_pair *c); /* of a vector */
const char *clip_pair_path(const struct clip_pair *c);
/* Differs where the text side's last matrix does: good for telling whether vectors are still true. */
uint64_t clip_pair_mark(const struct clip_pair *c);

/* vector [width], not normalised; or NULL: is it finite? Copies of the pixels are wiped. */
int clip_pair_look(struct clip_pair *c, float *vector, const struct pixels *p, struct error *err);

/* The vocabulary is borrowed until clip_pair_end_reading. */
int clip_pair_begin_reading(struct clip_pair *c, const struct vocab *vocab, struct error *err);
void clip_pair_end_reading(struct clip_pair *c);
#define CLIP_PAIR_BATCH                                                                            \
    16 /* phrases of one pass: enough to fill the cores, little enough for any device */
/* to [count, width], each of length 1; count up to CLIP_PAIR_BATCH. A phrase that is too long loses its end. On
 * ERR_FORMAT *without, when not NULL, is the index of the phrase that has no direction. */
int clip_pair_read(struct clip_pair *c, float *to, const char *const *phrase, int count,
                   int *without, struct error *err);

/* Length 1, computed in double; false when there is no length. */
bool clip_pair_normalise(float *v, int width);

#endif
