/* A ZIP archive, as annotation tools export them; corpus/zip has whole ones. */
#include <string.h>

#include "base/error.h"
#include "base/zip.h"
#include "fuzz.h"

#define MEMBER_BYTES_MAX 65536

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zip z;
    struct error err = {0};
    if (zip_open(&z, "x.zip", data, size, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    for (size_t i = 0; i < z.count; i++) {
        const struct zip_entry *e = &z.entry[i];
        KILN_ASSERT(e->data >= data && e->packed <= size - (size_t)(e->data - data), "%s", e->name);
        KILN_ASSERT(zip_find(&z, e->name) == e, "%s", e->name);
        struct buf out;
        buf_init(&out, MEMBER_BYTES_MAX);
        if (zip_unpack(&z, e, &out, &err))
            KILN_ASSERT(err.text[0] && !out.length);
        else
            KILN_ASSERT(out.length == e->size, "%zu", out.length);
        buf_release(&out);
    }
    zip_close(&z);
    return 0;
}
