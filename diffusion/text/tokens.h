/*
 * tokens.h - text to token ids, exactly as the CLIP tokenizer.
 *
 * Place    first on the path of a prompt; chunks.h groups its result by 75.
 * Owner    tokens_init / tokens_release around the caller's struct.
 * Failure  ERR_NO_MEMORY; any text has tokens: invalid UTF-8 bytes count as U+FFFD.
 * Source   openai/CLIP simple_tokenizer, without ftfy, as transformers' fast tokenizer: NFC is not
 *          applied, spaces collapse, letters become small, then contractions, letters, digits,
 * rest.
 */
#ifndef TEXT_TOKENS_H
#define TEXT_TOKENS_H

#include "diffusion/text/vocab.h"

struct tokens {
    int32_t *id;
    size_t count, capacity;
    /* words (what stands between spaces): id[word[i] .. word[i+1]); word[words] == count */
    size_t *word;
    size_t words, word_capacity;
};

void tokens_init(struct tokens *t);
void tokens_release(struct tokens *t);
/* Appends the ids of text (no start, no end). */
int tokens_encode(struct tokens *t, const struct vocab *v, const char *text, size_t length,
                  struct error *err);

#endif
