/*
 * alloc.h - heap memory that does not come back empty-handed.
 *
 * Place    every program, for small bookkeeping memory whose loss nobody could handle better than
 *          by ending the process. Sizes that come from a file, a user or the network use
 *          alloc_try and report ERR_NO_MEMORY.
 * Owner    the caller frees with free(). Any thread.
 * Failure  alloc_* abort with a sentence; alloc_try* return NULL.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *alloc_zero(size_t count, size_t size);            /* calloc */
void *alloc_grow(void *old, size_t count, size_t size); /* reallocarray */
char *alloc_string(const char *text);                   /* strdup; NULL gives NULL */
char *alloc_string_n(const char *text, size_t length);  /* strndup */
char *alloc_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

void *alloc_try(size_t count, size_t size);              /* calloc; NULL when there is none */
void *alloc_try_aligned(size_t alignment, size_t bytes); /* free with free() */

/* c = a * b and c = a + b; false on overflow. */
static inline bool size_mul(size_t a, size_t b, size_t *c)
{
    return !__builtin_mul_overflow(a, b, c);
}
static inline bool size_add(size_t a, size_t b, size_t *c)
{
    return !__builtin_add_overflow(a, b, c);
}

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
