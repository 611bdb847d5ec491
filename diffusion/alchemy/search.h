/*
 * search.h - which words come next: greedy and beam search over a model's logits.
 *
 * Place    caption.c calls it; the model is a function that continues rows by one token each.
 * Owner    pure but for the callback. One thread.
 * Failure  what the callback returned; ERR_INVALID for bounds that make no sense; ERR_NO_MEMORY.
 * Source   huggingface/transformers, GenerationMixin (greedy and beam search with early_stopping False),
 *          RepetitionPenaltyLogitsProcessor, MinLengthLogitsProcessor. Scores in F32 as there.
 */
#ifndef ALCHEMY_SEARCH_H
#define ALCHEMY_SEARCH_H

#include <stdint.h>

#include "base/error.h"

#define SEARCH_BEAMS_MAX 16
#define SEARCH_LENGTH_MAX 512

struct search_options {
    int beams;                  /* 1: greedy */
    int min_length, max_length; /* in tokens, the prompt counted */
    double repetition_penalty;  /* 1: none */
    double length_penalty;      /* exponent; 1 divides a score by the length */
    int32_t end;                /* the token that ends a text */
};

/* Continues `count` rows: row i takes the past of row parent[i] of the call before, then token[i].
 * logits [count, vocab]. */
typedef int (*search_step)(void *context, float *logits, const int32_t *token, const int *parent,
                           int count, struct error *err);

/* token [SEARCH_LENGTH_MAX] out: the prompt, what was found, and the end when it was reached. The
 * prompt has at least one token and is fed to row 0 one by one. */
int search_run(int32_t *token, int *count, const struct search_options *o, int vocab,
               const int32_t *prompt, int prompt_count, search_step step, void *context,
               struct error *err);

#endif
