/*
 * pocket_vocab.h - a small vocabulary of CLIP's byte-pair form for a small world.
 *
 * Place    made once by `kiln train pocket`, written to tokenizer/ of the model's folder, read by
 *          text/vocab.h like any other.
 * Owner    the caller frees both texts.
 * Failure  cannot fail.
 * Source   Sennrich et al. 2016: the most frequent pair of symbols is joined until every word of
 *          the list is one symbol. All 256 bytes remain, so any other word can be spelled.
 */
#ifndef TRAIN_POCKET_VOCAB_H
#define TRAIN_POCKET_VOCAB_H

struct pocket_vocab {
    char *json;   /* vocab.json */
    char *merges; /* merges.txt */
    int count;    /* entries; the last two are start and end */
};

/* words: small ASCII letters, NULL-terminated. */
void pocket_vocab_make(struct pocket_vocab *v, const char *const *words);
void pocket_vocab_release(struct pocket_vocab *v);

/* The words of the painter's captions. */
extern const char *const pocket_words[];

#endif
