/*
 * note.h - a few lines "key value" that lie beside a file and say where it came from.
 *
 * Place    store/ keeps one for each file it fetched, for an unfinished download, for a cached
 *          document and for an address that said no.
 * Owner    note_init / note_release around the caller's struct. One thread.
 * Failure  ERR_IO. A note that is missing, too large or not text reads as an empty one; written, it
 *          is there whole or not at all.
 */
#ifndef STORE_NOTE_H
#define STORE_NOTE_H

#include <stdint.h>

#include "base/error.h"

#define NOTE_LINES_MAX 16
#define NOTE_BYTES_MAX 16384

struct note {
    char *keys[NOTE_LINES_MAX], *values[NOTE_LINES_MAX];
    int count;
};

void note_init(struct note *n);
void note_release(struct note *n);

/* "" when it is not there */
const char *note_get(const struct note *n, const char *key);
int64_t note_get_i64(const struct note *n, const char *key);
/* Line ends in a value become spaces; NULL counts as "". */
void note_set(struct note *n, const char *key, const char *value);
void note_set_i64(struct note *n, const char *key, int64_t value);

/* name lies in the open folder */
void note_read(struct note *n, int folder, const char *name);
int note_write(const struct note *n, int folder, const char *name, struct error *err);

#endif
