/*
 * folders.h - where Kiln keeps what: state, cache, runtime, data.
 *
 * Place    kilnd and kiln agree here on the ledger's folder and the socket's path.
 * Owner    folders_init / folders_release around the caller's struct.
 * Failure  ERR_NOT_FOUND when neither systemd nor the user's home says where; ERR_IO from making.
 * Source   systemd.exec(5) STATE_DIRECTORY, CACHE_DIRECTORY, RUNTIME_DIRECTORY (the first of a
 *          colon-separated list); XDG Base Directory Specification.
 */
#ifndef CONFIG_FOLDERS_H
#define CONFIG_FOLDERS_H

#include "base/error.h"

struct folders {
    char *state;   /* ledger, spool, backups */
    char *cache;   /* models, LoRAs, references: may be deleted at any time */
    char *runtime; /* control socket */
    char *data;    /* what came with the installation */
    char *socket;  /* runtime/kilnd.sock */
};

/* NULL for a path: taken from the environment. `state` also moves cache and runtime below it when
 * those are not given by systemd. */
int folders_init(struct folders *f, const char *state, const char *cache, struct error *err);
void folders_release(struct folders *f);

/* Makes state, cache and runtime, 0700 (runtime 0750, for the socket's group). */
int folders_make(const struct folders *f, struct error *err);
/* mkdir -p; folders that exist stay as they are. */
int folders_make_one(const char *path, unsigned mode, struct error *err);

#endif
