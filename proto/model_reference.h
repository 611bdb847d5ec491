/*
 * model_reference.h - the Horde's lists of models, and CivitAI's word on one version.
 *
 * Place    bytes that store/ fetched -> records that store/source turns into downloads.
 * Owner    parse / release around the caller's struct; texts lie in its arena. Any thread.
 * Failure  ERR_FORMAT for a document that is none. A single record that is not understood is
 *          counted and passed over: the lists are edited by hand, and one slip must not hide 160
 *          models.
 * Source   horde-api 20.1, 20.2 (legacy file: an object keyed by model name); reliability N5.
 *          CivitAI: developer.civitai.com, model versions.
 */
#ifndef PROTO_MODEL_REFERENCE_H
#define PROTO_MODEL_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct reference_model {
    const char *name;     /* what jobs call it */
    const char *baseline; /* "stable diffusion 1"; "" when not said */
    const char *style, *description;
    const char *file;   /* its weights' name there: Deliberate.ckpt */
    const char *url;    /* NULL: nowhere */
    const char *sha256; /* 64 small hexadecimal digits, or NULL */
    int64_t size_bytes; /* 0: not said */
    int parts;          /* files of weights; Kiln reads models of one */
    bool nsfw, inpainting;
};

struct model_reference {
    struct arena memory;
    struct reference_model *list; /* sorted as the file is */
    int count, skipped;
};

/* what: "stable_diffusion.json", for sentences */
int model_reference_parse(struct model_reference *m, const char *what, const char *text,
                          size_t length, struct error *err);
void model_reference_release(struct model_reference *m);

struct civitai_file {
    int64_t id;
    const char *name, *type; /* type "Model" is what one wants */
    const char *url, *sha256;
    bool primary;
};

struct civitai_version {
    struct arena memory;
    int64_t id;
    const char *model, *version; /* two names for people */
    const char *type;            /* Checkpoint LORA TextualInversion Upscaler Controlnet ... */
    const char *baseline;
    struct civitai_file *files;
    int count;
};

int civitai_version_parse(struct civitai_version *v, const char *text, size_t length,
                          struct error *err);
void civitai_version_release(struct civitai_version *v);

/* 64 hexadecimal digits, large or small, into small ones. */
bool sha256_normalise(char to[65], const char *text);

#endif
