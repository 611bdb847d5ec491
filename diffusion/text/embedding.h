/*
 * embedding.h - textual inversion: vectors that stand for a word.
 *
 * Place    read by the pipeline from request.embeddings, used by chunks.h where a prompt names
 *          them.
 * Owner    embedding_open / embedding_release around the caller's struct.
 * Failure  ERR_NOT_FOUND, ERR_FORMAT, ERR_INVALID with the file and the widths it has.
 * Source   model-formats: emb_params [n,d]; {"<token>": [d] or [n,d]}; clip_l + clip_g for SDXL.
 */
#ifndef TEXT_EMBEDDING_H
#define TEXT_EMBEDDING_H

#include <stdint.h>

#include "base/error.h"
#include "tensor/safetensors.h"

#define EMBEDDING_PARTS_MAX 2

struct embedding_part {
    int width;     /* 768 CLIP-L, 1024 OpenCLIP-H, 1280 bigG */
    int count;     /* vectors */
    float *vector; /* [count,width] */
};

struct embedding {
    char *name; /* the word in the prompt, without "embedding:" */
    struct embedding_part part[EMBEDDING_PARTS_MAX];
    int parts;
    double strength; /* multiplies the weight of its tokens */
};

/* name NULL: the file's stem. */
int embedding_open(struct embedding *e, const char *path, const char *name, struct error *err);
/* The same from entries already read (a pickle's tensors take this way). */
int embedding_from_entries(struct embedding *e, const char *name,
                           const struct safetensors_entry *entries, size_t count,
                           struct error *err);
void embedding_release(struct embedding *e);
/* The part of this width; NULL if the file was made for another encoder. */
const struct embedding_part *embedding_for_width(const struct embedding *e, int width);

#endif
