/* The members of a torch checkpoint: an archive of stored files, of which nothing is unpacked. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "base/zip.h"
#include "diffusion/pickle_reader.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_member *)a)->name, ((const struct zip_member *)b)->name);
}

static int take(struct pickle_reader *r, const struct zip_entry *e, struct zip_member *m)
{
    char shown[96];
    str_clean(shown, sizeof shown, e->name);
    if (e->encrypted) return pickle_fail(r, ERR_UNSUPPORTED, "%s is encrypted", shown);
    if (e->method != 0 || e->packed != e->size)
        return pickle_fail(r, ERR_UNSUPPORTED, "%s is compressed, which torch never does", shown);
    char *name = pickle_alloc(r, strlen(e->name) + 1, 1);
    if (!name) return r->failed;
    memcpy(name, e->name, strlen(e->name));
    *m = (struct zip_member){name, e->data, e->size};
    return 0;
}

int zip_members_read(struct pickle_reader *r, const uint8_t *data, size_t length)
{
    struct zip z;
    int rc = zip_open(&z, r->name, data, length, r->err);
    if (rc) {
        r->failed = rc;
        return rc;
    }
    r->members = pickle_alloc(r, z.count, sizeof *r->members);
    rc = r->failed;
    for (; !rc && r->member_count < z.count; r->member_count += !rc)
        rc = take(r, &z.entry[r->member_count], &r->members[r->member_count]);
    zip_close(&z);
    return rc; /* sorted by name, as zip_open leaves them */
}

const struct zip_member *zip_members_find(const struct pickle_reader *r, const char *name)
{
    struct zip_member key = {.name = name};
    return bsearch(&key, r->members, r->member_count, sizeof key, by_name);
}
