/*
 * verdict.h - the safety check as a job sees it.
 *
 * Place    between the last network that touches a picture and its encoder.
 * Owner    the engine's thread.
 * Failure  closed: no model, no memory, no finite numbers and every error are
 *          ENGINE_VERDICT_FAILED, after one more try (reliability S2). Only ERR_DEVICE is returned:
 *          the engine must be replaced.
 */
#ifndef ENGINE_VERDICT_H
#define ENGINE_VERDICT_H

#include "engine/engine.h"

/* model: a path, NULL or "auto" (CACHE/safety/model.safetensors), "none". The table is safety.tsv beside the
 * model or among the program's data; a tokenizer/ beside the model is used. cache may be NULL. */
void verdict_open(struct engine *e, const char *model, const char *cache);

/* Sets image->verdict and image->censored; overwrites what must not leave: CSAM and what could not be
 * checked always, NSFW when asked. */
int verdict_apply(struct engine *e, struct pixels *p, const struct image_request *request,
                  bool censor_nsfw, struct engine_image *image, struct error *err);
/* Only looks. request NULL: no prompt. */
int verdict_find(struct engine *e, const struct pixels *p, const struct image_request *request,
                 enum safety_verdict *verdict, struct error *err);

#endif
