/*
 * models_run.h - one call of `kiln models VERB`: its options, the store, the Horde's lists.
 *
 * Place    cmd_models.c makes it; the verbs in models_search.c and models_shelf.c work on it.
 * Owner    cmd_models.c opens and closes what is in it.
 * Failure  verbs: as store, network and lists fail, with a sentence.
 */
#ifndef CLI_MODELS_RUN_H
#define CLI_MODELS_RUN_H

#include "cli/market.h"
#include "cli/progress.h"
#include "config/config.h"
#include "config/folders.h"
#include "store/reference.h"
#include "store/source.h"

#define MB INT64_C(1000000)

struct models_run {
    const char *config_path;
    struct source_options source;
    int64_t limit, tries, max_mb, floor_mb, quota_mb, ranges; /* -1: not said */
    bool json, quiet, offline, again;
    enum market from;
    char *word; /* NULL: none */
    struct config config;
    struct folders folders;
    struct store store;
    struct fetch_client client;
    struct reference reference;
    struct progress progress;
};

int models_open_reference(struct models_run *m, struct error *err);
void models_progress(void *context, int64_t done, int64_t total); /* context: the run */

int models_search(struct models_run *m, struct error *err);
int models_list(struct models_run *m, struct error *err);
int models_rm(struct models_run *m, struct error *err);
int models_verify(struct models_run *m, struct error *err);

#endif
