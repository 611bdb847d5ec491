/*
 * prompt.h - what people write around words: weights, escapes, embeddings, tags.
 *
 * Place    before tokens; one parse serves all encoders of a model.
 * Owner    prompt_init / prompt_release around the caller's struct (an arena inside).
 * Failure  ERR_NO_MEMORY, ERR_INVALID for more than 64 KiB. Odd brackets are text, never an error.
 * Source   comfyanonymous/ComfyUI comfy/sd1_clip.py (the Horde's worker): `(x)` times 1.1, `(x:w)`
 *          sets w, the last colon counts, `\(` `\)` literal, `embedding:NAME`.
 *          With PROMPT_LOCAL also what expert interfaces write: `[x]` divides by 1.1, BREAK starts
 * a new chunk, `<lora:NAME:0.8>` asks for an adapter (taken out of the text and reported).
 */
#ifndef TEXT_PROMPT_H
#define TEXT_PROMPT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"

enum prompt_rules { PROMPT_HORDE, PROMPT_LOCAL };

enum span_kind { SPAN_TEXT, SPAN_EMBEDDING, SPAN_BREAK };

struct span {
    enum span_kind kind;
    const char *text; /* the words, or the embedding's name */
    float weight;
};

struct prompt_lora {
    const char *name;
    double model_strength, clip_strength;
};

struct prompt {
    struct span *spans;
    int span_count;
    struct prompt_lora *loras; /* of <lora:...> */
    int lora_count;
    bool plain_names; /* an embedding's name alone asks for it too (PROMPT_LOCAL) */
    struct arena arena;
};

int prompt_parse(struct prompt *p, const char *text, enum prompt_rules rules, struct error *err);
void prompt_release(struct prompt *p);

/* "positive ### negative" -> two strings of the caller (free). Without ### the negative is "". */
void prompt_split(const char *text, char **positive, char **negative);

#endif
