/*
 * store.h - the files that models are made of: where they lie, what is known about each.
 *
 * Place    `kiln models`; kilnd asks store_state_of before it offers a file to strangers.
 * Owner    store_open / store_close; one thread. Several programs may use one folder: a download
 *          holds a lock on its unfinished file, everything else is a rename.
 * Failure  ERR_INVALID for a name that could leave the folder; ERR_NOT_FOUND, ERR_IO.
 * Source   reliability F5, E5. Folders are where the programs look: daemon/offer, daemon/prepare,
 *          engine/post.
 *
 *     CACHE/models/NAME.safetensors|.ckpt   .NAME.safetensors.note   what is known (note.h)
 *     CACHE/post/NAME.pth                   .NAME.safetensors.part   unfinished
 *     CACHE/controlnet/TYPE.safetensors     NAME.safetensors.bad     did not pass `verify`
 *     CACHE/loras/  CACHE/embeddings/       CACHE/caption/  CACHE/words/  CACHE/safety/
 *     CACHE/reference/                      the Horde's lists; CACHE/refusals/ addresses that said no
 *
 * The folders below CACHE are opened without following links: nothing is written outside.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define STORE_NAME_BYTES_MAX 160 /* with ".", an extension and ".part.note.new" below 255 */

/* name on disk, then the extensions that the programs open there */
#define STORE_KINDS(X)                                                                             \
    X(MODEL, "models", "safetensors", "ckpt", NULL)                                                \
    X(POST, "post", "safetensors", "pth", "onnx")                                                  \
    X(CONTROLNET, "controlnet", "safetensors", NULL, NULL)                                         \
    X(LORA, "loras", "safetensors", "pt", NULL)                                                    \
    X(EMBEDDING, "embeddings", "safetensors", "pt", NULL)                                          \
    X(LAYERED, "layered", "safetensors", NULL, NULL)                                               \
    X(CAPTION, "caption", "safetensors", "pth", "txt")                                             \
    X(WORDS, "words", "txt", NULL, NULL)                                                           \
    X(SAFETY, "safety", "safetensors", NULL, NULL)                                                 \
    X(ANNOTATOR, "annotators", "safetensors", "pth", "bin")

enum store_kind {
#define X(name, folder, first, second, third) STORE_##name,
    STORE_KINDS(X)
#undef X
        STORE_KIND_COUNT
};

enum store_state {
    STORE_OWN,        /* put there by its owner; nothing is known, nothing is claimed */
    STORE_UNVERIFIED, /* fetched without a known hash: not for strangers' jobs */
    STORE_VERIFIED,   /* fetched, and its SHA-256 is the expected one */
    STORE_PARTIAL,    /* download cut off; get goes on with it */
    STORE_BAD,        /* its bytes changed: moved aside */
};

struct store {
    char *folder;
    int root;
};

int store_open(struct store *s, const char *cache_folder, struct error *err);
void store_close(struct store *s);

const char *store_kind_name(enum store_kind kind);
bool store_kind_find(const char *name, enum store_kind *kind);
const char *store_state_name(enum store_state state);
/* The extension of `file` as the kind's programs know it, or NULL when they open no such file. */
const char *store_extension(enum store_kind kind, const char *file);

/* Refuses "", "a/b", ".a", control characters, what is no UTF-8 and what is too long. */
int store_check_name(const char *name, struct error *err);
/* Open folder, made when it is not there; below 0 with *err set. Close it. */
int store_folder(const struct store *s, const char *name, struct error *err);

struct store_entry {
    enum store_kind kind;
    enum store_state state;
    char *name; /* without extension */
    char *file; /* as it lies there */
    char *source, *sha256;
    int64_t bytes, checked_ms;
};

struct store_list {
    struct store_entry *entries; /* by kind, then name */
    int count;
};

int store_read_list(struct store_list *list, const struct store *s, struct error *err);
void store_list_release(struct store_list *list);
/* "NAME" or "models/NAME"; ERR_NOT_FOUND with the nearest, ERR_INVALID when several have it. Borrowed. */
int store_find(const struct store_entry **entry, const struct store_list *list, const char *word,
               struct error *err);

/* The file, its note and what is left of downloads. */
int store_remove(const struct store *s, const struct store_entry *entry, struct error *err);
/* Reads it again. known: the hash it must have, or NULL for the noted one. On ERR_FORMAT it has been moved
 * aside to FILE.bad. With no hash at all the state stays; sha256 is what was read. */
int store_verify(const struct store *s, const struct store_entry *entry, const char *known,
                 void (*progress)(void *context, int64_t done, int64_t bytes), void *context,
                 enum store_state *state, char sha256[65], struct error *err);

/* What is known of a file by path; STORE_OWN where there is no note. */
enum store_state store_state_of(const char *path);

/* Bytes in the kind's folder, unfinished ones included. */
int64_t store_used_bytes(const struct store *s, enum store_kind kind);

#endif
