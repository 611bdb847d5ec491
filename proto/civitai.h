/*
 * civitai.h - CivitAI's word on a model's versions: which file, for which family, with which trigger words.
 *
 * Place    bytes that store/adapter fetched -> the version a job's LoRA or embedding means.
 * Owner    civitai_listing_parse / civitai_listing_release around the caller's struct; texts lie in its
 *          arena. Any thread.
 * Failure  ERR_FORMAT for a document that is none, or has no version that could be used; ERR_NOT_FOUND for a
 *          search's list without one. One version that is
 *          not understood is passed over.
 * Source   developer.civitai.com: models/ID (versions, newest first), models?query= (items), and
 *          model-versions/ID (one version with its model inside).
 */
#ifndef PROTO_CIVITAI_H
#define PROTO_CIVITAI_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "proto/terms.h"

#define CIVITAI_VERSIONS_MAX 400 /* over all models of a listing */
#define CIVITAI_WORDS_MAX 32

struct civitai_release { /* one version, with the file that one wants */
    int64_t id, model_id;                /* model_id 0: not said */
    const char *model, *type, *baseline; /* "Ink", "LORA", "SD 1.5" */
    const char *file, *url, *sha256;     /* sha256 NULL: not said */
    int64_t size_bytes;                  /* 0: not said */
    const char **words;                  /* trigger words */
    int word_count;
};

struct civitai_listing {
    struct arena memory;
    struct civitai_release *releases; /* models as they were given, versions newest first */
    int count;
};

int civitai_listing_parse(struct civitai_listing *l, const char *text, size_t length,
                          struct error *err);
void civitai_listing_release(struct civitai_listing *l);

enum civitai_fit { CIVITAI_FITS, CIVITAI_OTHER_FAMILY, CIVITAI_UNSAID };
/* Would weights made for that baseline work in a model of the family? */
enum civitai_fit civitai_fit(const char *baseline, enum family family);

#endif
