/* The directory of a ZIP archive of stored members, ZIP64 included; nothing is unpacked. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "diffusion/pickle_reader.h"

#define END_BYTES 22
#define COMMENT_MAX 65535
#define MEMBERS_MAX 100000

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

static int find_directory(struct pickle_reader *r, struct bytes z, struct directory *d)
{
    if (z.length < END_BYTES) return pickle_fail(r, ERR_FORMAT, "the ZIP archive is cut short");
    size_t lowest = z.length > END_BYTES + COMMENT_MAX ? z.length - END_BYTES - COMMENT_MAX : 0;
    size_t at = z.length - END_BYTES;
    while (memcmp(z.data + at, "PK\5\6", 4) != 0) {
        if (at == lowest)
            return pickle_fail(r, ERR_FORMAT, "the ZIP archive has no directory (cut short?)");
        at--;
    }
    d->count = little(z.data + at + 10, 2);
    d->bytes = little(z.data + at + 12, 4);
    d->at = little(z.data + at + 16, 4);
    if (at >= 20 && memcmp(z.data + at - 20, "PK\6\7", 4) == 0) {
        uint64_t end64 = little(z.data + at - 20 + 8, 8);
        if (!inside(z, end64, 56) || memcmp(z.data + end64, "PK\6\6", 4) != 0)
            return pickle_fail(r, ERR_FORMAT, "the ZIP64 directory lies outside the file");
        d->count = little(z.data + end64 + 32, 8);
        d->bytes = little(z.data + end64 + 40, 8);
        d->at = little(z.data + end64 + 48, 8);
    }
    if (!inside(z, d->at, d->bytes) || d->count > MEMBERS_MAX)
        return pickle_fail(r, ERR_FORMAT, "the ZIP directory lies outside the file");
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

static int read_member(struct pickle_reader *r, struct bytes z, uint64_t *at, uint64_t end,
                       struct zip_member *m)
{
    const uint8_t *h = z.data + *at;
    if (end - *at < 46 || memcmp(h, "PK\1\2", 4) != 0)
        return pickle_fail(r, ERR_FORMAT, "the ZIP directory is damaged");
    uint64_t packed = little(h + 20, 4), size = little(h + 24, 4), offset = little(h + 42, 4);
    size_t name = (size_t)little(h + 28, 2), extra = (size_t)little(h + 30, 2),
           comment = (size_t)little(h + 32, 2);
    if (46 + name + extra + comment > end - *at)
        return pickle_fail(r, ERR_FORMAT, "the ZIP directory is damaged");
    read_zip64(h + 46 + name, extra, &size, &packed, &offset);
    char *text = pickle_alloc(r, name + 1, 1), shown[96];
    if (!text) return r->failed;
    memcpy(text, h + 46, name);
    str_clean(shown, sizeof shown, text);
    if (little(h + 8, 2) & 1) return pickle_fail(r, ERR_UNSUPPORTED, "%s is encrypted", shown);
    if (little(h + 10, 2) != 0 || packed != size)
        return pickle_fail(r, ERR_UNSUPPORTED, "%s is compressed, which torch never does", shown);
    if (!inside(z, offset, 30) || memcmp(z.data + offset, "PK\3\4", 4) != 0)
        return pickle_fail(r, ERR_FORMAT, "%s lies outside the file", shown);
    uint64_t data = offset + 30 + little(z.data + offset + 26, 2) + little(z.data + offset + 28, 2);
    if (!inside(z, data, size))
        return pickle_fail(r, ERR_FORMAT, "%s lies outside the file", shown);
    *m = (struct zip_member){text, z.data + data, (size_t)size};
    *at += 46 + name + extra + comment;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_member *)a)->name, ((const struct zip_member *)b)->name);
}

int zip_members_read(struct pickle_reader *r, const uint8_t *data, size_t length)
{
    struct bytes z = {data, length};
    struct directory d = {0};
    int rc = find_directory(r, z, &d);
    if (rc) return rc;
    r->members = pickle_alloc(r, (size_t)d.count, sizeof *r->members);
    if (!r->members) return r->failed;
    uint64_t at = d.at;
    for (uint64_t i = 0; i < d.count; i++) {
        rc = read_member(r, z, &at, d.at + d.bytes, &r->members[r->member_count]);
        if (rc) return rc;
        r->member_count++;
    }
    qsort(r->members, r->member_count, sizeof *r->members, by_name);
    for (size_t i = 1; i < r->member_count; i++)
        if (by_name(&r->members[i - 1], &r->members[i]) == 0)
            return pickle_fail(r, ERR_FORMAT, "the ZIP archive holds one name twice");
    return 0;
}

const struct zip_member *zip_members_find(const struct pickle_reader *r, const char *name)
{
    struct zip_member key = {.name = name};
    return bsearch(&key, r->members, r->member_count, sizeof key, by_name);
}
