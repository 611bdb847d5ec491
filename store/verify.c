/* verify.c - reading a file of the store again, and what follows from it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "store/digest.h"
#include "store/note.h"
#include "store/store.h"

#define CHUNK_BYTES (1u << 20)

static int hash_fd(char sha256[65], int fd, int64_t bytes,
                   void (*progress)(void *context, int64_t done, int64_t bytes), void *context,
                   struct error *err)
{
    struct digest d;
    int64_t done = 0;
    uint8_t *chunk = alloc_zero(CHUNK_BYTES, 1);
    ssize_t got;
    digest_start(&d);
    while ((got = read(fd, chunk, CHUNK_BYTES)) > 0) {
        digest_add(&d, chunk, (size_t)got);
        done += got;
        if (progress) progress(context, done, bytes);
    }
    int rc = got < 0 ? error_set_errno(err, ERR_IO, errno, "reading") : 0;
    digest_finish(&d, sha256);
    free(chunk);
    return rc;
}

static int move_aside(int folder, const char *file, struct error *err)
{
    char *bad = alloc_printf("%s.bad", file);
    int rc = 0;
    if (renameat(folder, file, folder, bad))
        rc = error_set_errno(err, ERR_IO, errno, "moving %s aside", file);
    fsync(folder);
    free(bad);
    return rc;
}

static int judge(int folder, const struct store_entry *e, const char *known, const char *sha256,
                 enum store_state *state, struct error *err)
{
    char *name = alloc_printf(".%s.note", e->file);
    struct note n;
    note_read(&n, folder, name);
    char *want = alloc_string(known && *known ? known : note_get(&n, "sha256"));
    int rc = 0;
    if (*want && strcmp(want, sha256) != 0) {
        rc = move_aside(folder, e->file, err);
        if (!rc)
            rc = error_set(err, ERR_FORMAT,
                           "%s/%s: its SHA-256 is %s, it must be %s; moved aside to %s.bad",
                           store_kind_name(e->kind), e->file, sha256, want, e->file);
    } else if (known || e->state != STORE_OWN) {
        *state = known ? STORE_VERIFIED : e->state;
        note_set(&n, "state", store_state_name(*state));
        note_set(&n, "sha256", sha256);
        note_set_i64(&n, "bytes", e->bytes);
        note_set_i64(&n, "checked_ms", now_wall_ms());
        rc = note_write(&n, folder, name, err);
    } else {
        *state = e->state;
    }
    note_release(&n);
    free(want);
    free(name);
    return rc;
}

int store_verify(const struct store *s, const struct store_entry *entry, const char *known,
                 void (*progress)(void *context, int64_t done, int64_t bytes), void *context,
                 enum store_state *state, char sha256[65], struct error *err)
{
    if (entry->state >= STORE_PARTIAL)
        return error_set(err, ERR_INVALID, "%s/%s is %s", store_kind_name(entry->kind), entry->name,
                         entry->state == STORE_BAD ? "known to be bad" : "not fetched whole");
    int folder = store_folder(s, store_kind_name(entry->kind), err);
    if (folder < 0) return folder;
    int fd = openat(folder, entry->file, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? error_set_errno(err, ERR_IO, errno, "opening") : 0;
    if (!rc) rc = hash_fd(sha256, fd, entry->bytes, progress, context, err);
    if (fd >= 0) close(fd);
    if (rc)
        error_wrap(err, rc, "%s/%s", store_kind_name(entry->kind), entry->file);
    else
        rc = judge(folder, entry, known, sha256, state, err);
    close(folder);
    return rc;
}
