/*
 * conditioning.h - prompt in, context and pooled vector out.
 *
 * Place    the last step of text/, before the sampler; the UNet reads context [rows, width].
 * Owner    conditioning_release; host floats of the caller's struct.
 * Failure  those of prompt, chunks and the pass.
 * Source   ComfyUI: each chunk is encoded by itself; z' = z_empty + w (z - z_empty) at each token
 *          whose weight is not 1; pooled comes from the first chunk and is not weighted.
 */
#ifndef TEXT_CONDITIONING_H
#define TEXT_CONDITIONING_H

#include "diffusion/text/chunks.h"
#include "proto/terms.h"
#include "tensor/pass.h"

struct clip_text;

struct conditioning {
    float *context; /* [rows, width], rows = 77 x chunks */
    int rows, width;
    float *pooled; /* [pooled_width]; NULL where the family has none */
    int pooled_width;
    int unknown_embeddings; /* words `embedding:NAME` that nothing was found for */
    char unknown[64];
};

/* The text side of a model: one encoder (SD1, SD2, refiner) or two (SDXL: CLIP-L, then bigG). */
struct text_side {
    enum family family;
    struct clip_text *encoder[2];
    int encoders;
    const struct vocab *vocab;
};

struct text_request {
    const char *prompt;
    enum prompt_rules rules;
    int clip_skip; /* 0: the family's own; 1 last layer, 2 penultimate (Horde meaning) */
    const struct embedding *embeddings;
    int embedding_count;
};

/* One pass per encoder over `memory`; activations in `dtype` (text is small: F32 costs little). */
int conditioning_encode(struct conditioning *c, const struct text_side *side,
                        const struct text_request *request, struct pass_memory *memory,
                        enum dtype dtype, struct error *err);
void conditioning_release(struct conditioning *c);

/* How encoder i is asked when nothing else is said (layer, norm, pooled) and what pads its ids: for
 * training, which runs the encoders under a tape. in->id, in->n are the caller's to set. */
struct clip_input;
void conditioning_input(struct clip_input *in, const struct text_side *side, int i);
int32_t conditioning_pad(const struct text_side *side, int i);

/* Repeats rows so that both contexts have the same count (attention over exact repeats does not
 * change), for one UNet call over positive and negative together. Where that would take more than
 * 64 chunks the shorter is repeated to the longer's length, its first chunks once more than the rest. */
int conditioning_match(struct conditioning *a, struct conditioning *b, struct error *err);

#endif
