/*
 * file_hash.h - SHA-256 of model files, computed beside the work and remembered.
 *
 * Place    engine/models starts one when a model is loaded; results and provenance read it.
 * Owner    start/stop; one background thread each. The cache is a small text file in the cache
 *          folder: a hash counts for as long as size and modification time stay.
 * Failure  file_hash_text is "" while unknown; a file that cannot be read stays unknown.
 * Source   FIPS 180-4 through OpenSSL; CivitAI and the Horde's model reference name files by it.
 */
#ifndef ENGINE_FILE_HASH_H
#define ENGINE_FILE_HASH_H

#include <pthread.h>
#include <stdatomic.h>

struct file_hash {
    char *path, *cache;
    pthread_t thread;
    atomic_bool done, stopping, started;
    char text[65];
};

/* path: a file, or a diffusers folder (its UNet's weights are what is hashed). */
void file_hash_start(struct file_hash *h, const char *path);
/* "" or 64 hexadecimal digits. With wait, blocks until it is known or known to fail. */
const char *file_hash_text(struct file_hash *h, int wait);
/* The short old hash that the first web interfaces and kohya's trainer name models by: eight digits
 * of the SHA-256 of 64 KiB at 1 MiB. "" when the file cannot be read. */
void file_hash_legacy(char text[9], const char *path);
void file_hash_stop(struct file_hash *h); /* safe on a zeroed struct */

#endif
