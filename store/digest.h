/*
 * digest.h - SHA-256 of bytes that pass by.
 *
 * Place    store/download while it writes, store/verify while it reads.
 * Owner    digest_start / digest_finish around the caller's struct. One thread.
 * Failure  cannot fail: without memory for it the program ends. Source: FIPS 180-4, through
 *          OpenSSL.
 */
#ifndef STORE_DIGEST_H
#define STORE_DIGEST_H

#include <stddef.h>

struct digest {
    void *context; /* OpenSSL's */
};

void digest_start(struct digest *d);
void digest_add(struct digest *d, const void *bytes, size_t length);
/* 64 small hexadecimal digits; frees */
void digest_finish(struct digest *d, char hex[65]);
/* of a text, at once */
void digest_text(const char *text, char hex[65]);

#endif
