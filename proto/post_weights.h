/*
 * post_weights.h - which files in CACHE/post each of the Horde's post-processors needs.
 *
 * Place    engine/post opens them, daemon/offer asks whether strangers may use them, `kiln models`
 *          fetches them. A post-processor is offered when all that it needs is there.
 * Owner    a const table. Any thread. Cannot fail.
 * Source   names of the publishers' files: TencentARC/GFPGAN, sczhou/CodeFormer, xinntao/facexlib,
 *          danielgatis/rembg; NAME of the Horde itself goes everywhere.
 */
#ifndef PROTO_POST_WEIGHTS_H
#define PROTO_POST_WEIGHTS_H

#include <stdbool.h>

enum post_kind { POST_UPSCALER, POST_FIXER, POST_CUTTER }; /* in the order in which they run */

#define POST_PARTS 3
#define POST_FILE_BYTES 96

struct post_weights {
    const char *name; /* the Horde's */
    enum post_kind kind;
    const char *part[POST_PARTS]; /* file names without ending, blanks between; NULL: none */
    bool optional[POST_PARTS];
};

/* NULL: none of ours. */
const struct post_weights *post_weights_find(const char *name);
const struct post_weights *post_weights_at(int index); /* NULL past the end */
/* The i-th name that a file of this part may have; false past the last. */
bool post_weights_file(char file[POST_FILE_BYTES], const struct post_weights *w, int part, int i);

#endif
