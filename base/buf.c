#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

void buf_init(struct buf *b, size_t limit_bytes)
{
    *b = (struct buf){.limit = limit_bytes};
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.limit = b->limit};
}

void buf_clear(struct buf *b)
{
    b->length = 0;
    if (b->data) b->data[0] = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t length, struct error *err)
{
    size_t need;
    if (!size_add(b->length, length, &need) || need > b->limit) {
        error_set(err, ERR_NO_MEMORY, "%zu bytes are more than the limit of %zu",
                  b->length + length, b->limit);
        return NULL;
    }
    if (need + 1 > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 256;
        while (capacity < need + 1) capacity *= 2;
        uint8_t *data = realloc(b->data, capacity);
        if (!data) {
            error_set(err, ERR_NO_MEMORY, "no memory for a buffer of %zu bytes", capacity);
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->length;
}

void buf_commit(struct buf *b, size_t length)
{
    KILN_ASSERT(b->length + length < b->capacity, "%zu+%zu", b->length, length);
    b->length += length;
    b->data[b->length] = 0;
}

int buf_append(struct buf *b, const void *data, size_t length, struct error *err)
{
    uint8_t *to = buf_reserve(b, length, err);
    if (!to) return ERR_NO_MEMORY;
    if (length) memcpy(to, data, length);
    buf_commit(b, length);
    return 0;
}

int buf_append_string(struct buf *b, const char *text, struct error *err)
{
    return buf_append(b, text, strlen(text), err);
}

int buf_printf(struct buf *b, struct error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    KILN_ASSERT(length >= 0);
    uint8_t *to = buf_reserve(b, (size_t)length, err);
    if (!to) return ERR_NO_MEMORY;
    va_start(args, format);
    vsnprintf((char *)to, (size_t)length + 1, format, args);
    va_end(args);
    buf_commit(b, (size_t)length);
    return 0;
}

void buf_consume(struct buf *b, size_t length)
{
    KILN_ASSERT(length <= b->length);
    memmove(b->data, b->data + length, b->length - length);
    b->length -= length;
    if (b->data) b->data[b->length] = 0;
}

void buf_truncate(struct buf *b, size_t length)
{
    KILN_ASSERT(length <= b->length);
    b->length = length;
    if (b->data) b->data[length] = 0;
}

uint8_t *buf_take(struct buf *b, size_t *length)
{
    uint8_t *data = b->data ? b->data : alloc_zero(1, 1);
    *length = b->length;
    *b = (struct buf){.limit = b->limit};
    return data;
}

static int read_all(struct buf *b, int fd, const char *path, struct error *err)
{
    for (;;) {
        size_t room = b->limit > b->length ? b->limit - b->length : 0;
        size_t chunk = room < 65536 ? room + 1 : 65536;
        uint8_t stack[65537];
        ssize_t got = read(fd, stack, chunk);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return error_set_errno(err, ERR_IO, errno, "reading %s", path);
        if (got == 0) return 0;
        int rc = buf_append(b, stack, (size_t)got, err);
        if (rc) return error_wrap(err, rc, "%s", path);
    }
}

int buf_read_file(struct buf *b, const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "%s", path);
    size_t before = b->length;
    int rc = read_all(b, fd, path, err);
    close(fd);
    if (rc && b->data) {
        b->length = before;
        b->data[before] = 0;
    }
    return rc;
}

int write_fully(int fd, const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t put = write(fd, at, length);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        at += put;
        length -= (size_t)put;
    }
    return 0;
}

static void sync_folder_of(const char *path)
{
    char *folder = alloc_string(path);
    char *slash = strrchr(folder, '/');
    if (slash) *(slash == folder ? slash + 1 : slash) = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

int buf_write_file(const struct buf *b, const char *path, unsigned mode, struct error *err)
{
    char *temporary = alloc_printf("%s.%ld.tmp", path, (long)getpid());
    int rc = 0;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        rc = error_set_errno(err, ERR_IO, errno, "creating %s", temporary);
    } else if (write_fully(fd, b->data, b->length) || fsync(fd)) {
        rc = error_set_errno(err, ERR_IO, errno, "writing %s", path);
        close(fd);
        unlink(temporary);
    } else {
        close(fd);
        if (rename(temporary, path)) {
            rc = error_set_errno(err, ERR_IO, errno, "renaming to %s", path);
            unlink(temporary);
        } else {
            sync_folder_of(path);
        }
    }
    free(temporary);
    return rc;
}
