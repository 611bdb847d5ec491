/*
 * adapter.h - a LoRA or embedding that a job names, from the cache or from CivitAI.
 *
 * Place    daemon/adapters, for jobs; nothing is asked of CivitAI that the cache can answer.
 * Owner    the caller's structs; adapter_release. adapter_find reads small files and waits for nobody;
 *          adapter_fetch waits for the network and is for a thread of its own.
 * Failure  ERR_UNSUPPORTED: every version is for another family (the Horde's baseline_mismatch). Anything
 *          else: it cannot be had (download_failed): ERR_NOT_FOUND, ERR_REFUSED, ERR_NETWORK, ERR_FORMAT,
 *          ERR_NO_MEMORY of the download rule. 404 and 451 are remembered, for the word as for the file.
 * Source   horde-api 7, 8 (name, model id, or version id with is_version); reliability F5, F6, N4.
 *
 *     CACHE/loras/civitai-VERSION.safetensors       CACHE/embeddings/civitai-VERSION.pt
 *     CACHE/wishes/SHA256      what a word meant: version, file, trigger words, when it was asked
 *
 * No name of a stranger becomes a file name. The time of a file's note is its last use; the quota is kept by
 * removing what was fetched for jobs and not used for longest, never what its owner put there.
 */
#ifndef STORE_ADAPTER_H
#define STORE_ADAPTER_H

#include "proto/civitai.h"
#include "store/download.h"

struct adapter_wish {
    enum store_kind kind; /* STORE_LORA or STORE_EMBEDDING */
    const char *name;     /* a word, a model id, or a version id */
    bool is_version;
    enum family family; /* of the job's model */
};

struct adapter {
    char *path;
    char *words[CIVITAI_WORDS_MAX]; /* trigger words */
    int word_count;
};
void adapter_release(struct adapter *a);

struct adapter_rule {
    struct download_rule download;
    bool strangers; /* a file without a known SHA-256 is not for them */
    /* Is that file of the folder being used by a job? Asked and answered under the caller's lock, which
     * also covers the removal. NULL: no. */
    bool (*in_use)(void *context, const char *file);
    void (*lock)(void *context, bool hold);
    void *context;
};

/* The cache's answer: true and *a. A word's meaning is believed for a day, a version's for ever. With `stale`
 * also for longer: better an older version than none. */
bool adapter_find(struct adapter *a, const struct store *s, const struct adapter_wish *w,
                  bool strangers, bool stale);
int adapter_fetch(struct adapter *a, const struct store *s, struct fetch_client *c,
                  const struct adapter_wish *w, const struct adapter_rule *rule, struct error *err);

#endif
