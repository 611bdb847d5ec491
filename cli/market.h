/*
 * market.h - models that CivitAI and Hugging Face publish, asked for by a word.
 *
 * Place    `kiln models search --from`; what it prints is what `kiln models get` takes.
 * Owner    borrows the client of store/fetch, whose rules (hosts, tokens in headers only) hold.
 * Failure  fetch_document's; ERR_FORMAT; ERR_NOT_FOUND when nothing fits.
 * Source   developer.civitai.com (models?query=), huggingface.co/docs/hub/api (models?search=).
 */
#ifndef CLI_MARKET_H
#define CLI_MARKET_H

#include "store/fetch.h"
#include "store/store.h"

#define MARKET_LIMIT_MAX 100 /* what both give at once */

enum market { MARKET_HORDE, MARKET_CIVITAI, MARKET_HUGGINGFACE };

bool market_find(const char *name, enum market *m);
/* kind STORE_KIND_COUNT: any; limit 1 to MARKET_LIMIT_MAX. Prints a table, or JSON. */
int market_search(struct fetch_client *c, enum market m, const char *word, enum store_kind kind,
                  int limit, bool json, struct error *err);

#endif
