/* A torch checkpoint, ZIP or legacy form; corpus/pickle has whole ones. */
#include "diffusion/pickle.h"
#include "fuzz.h"

/* an empty dict in the legacy form: magic, protocol, system info, object, storage keys */
static const uint8_t legacy[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a,
                                 0xa8, 0x50, 0x19, '.',  0x80, 0x02, 'M',  0xe9, 0x03, '.',  0x80,
                                 0x02, '}',  '.',  0x80, 0x02, '}',  '.',  0x80, 0x02, ']',  '.'};

static const struct fuzz_seed seeds[] = {{legacy, sizeof legacy}};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pickle file;
    struct error err = {0};
    if (pickle_parse(&file, "input", data, size, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    double sum = 0;
    for (size_t i = 0; i < file.count; i++) {
        const struct safetensors_entry *e = &file.entries[i];
        size_t count = e->bytes / dtype_bytes(e->dtype);
        KILN_ASSERT(e->rank >= 0 && e->rank <= SAFETENSORS_RANK_MAX, "%d", e->rank);
        /* both ends can be read */
        if (count)
            sum +=
                dtype_get(e->data, e->dtype, 0) + dtype_get(e->data, e->dtype, (int64_t)count - 1);
    }
    (void)sum;
    pickle_close(&file);
    return 0;
}
