#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static void *must(void *p, size_t bytes)
{
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes\n", bytes);
        abort();
    }
    return p;
}

void *alloc_zero(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1), count * size);
}

void *alloc_grow(void *old, size_t count, size_t size)
{
    size_t bytes;
    KILN_ASSERT(size_mul(count, size, &bytes), "%zu x %zu", count, size);
    return must(realloc(old, bytes ? bytes : 1), bytes);
}

char *alloc_string(const char *text)
{
    return text ? must(strdup(text), strlen(text)) : NULL;
}

char *alloc_string_n(const char *text, size_t length)
{
    return must(strndup(text, length), length);
}

char *alloc_printf(const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    return must(length < 0 ? NULL : text, 0);
}

void *alloc_try(size_t count, size_t size)
{
    return calloc(count ? count : 1, size ? size : 1);
}

void *alloc_try_aligned(size_t alignment, size_t bytes)
{
    void *p = NULL;
    return posix_memalign(&p, alignment, bytes ? bytes : 1) ? NULL : p;
}
