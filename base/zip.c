#include "base/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/alloc.h"
#include "base/str.h"

#define END_BYTES 22
#define COMMENT_MAX 65535
#define ARENA_BYTES ((size_t)64 << 20)

struct bytes {
    const uint8_t *data;
    size_t length;
};

static uint64_t little(const uint8_t *b, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | b[i];
    return v;
}

static bool inside(struct bytes z, uint64_t at, uint64_t n)
{
    return at <= z.length && n <= z.length - at;
}

struct directory {
    uint64_t at, bytes, count;
};

static int find_directory(const char *label, struct bytes z, struct directory *d, struct error *err)
{
    if (z.length < END_BYTES)
        return error_set(err, ERR_FORMAT, "%s: the ZIP archive is cut short", label);
    size_t lowest = z.length > END_BYTES + COMMENT_MAX ? z.length - END_BYTES - COMMENT_MAX : 0;
    size_t at = z.length - END_BYTES;
    while (memcmp(z.data + at, "PK\5\6", 4) != 0) {
        if (at == lowest)
            return error_set(err, ERR_FORMAT, "%s: the ZIP archive has no directory (cut short?)",
                             label);
        at--;
    }
    d->count = little(z.data + at + 10, 2);
    d->bytes = little(z.data + at + 12, 4);
    d->at = little(z.data + at + 16, 4);
    if (at >= 20 && memcmp(z.data + at - 20, "PK\6\7", 4) == 0) {
        uint64_t end64 = little(z.data + at - 20 + 8, 8);
        if (!inside(z, end64, 56) || memcmp(z.data + end64, "PK\6\6", 4) != 0)
            return error_set(err, ERR_FORMAT, "%s: the ZIP64 directory lies outside the file",
                             label);
        d->count = little(z.data + end64 + 32, 8);
        d->bytes = little(z.data + end64 + 40, 8);
        d->at = little(z.data + end64 + 48, 8);
    }
    if (!inside(z, d->at, d->bytes) || d->count > ZIP_MEMBERS_MAX)
        return error_set(err, ERR_FORMAT, "%s: the ZIP directory lies outside the file", label);
    return 0;
}

/* Sizes and offset past 4 GiB are in extra field 1, in this order, only those that are needed. */
static void read_zip64(const uint8_t *extra, size_t length, uint64_t *size, uint64_t *packed,
                       uint64_t *offset)
{
    while (length >= 4) {
        size_t id = (size_t)little(extra, 2), n = (size_t)little(extra + 2, 2);
        extra += 4;
        length -= 4;
        if (n > length) return;
        if (id == 1) {
            uint64_t *want[3] = {size, packed, offset};
            size_t at = 0;
            for (int i = 0; i < 3; i++)
                if (*want[i] == 0xffffffff && at + 8 <= n) {
                    *want[i] = little(extra + at, 8);
                    at += 8;
                }
            return;
        }
        extra += n;
        length -= n;
    }
}

static int read_entry(struct zip *archive, struct bytes z, uint64_t *at, uint64_t end,
                      struct zip_entry *e, struct error *err)
{
    const uint8_t *h = z.data + *at;
    if (end - *at < 46 || memcmp(h, "PK\1\2", 4) != 0)
        return error_set(err, ERR_FORMAT, "%s: the ZIP directory is damaged", archive->label);
    uint64_t packed = little(h + 20, 4), size = little(h + 24, 4), offset = little(h + 42, 4);
    size_t name = (size_t)little(h + 28, 2), extra = (size_t)little(h + 30, 2),
           comment = (size_t)little(h + 32, 2);
    if (46 + name + extra + comment > end - *at)
        return error_set(err, ERR_FORMAT, "%s: the ZIP directory is damaged", archive->label);
    read_zip64(h + 46 + name, extra, &size, &packed, &offset);
    char *text = arena_try(&archive->arena, name + 1, 1), shown[96];
    if (!text)
        return error_set(err, ERR_NO_MEMORY, "%s: the ZIP directory is too large", archive->label);
    memcpy(text, h + 46, name);
    str_clean(shown, sizeof shown, text);
    if (!inside(z, offset, 30) || memcmp(z.data + offset, "PK\3\4", 4) != 0)
        return error_set(err, ERR_FORMAT, "%s: %s lies outside the file", archive->label, shown);
    uint64_t data = offset + 30 + little(z.data + offset + 26, 2) + little(z.data + offset + 28, 2);
    if (!inside(z, data, packed))
        return error_set(err, ERR_FORMAT, "%s: %s lies outside the file", archive->label, shown);
    *e = (struct zip_entry){.name = text,
                            .data = z.data + data,
                            .packed = (size_t)packed,
                            .size = (size_t)size,
                            .crc = (uint32_t)little(h + 16, 4),
                            .method = (unsigned)little(h + 10, 2),
                            .encrypted = little(h + 8, 2) & 1};
    *at += 46 + name + extra + comment;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

static int read_entries(struct zip *z, struct bytes bytes, const struct directory *d,
                        struct error *err)
{
    uint64_t at = d->at;
    z->entry = arena_try(&z->arena, (size_t)d->count + 1, sizeof *z->entry);
    if (!z->entry) return error_set(err, ERR_NO_MEMORY, "%s: no memory for it", z->label);
    for (; z->count < d->count; z->count++) {
        int rc = read_entry(z, bytes, &at, d->at + d->bytes, &z->entry[z->count], err);
        if (rc) return rc;
    }
    qsort(z->entry, z->count, sizeof *z->entry, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (by_name(&z->entry[i - 1], &z->entry[i]) == 0)
            return error_set(err, ERR_FORMAT, "%s: the ZIP archive holds one name twice", z->label);
    return 0;
}

int zip_open(struct zip *z, const char *label, const uint8_t *data, size_t length,
             struct error *err)
{
    struct directory d = {0};
    struct bytes bytes = {data, length};
    int rc = find_directory(label, bytes, &d, err);
    if (rc) return rc;
    *z = (struct zip){.label = alloc_string(label)};
    arena_init(&z->arena, ARENA_BYTES);
    rc = read_entries(z, bytes, &d, err);
    if (rc) zip_close(z);
    return rc;
}

void zip_close(struct zip *z)
{
    arena_release(&z->arena);
    free(z->label);
    *z = (struct zip){0};
}

const struct zip_entry *zip_find(const struct zip *z, const char *name)
{
    struct zip_entry key = {.name = name};
    return z->count ? bsearch(&key, z->entry, z->count, sizeof key, by_name) : NULL;
}

static int inflate_into(uint8_t *to, const struct zip_entry *e)
{
    z_stream s = {0};
    if (e->packed > UINT32_MAX || e->size > UINT32_MAX || inflateInit2(&s, -MAX_WBITS) != Z_OK)
        return Z_DATA_ERROR;
    s.next_in = (Bytef *)(uintptr_t)e->data;
    s.avail_in = (uInt)e->packed;
    s.next_out = to;
    s.avail_out = (uInt)e->size;
    int rc = inflate(&s, Z_FINISH);
    bool whole = rc == Z_STREAM_END && s.total_out == e->size;
    inflateEnd(&s);
    return whole ? Z_OK : Z_DATA_ERROR;
}

int zip_unpack(const struct zip *z, const struct zip_entry *e, struct buf *out, struct error *err)
{
    char shown[96];
    str_clean(shown, sizeof shown, e->name);
    if (e->encrypted)
        return error_set(err, ERR_UNSUPPORTED, "%s: %s is encrypted", z->label, shown);
    if (e->method != 0 && e->method != 8)
        return error_set(err, ERR_UNSUPPORTED, "%s: %s is packed by method %u", z->label, shown,
                         e->method);
    if (e->size > out->limit - out->length)
        return error_set(err, ERR_NO_MEMORY, "%s: %s holds %zu bytes, more than the %zu allowed",
                         z->label, shown, e->size, out->limit - out->length);
    uint8_t *to = buf_reserve(out, e->size, err);
    if (!to) return error_wrap(err, ERR_NO_MEMORY, "unpacking %s", shown);
    bool ok = e->method == 8 ? inflate_into(to, e) == Z_OK : e->packed == e->size;
    if (ok && e->method == 0) memcpy(to, e->data, e->size);
    if (!ok || crc32(0, to, (uInt)e->size) != e->crc)
        return error_set(err, ERR_FORMAT, "%s: %s is damaged", z->label, shown);
    buf_commit(out, e->size);
    return 0;
}
