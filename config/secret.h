/*
 * secret.h - where the API key may come from, and whose eyes it must not meet.
 *
 * Place    the end of config_load.
 * Failure  ERR_REFUSED naming the file and the mode that would do.
 * Source   reliability V5; systemd.exec(5) LoadCredential, CREDENTIALS_DIRECTORY.
 *
 * Order: the credential "api_key", then api_key_file, then api_key in bridgeData.yaml itself. A
 * file that holds a key belongs to us (or root) and nobody else may read it; a credential is
 * already so.
 */
#ifndef CONFIG_SECRET_H
#define CONFIG_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

#define SECRET_CREDENTIAL "api_key"

int secret_complete(struct config *c, const char *config_path, bool need_key, struct error *err);

/* Refuses what others could read. */
int secret_check_file(const char *path, const char *holds, struct error *err);
void secret_wipe(void *memory, size_t length); /* not optimised away */

/* config/check.c: ranges that need more than one key, and normal forms. */
int config_check(struct config *c, struct error *err);

#endif
