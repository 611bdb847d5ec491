/*
 * reference.h - the Horde's lists of models, kept on disk and asked for again when they are old.
 *
 * Place    store/source looks names up; `kiln models search` shows them; verify takes hashes from
 *          them.
 * Owner    reference_open / reference_close around the caller's struct; one thread.
 * Failure  ERR_NETWORK, ERR_FORMAT ... only when there is no copy on disk either; with a copy the
 *          trouble goes to `stale` and the copy is used.
 * Source   horde-api 20.1: legacy files on the main branch of
 *          Haidra-Org/AI-Horde-image-model-reference. A new copy replaces the old one only when it
 *          parses.
 */
#ifndef STORE_REFERENCE_H
#define STORE_REFERENCE_H

#include "proto/model_reference.h"
#include "store/fetch.h"
#include "store/store.h"

enum reference_list { REFERENCE_MODELS, REFERENCE_POST, REFERENCE_CONTROLNET, REFERENCE_COUNT };

struct reference {
    struct model_reference lists[REFERENCE_COUNT]; /* count 0: not at hand */
    int64_t fetched_ms[REFERENCE_COUNT];
    struct error stale; /* why a copy is older than it should be; code 0 otherwise */
};

/* client NULL: what is on disk, whatever its age. */
int reference_open(struct reference *r, const struct store *s, struct fetch_client *client,
                   struct error *err);
void reference_close(struct reference *r);

enum store_kind reference_kind(enum reference_list list);
/* "Deliberate" -> Deliberate; "control_canny" -> canny, which is what the file is called here */
const char *reference_file_name(enum reference_list list, const struct reference_model *m);
/* By the Horde's name, the name here, or either without regard to case; kind narrows when below
 * STORE_KIND_COUNT. NULL: none. */
const struct reference_model *reference_find(const struct reference *r, const char *name,
                                             enum store_kind kind, enum reference_list *list);
/* The hash a file of the store must have, by its name there; NULL when nobody says. */
const char *reference_sha256(const struct reference *r, const struct store_entry *entry);
/* The nearest name, or NULL. */
const char *reference_nearest(const struct reference *r, const char *name);

#endif
