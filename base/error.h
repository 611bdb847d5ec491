/*
 * error.h - the one error convention of the tree.
 *
 * Place    every function that can fail because the world is wrong returns 0 or a negative
 *          ERR_* and, when its last argument `err` is not NULL, leaves one sentence there that
 *          names the object. On failure outputs are untouched and there is nothing to free.
 * Owner    `struct error` is the caller's, usually on the stack. Any thread.
 * Failure  cannot fail.
 *
 * The code tells the caller what to do next:
 *   fault the job       ERR_INVALID ERR_FORMAT ERR_NOT_FOUND ERR_UNSUPPORTED
 *   back off            ERR_NETWORK ERR_BUSY
 *   tell the operator   ERR_REFUSED ERR_IO
 *   make room           ERR_NO_MEMORY
 *   replace the engine  ERR_DEVICE
 *   nothing             ERR_CANCELED
 *   blush               ERR_INTERNAL
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

#define ERROR_TABLE(X)                                                                             \
    X(INVALID, -1, "invalid", "an argument or option is out of its range")                         \
    X(FORMAT, -2, "format", "bytes do not have the form they claim")                               \
    X(NOT_FOUND, -3, "not found", "a named thing does not exist")                                  \
    X(UNSUPPORTED, -4, "unsupported", "understood, but this build or device cannot do it")         \
    X(NETWORK, -5, "network", "the other side could not be reached or broke off")                  \
    X(BUSY, -6, "busy", "try again later")                                                         \
    X(REFUSED, -7, "refused", "the other side said no; only the operator can change that")         \
    X(IO, -8, "input/output", "a file or disk operation failed")                                   \
    X(NO_MEMORY, -9, "out of memory", "make room and try again")                                   \
    X(DEVICE, -10, "device", "the compute device failed; its process must be replaced")            \
    X(CANCELED, -11, "canceled", "stopped on request")                                             \
    X(INTERNAL, -12, "internal", "a bug in Kiln")

enum error_code {
#define X(name, value, word, text) ERR_##name = value,
    ERROR_TABLE(X)
#undef X
};

#define ERROR_TEXT_BYTES 512

struct error {
    int code; /* 0 or ERR_* */
    char text[ERROR_TEXT_BYTES];
};

/* Sets code and sentence; returns `code` so that it can be returned at once. err may be NULL. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int error_set_va(struct error *err, int code, const char *format, va_list args);

/* As error_set, with ": " and strerror(errno_value) at the end. */
int error_set_errno(struct error *err, int code, int errno_value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the sentence already there. Returns `code`. */
int error_wrap(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "not found", for logs and JSON; "ok" for 0. */
const char *error_word(int code);

/* The program is wrong (never a file, user, network or card): says where and aborts. */
#define KILN_ASSERT(condition, ...)                                                                \
    do {                                                                                           \
        if (!(condition)) error_assert_failed(__FILE__, __LINE__, #condition, " " __VA_ARGS__);    \
    } while (0)

void error_assert_failed(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#endif
