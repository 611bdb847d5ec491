/*
 * arena.h - memory given back in one move.
 *
 * Place    host memory of one request, one message, one parse. Device memory of a pass has its own
 *          arena (tensor/pass.h).
 * Owner    init/release around the caller's struct; one thread at a time.
 * Failure  arena_try returns NULL at the limit or when the heap is empty; arena_zero aborts there.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used_bytes;
    size_t limit_bytes; /* 0: no limit */
};

void arena_init(struct arena *a, size_t limit_bytes);
void arena_release(struct arena *a);

void *arena_try(struct arena *a, size_t count, size_t size); /* zeroed, 16-byte aligned */
void *arena_zero(struct arena *a, size_t count, size_t size);
char *arena_string(struct arena *a, const char *text);
char *arena_string_n(struct arena *a, const char *text, size_t length);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
