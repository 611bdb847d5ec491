/*
 * source.h - what a person typed -> what is to be fetched, from where, with which hash.
 *
 * Place    `kiln models get`, before store/download.
 * Owner    wanted_release what came out. One thread.
 * Failure  ERR_NOT_FOUND with the nearest name; ERR_INVALID for a URL of an unknown form or an
 *          extension that no program here opens; fetch_run's for CivitAI's answer.
 * Source   horde-api 20; developer.civitai.com; huggingface.co "resolve" URLs. A Horde name is only
 *          ever given to the bytes that the Horde's list means.
 *
 *     Deliberate   control_canny   canny   RealESRGAN_x4plus   GFPGANv1.4 (store/known.h)
 *     https://civitai.com/models/4823/deliberate?modelVersionId=15236
 *     https://civitai.com/api/download/models/15236     civitai:15236
 *     https://huggingface.co/ORG/REPO/resolve/REV/FILE  (or blob)     hf:ORG/REPO/FILE
 *     https://github.com/... and any other file on a listed host
 */
#ifndef STORE_SOURCE_H
#define STORE_SOURCE_H

#include "store/download.h"
#include "store/reference.h"

struct source_options {
    enum store_kind kind; /* STORE_KIND_COUNT: as the place says, else a model */
    const char *name;     /* NULL: as the place says */
    const char *sha256;   /* NULL, or what its owner knows */
};

int source_resolve(struct wanted *w, const char *word, const struct source_options *o,
                   const struct reference *r, struct fetch_client *c, struct error *err);

/* CivitAI's word for what a model is -> the folder it belongs into; false: none here. */
bool source_civitai_kind(const char *type, enum store_kind *kind);

#endif
