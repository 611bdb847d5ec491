/*
 * wordpiece.h - BERT's vocabulary of word pieces: ids of a prompt, text of ids.
 *
 * Place    caption.c, on both sides of search.h.
 * Owner    wordpiece_open / wordpiece_close; read-only between. Any thread.
 * Failure  ERR_NOT_FOUND, ERR_IO; ERR_FORMAT with the file and the line.
 * Source   Devlin et al. 2019; huggingface/transformers BertTokenizer (uncased) and its clean-up of
 *          spaces. The vocabulary is data that comes with a model: vocab.txt, one piece a line, its number
 *          the id. Salesforce/BLIP adds [DEC] and [ENC] behind the last line.
 */
#ifndef ALCHEMY_WORDPIECE_H
#define ALCHEMY_WORDPIECE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct wordpiece;

int wordpiece_open(struct wordpiece **w, const char *path, struct error *err);
int wordpiece_parse(struct wordpiece **w, const char *text, size_t bytes, const char *name,
                    struct error *err);
void wordpiece_close(struct wordpiece *w);

int32_t wordpiece_count(const struct wordpiece *w);
int32_t wordpiece_find(const struct wordpiece *w, const char *piece); /* -1: none */

/* Lower-case ASCII words and signs, longest pieces first; ERR_INVALID for a word that has none. No
 * marks of begin and end are added. Returns at most `room` ids. */
int wordpiece_encode(const struct wordpiece *w, int32_t *id, int *count, int room, const char *text,
                     struct error *err);
/* free() it. Ids outside the vocabulary and marks ([SEP], [PAD], [DEC] ...) are passed over. */
char *wordpiece_decode(const struct wordpiece *w, const int32_t *id, int count);

#endif
