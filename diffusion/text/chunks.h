/*
 * chunks.h - a prompt cut into groups of 75 tokens, framed to 77.
 *
 * Place    between prompt/tokens and the encoder.
 * Owner    chunks_build / chunks_release around the caller's struct.
 * Failure  ERR_NO_MEMORY; ERR_INVALID for an embedding of another width, naming both widths.
 * Source   ComfyUI comfy/sd1_clip.py: a word that would be cut moves to the next chunk unless it
 *          has 8 tokens or more; the gap is padding.
 */
#ifndef TEXT_CHUNKS_H
#define TEXT_CHUNKS_H

#include "diffusion/text/embedding.h"
#include "diffusion/text/prompt.h"
#include "diffusion/text/tokens.h"

#define CHUNK_TOKENS 77

struct chunks {
    int count;            /* at least 1 */
    int32_t *id;          /* [count * 77] */
    float *weight;        /* [count * 77], 1 for frame and padding */
    const float **vector; /* [count * 77], NULL or the embedding's vector at this place, borrowed */
    bool weighted;        /* any weight that is not 1 */
    bool has_vectors;
    int unknown_embeddings; /* names that were dropped */
    char unknown[64];       /* the first of them, cleaned */
};

int chunks_build(struct chunks *c, const struct prompt *p, const struct vocab *v, int32_t pad_id,
                 int width, const struct embedding *embeddings, int embedding_count,
                 struct error *err);
void chunks_release(struct chunks *c);

#endif
