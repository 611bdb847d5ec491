/*
 * str.h - small, bounded work on text.
 *
 * Place    parsers, options, messages to people.
 * Owner    the caller's memory. Any thread.
 * Failure  parse_* return false and leave the output alone; the others cannot fail.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_equal(const char *a, const char *b);        /* NULL equals NULL only */
bool str_equal_nocase(const char *a, const char *b); /* ASCII */
bool str_starts(const char *text, const char *prefix);
bool str_ends(const char *text, const char *suffix);

/* Whole text must be the number. */
bool str_parse_i64(const char *text, int64_t *value);
bool str_parse_u64(const char *text, uint64_t *value);
bool str_parse_f64(const char *text, double *value); /* finite only */

/* Copies with a NUL, cutting at a whole UTF-8 character; returns the bytes written without NUL. */
size_t str_copy(char *to, size_t room, const char *from);

/* What a stranger sent, fit to be shown: control, ANSI and bidi characters dropped, invalid UTF-8
 * replaced by '?', cut to `room` (reliability N6). */
size_t str_clean(char *to, size_t room, const char *from);

/* The file's name without folder and extension; the caller frees. */
char *str_stem(const char *path);

bool str_is_utf8(const char *text, size_t length);

/* Levenshtein distance, for "did you mean". Texts longer than 64 bytes count as far away. */
size_t str_distance(const char *a, const char *b);
/* The nearest of `names` (NULL-terminated) within a third of its length, or NULL. */
const char *str_nearest(const char *word, const char *const *names);

#endif
