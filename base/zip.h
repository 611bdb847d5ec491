/*
 * zip.h - the members of a ZIP archive that lies in memory.
 *
 * Place    torch checkpoints (diffusion/zip_members.c) and the archives that annotation tools export
 *          (dataset/). Nothing is written to disk: names are only looked at.
 * Owner    zip_open / zip_close around the caller's struct; the archive's bytes are borrowed until
 *          then. Any thread.
 * Failure  ERR_FORMAT (cut short, damaged, members outside the file or twice), ERR_UNSUPPORTED
 *          (encrypted, a method other than stored and deflated), ERR_NO_MEMORY (past a limit); the
 *          sentence names the archive.
 * Source   PKWARE APPNOTE 6.3, ZIP64 included; RFC 1951 through zlib. The central directory decides:
 *          sizes in local headers and data descriptors are not believed.
 */
#ifndef BASE_ZIP_H
#define BASE_ZIP_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"

#define ZIP_MEMBERS_MAX 100000

struct zip_entry {
    const char *name;
    const uint8_t *data; /* as it lies in the archive */
    size_t packed, size;
    uint32_t crc;
    unsigned method; /* 0 stored, 8 deflated */
    bool encrypted;
};

struct zip {
    char *label; /* for messages */
    struct arena arena;
    struct zip_entry *entry; /* sorted by name */
    size_t count;
};

int zip_open(struct zip *z, const char *label, const uint8_t *data, size_t length,
             struct error *err);
void zip_close(struct zip *z);
const struct zip_entry *zip_find(const struct zip *z, const char *name);
/* Appends the member's bytes to out, whose limit holds; the checksum must fit. */
int zip_unpack(const struct zip *z, const struct zip_entry *e, struct buf *out, struct error *err);

#endif
