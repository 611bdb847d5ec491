/*
 * tuner.h - what measurements on this card have shown: for a product's shape the fastest way to do it.
 *
 * Place    cuda_tune.c asks and adds; the file lies in the cache folder and holds for one card, one
 *          driver and one set of kernel sources.
 * Owner    a cuda device; tuner_open / tuner_close. One thread.
 * Failure  a file that is missing, of another card or damaged is as none: tuner_open tells why in a
 *          sentence and starts empty. tuner_save: ERR_IO.
 *
 * The file is text: a head, one line a shape, and a last line with their number and a check sum.
 * It is bounded in bytes and lines, every number in range, written beside and renamed.
 */
#ifndef KERNELS_CUDA_TUNER_H
#define KERNELS_CUDA_TUNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define TUNER_SHAPES_MAX 2048

struct tuner_identity {
    char card[96];    /* "NVIDIA GeForce RTX 3060, sm_86" */
    int driver;       /* 13000 */
    uint64_t kernels; /* hash of the kernel sources */
};

/* All that tells one product from another for its speed. */
struct tuner_key {
    int32_t m, n, k, c, taps;
    uint32_t form; /* bits of cuda_tune.c */
};

enum tuner_kind { TUNER_OWN, TUNER_CUBLASLT, TUNER_CUDNN, TUNER_KIND_COUNT };

struct tuner_choice {
    enum tuner_kind kind;
    int tile, splits; /* of own kernels */
};

struct tuner;

/* path NULL: nothing is read or written. why: "" or what was wrong with the file. */
struct tuner *tuner_open(const struct tuner_identity *id, const char *path, struct error *why);
void tuner_close(struct tuner *t);
const struct tuner_choice *tuner_find(const struct tuner *t, const struct tuner_key *key);
/* Dropped in silence when the table is full. */
void tuner_add(struct tuner *t, const struct tuner_key *key, struct tuner_choice choice);
/* Writes what is new; nothing to do is 0. */
int tuner_save(struct tuner *t, struct error *err);
int tuner_count(const struct tuner *t);

#endif
