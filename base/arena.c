#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

#define BLOCK_BYTES (16u * 1024)

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    _Alignas(16) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit_bytes)
{
    *a = (struct arena){.limit_bytes = limit_bytes};
}

void arena_release(struct arena *a)
{
    struct arena_block *block = a->blocks;
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
    *a = (struct arena){.limit_bytes = a->limit_bytes};
}

static struct arena_block *block_with_room(struct arena *a, size_t bytes)
{
    struct arena_block *block = a->blocks;
    if (block && block->size - block->used >= bytes) return block;
    size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    block = calloc(1, sizeof *block + size);
    if (!block) return NULL;
    block->size = size;
    block->next = a->blocks;
    a->blocks = block;
    return block;
}

void *arena_try(struct arena *a, size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes == 0) bytes = 16;
    if (a->limit_bytes && a->used_bytes + bytes > a->limit_bytes) return NULL;
    struct arena_block *block = block_with_room(a, bytes);
    if (!block) return NULL;
    void *p = block->data + block->used;
    block->used += bytes;
    a->used_bytes += bytes;
    return p;
}

void *arena_zero(struct arena *a, size_t count, size_t size)
{
    void *p = arena_try(a, count, size);
    KILN_ASSERT(p, "no arena memory for %zu x %zu bytes", count, size);
    return p;
}

char *arena_string_n(struct arena *a, const char *text, size_t length)
{
    char *copy = arena_zero(a, length + 1, 1);
    memcpy(copy, text, length);
    return copy;
}

char *arena_string(struct arena *a, const char *text)
{
    return text ? arena_string_n(a, text, strlen(text)) : NULL;
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    KILN_ASSERT(length >= 0);
    char *text = arena_zero(a, (size_t)length + 1, 1);
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}
