/*
 * reader.h - taking JSON apart, with a sentence when it is not what it should be.
 *
 * Place    inside proto/ only: jansson's values go no further.
 * Owner    reader_open / reader_close. What reader_text returns lives in the arena given.
 * Failure  sticky: after the first error every getter returns its default; reader_close tells.
 *
 * A member that is absent or null takes the default; one of another type, or out of its range, is an
 * error that names it. Unknown members are never looked at.
 */
#ifndef PROTO_READER_H
#define PROTO_READER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct reader {
    const char *what; /* "the pop reply" */
    json_t *root;
    struct error *err;
    int rc;
};

#define READER_MEMORY_MAX (96u << 20) /* arena limit for one document */

/* Scans, parses, rejects duplicate members. The root must be an object or an array. */
int reader_open(struct reader *r, const char *what, const char *text, size_t length,
                struct error *err);
/* Frees; returns the first error or 0. */
int reader_close(struct reader *r);

/* Sets the first error. */
void reader_fail(struct reader *r, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* NULL when absent, null or of another type (the last is an error). */
json_t *reader_object(struct reader *r, const json_t *o, const char *key);
json_t *reader_array(struct reader *r, const json_t *o, const char *key, size_t max);

bool reader_bool(struct reader *r, const json_t *o, const char *key, bool fallback);
int64_t reader_i64(struct reader *r, const json_t *o, const char *key, int64_t least, int64_t most,
                   int64_t fallback);
int reader_int(struct reader *r, const json_t *o, const char *key, int least, int most,
               int fallback);
double reader_f64(struct reader *r, const json_t *o, const char *key, double least, double most,
                  double fallback);
/* In the arena; NULL when absent. */
const char *reader_text(struct reader *r, const json_t *o, const char *key, size_t max_bytes,
                        struct arena *memory);
/* Into a fixed array; "" when absent. */
void reader_chars(struct reader *r, const json_t *o, const char *key, char *to, size_t room);
/* An array of texts; NULL and *count 0 when absent. */
const char **reader_texts(struct reader *r, const json_t *o, const char *key, size_t max,
                          size_t max_bytes, struct arena *memory, int *count);
/* One JSON text, for a member of an array. */
const char *reader_value_text(struct reader *r, const json_t *v, const char *key, size_t max_bytes,
                              struct arena *memory);
void *reader_memory(struct reader *r, struct arena *memory, size_t count, size_t size);

#endif
