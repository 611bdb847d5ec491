#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int error_set_va(struct error *err, int code, const char *format, va_list args)
{
    if (!err) return code;
    err->code = code;
    vsnprintf(err->text, sizeof err->text, format, args);
    return code;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_set_va(err, code, format, args);
    va_end(args);
    return code;
}

int error_set_errno(struct error *err, int code, int errno_value, const char *format, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, format);
    error_set_va(err, code, format, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(errno_value));
    return code;
}

int error_wrap(struct error *err, int code, const char *format, ...)
{
    if (!err) return code;
    char inner[ERROR_TEXT_BYTES];
    memcpy(inner, err->text, sizeof inner);
    va_list args;
    va_start(args, format);
    error_set_va(err, code, format, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", inner);
    return code;
}

const char *error_word(int code)
{
    switch (code) {
    case 0: return "ok";
#define X(name, value, word, text)                                                                 \
    case value: return word;
        ERROR_TABLE(X)
#undef X
    default: return "unknown";
    }
}

void error_assert_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    fprintf(stderr, "%s:%d: assertion failed: %s ", file, line, condition);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}
