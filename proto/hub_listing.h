/*
 * hub_listing.h - Hugging Face's answer to a search: repositories and the weights that lie in them.
 *
 * Place    bytes that cli/market fetched -> `kiln models search --from huggingface`.
 * Owner    hub_listing_parse / hub_listing_release around the caller's struct; texts lie in its arena.
 * Failure  ERR_FORMAT for a document that is no list. A repository that is not understood is passed over.
 * Source   huggingface.co/docs/hub/api: GET /api/models?search=&full=true.
 */
#ifndef PROTO_HUB_LISTING_H
#define PROTO_HUB_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define HUB_REPOSITORIES_MAX 100
#define HUB_FILES_MAX 8 /* of one repository; the rest is not listed */

struct hub_repository {
    const char *id;                   /* "ORG/REPO" */
    const char *files[HUB_FILES_MAX]; /* .safetensors, .ckpt, .pt, .pth at its top */
    int file_count;
    int64_t downloads;
    bool gated; /* its owner wants to be asked first */
};

struct hub_listing {
    struct arena memory;
    struct hub_repository *list;
    int count;
};

int hub_listing_parse(struct hub_listing *l, const char *text, size_t length, struct error *err);
void hub_listing_release(struct hub_listing *l);

#endif
