/*
 * refusals.h - addresses that said no, so that they are not asked again at once.
 *
 * Place    store/download, before and after a request.
 * Owner    notes in CACHE/refusals, named by the SHA-256 of the URL. One thread.
 * Failure  cannot fail: what cannot be remembered is asked again.
 */
#ifndef STORE_REFUSALS_H
#define STORE_REFUSALS_H

#include "store/store.h"

#define REFUSAL_WRONG_BYTES 1 /* as a status: its bytes had another hash */

/* ERR_NOT_FOUND or ERR_REFUSED with what was said and when, while it is remembered. */
int refusal_check(const struct store *s, const char *url, struct error *err);
/* 404, 410, 451 and REFUSAL_WRONG_BYTES; others are nothing to remember */
void refusal_remember(const struct store *s, const char *url, int status);
void refusal_forget(const struct store *s, const char *url);

#endif
