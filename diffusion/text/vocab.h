/*
 * vocab.h - the CLIP byte-pair vocabulary: symbols, merges, ids.
 *
 * Place    below tokens.h. One per process and source, shared by all encoders (they differ in
 *          padding only).
 * Owner    vocab_open_* / vocab_close; read-only afterwards, any thread.
 * Failure  ERR_NOT_FOUND, ERR_IO, ERR_FORMAT with the file and what is wrong in it.
 * Source   openai/CLIP simple_tokenizer; the two files of a Hugging Face tokenizer folder.
 */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct vocab;

/* DIR/vocab.json + DIR/merges.txt, or DIR/tokenizer.json; any size, the pocket model's included. */
int vocab_open_folder(struct vocab **v, const char *folder, struct error *err);
/* bpe_simple_vocab_16e6.txt.gz (or the text itself): 49,408 entries. */
int vocab_open_merges(struct vocab **v, const char *path, struct error *err);
/* From memory: the two files' bytes. */
int vocab_parse(struct vocab **v, const char *json, size_t json_bytes, const char *merges,
                size_t merges_bytes, struct error *err);
/* From a tokenizer.json. */
int vocab_parse_tokenizer(struct vocab **v, const char *json, size_t bytes, struct error *err);
/* The public CLIP vocabulary wherever it was put: $KILN_VOCAB (file or folder), the data folders
 * ($STATE_DIRECTORY, $XDG_DATA_HOME/kiln, ~/.local/share/kiln), then the installed data. The
 * sentence of ERR_NOT_FOUND says how to get it. */
int vocab_open_default(struct vocab **v, struct error *err);
void vocab_close(struct vocab *v);

int32_t vocab_count(const struct vocab *v);
int32_t vocab_start(const struct vocab *v); /* <|startoftext|>, 49406 */
int32_t vocab_end(const struct vocab *v);   /* <|endoftext|>, 49407 */

/* Id of a symbol; -1 when there is none. */
int32_t vocab_find(const struct vocab *v, const char *symbol, size_t length);
/* Rank of joining two symbols and the id of the result; -1 when they do not join. */
int32_t vocab_merge(const struct vocab *v, int32_t left, int32_t right, int32_t *joined);
/* Id of one byte, with or without the end-of-word mark; -1 if a small vocabulary lacks it. */
int32_t vocab_byte(const struct vocab *v, uint8_t byte, bool last);
/* The symbol of an id (UTF-8, byte alphabet), borrowed; NULL outside the range. */
const char *vocab_symbol(const struct vocab *v, int32_t id);

#endif
