/*
 * safety.h - is this picture fit to leave the machine?
 *
 * Place    after decoding and post-processing, before encoding: engine/serve_generate,
 *          serve_alchemy. CLIP gives the picture's similarity to the phrases of a table;
 *          safety_rules.h judges.
 * Owner    safety_open / safety_close. One thread, the device's.
 * Failure  safety_open: ERR_NOT_FOUND, ERR_IO, ERR_FORMAT, ERR_NO_MEMORY, ERR_DEVICE. safety_check
 *          fails closed: on every error the verdict is SAFETY_FAILED.
 * Source   reliability S1 to S5; the network is openai/clip-vit-large-patch14, sizes from the file.
 *
 * Works in F32 whatever the device prefers: thresholds lie 0.005 apart.
 */
#ifndef SAFETY_SAFETY_H
#define SAFETY_SAFETY_H

#include "diffusion/safety/clip_pair.h"
#include "diffusion/safety/safety_rules.h"

struct safety;

/* model_path: a CLIP checkpoint with both sides. vocab_path: a tokenizer's folder, or NULL for the
 * public vocabulary. The phrases are encoded here and a grey picture is looked at: what opens can
 * check. The text side is closed again afterwards. */
int safety_open(struct safety **s, struct device *device, const char *model_path,
                const char *rules_path, const char *vocab_path, struct error *err);
void safety_close(struct safety *s);

/* prompt: as the Horde gave it, `###` before its negative part; NULL: none. 0 with any verdict but
 * SAFETY_FAILED, which may also come with 0. Copies of the pixels are wiped. */
int safety_check(struct safety *s, const struct pixels *p, const char *prompt,
                 enum safety_verdict *verdict, struct error *err);

/* Below safety_check, for tests: the projected vector (not normalised) and the cosines in the order
 * of the table. Each output may be NULL. */
int safety_look(struct safety *s, const struct pixels *p, float *vector, float *similarity,
                struct error *err);
const struct safety_rules *safety_rules(const struct safety *s);
struct clip_pair *safety_pair(struct safety *s); /* borrowed; for alchemy/interrogator */
int safety_width(const struct safety *s);        /* of the vector */

#endif
