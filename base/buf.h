/*
 * buf.h - a growable byte buffer with a hard limit.
 *
 * Place    whatever arrives from or goes to a socket, pipe, file or URL.
 * Owner    init/release around the caller's struct; data is NUL-terminated after every append.
 * Failure  ERR_NO_MEMORY past `limit` or when the heap is empty; the content stays as it was.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct buf {
    uint8_t *data; /* NULL while empty */
    size_t length;
    size_t capacity;
    size_t limit;
};

void buf_init(struct buf *b, size_t limit_bytes);
void buf_release(struct buf *b);
void buf_clear(struct buf *b);
int buf_append(struct buf *b, const void *data, size_t length, struct error *err);
int buf_append_string(struct buf *b, const char *text, struct error *err);
int buf_printf(struct buf *b, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Room for `length` more bytes; returns where to write, or NULL. buf_commit makes them count. */
uint8_t *buf_reserve(struct buf *b, size_t length, struct error *err);
void buf_commit(struct buf *b, size_t length);
void buf_consume(struct buf *b, size_t length);  /* drops bytes from the front */
void buf_truncate(struct buf *b, size_t length); /* keeps the first `length` bytes */
/* Moves the bytes to the caller (free with free()); b is empty afterwards. Never NULL. */
uint8_t *buf_take(struct buf *b, size_t *length);

/* Whole file into b. ERR_NOT_FOUND, ERR_IO, ERR_NO_MEMORY (larger than the limit). */
int buf_read_file(struct buf *b, const char *path, struct error *err);
/* Temporary file beside path, fsync, rename: a reader sees all or nothing. */
int buf_write_file(const struct buf *b, const char *path, unsigned mode, struct error *err);

/* All bytes to a descriptor, however the system cuts them. 0, or -1 with errno. */
int write_fully(int fd, const void *data, size_t length);

#endif
