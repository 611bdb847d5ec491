/*
 * json_cursor.h - a bounded reader for the small JSON of safetensors headers.
 *
 * Place    tensor/safetensors.c. Reads bytes in place, allocates nothing but unescaped strings.
 * Owner    the caller's struct; strings come from its arena.
 * Failure  sticky: the first error is kept in `err`, later calls return false.
 */
#ifndef TENSOR_JSON_CURSOR_H
#define TENSOR_JSON_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct json_cursor {
    const uint8_t *at, *end;
    struct arena *arena;
    struct error *err; /* may be NULL */
    int failed;        /* 0 or ERR_FORMAT */
};

bool cursor_fail(struct json_cursor *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void cursor_skip_space(struct json_cursor *c);
/* Skips blanks, then takes `wanted` when it is next. */
bool cursor_take(struct json_cursor *c, char wanted);
bool cursor_expect(struct json_cursor *c, char wanted);
/* A string with escapes resolved; NUL inside is refused. At most limit_bytes. */
bool cursor_string(struct json_cursor *c, char **text, size_t limit_bytes);
/* A plain decimal number without sign, fraction or exponent. */
bool cursor_u64(struct json_cursor *c, uint64_t *value);

#endif
