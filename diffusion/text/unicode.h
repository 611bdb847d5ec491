/*
 * unicode.h - the little of Unicode that a tokenizer needs.
 *
 * Place    below tokens.h.
 * Owner    pure functions. Any thread.
 * Failure  unicode_nfc returns false when memory is out.
 * Source   Unicode Character Database; UAX #15 for normalization form C.
 */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool unicode_is_letter(uint32_t c); /* \p{L} */
bool unicode_is_number(uint32_t c); /* \p{N} */
bool unicode_is_space(uint32_t c);  /* White_Space */
/* The simple small letter; U+0130 alone has two (its second is U+0307, which the caller adds). */
uint32_t unicode_lower(uint32_t c);

/* Next code point of text; *at moves on by at least one byte. Broken bytes are U+FFFD. */
uint32_t utf8_next(const char *text, size_t length, size_t *at);
size_t utf8_put(char out[4], uint32_t c); /* bytes written */

/* NFC of *c (heap memory of the caller, replaced when it must grow). */
bool unicode_nfc(uint32_t **c, size_t *count);

#endif
