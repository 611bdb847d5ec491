/* The header of a checkpoint; the data part is as long as the first four bytes say. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tensor/safetensors.h"

#define DATA_BYTES 64

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
              "\"b\":{\"dtype\":\"F16\",\"shape\":[24],\"data_offsets\":[16,64]}}"),
    FUZZ_TEXT("{\"__metadata__\":{\"format\":\"pt\",\"n\":\"\\u00e4\"},\"x\":{\"dtype\":\"BF16\","
              "\"shape\":[4,2,2,2],"
              "\"data_offsets\":[0,64]}}   "),
    FUZZ_TEXT(
        "{\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},\"t\":{\"dtype\":\"U8\","
        "\"shape\":[56],\"data_offsets\":[8,64]}}"),
    FUZZ_TEXT("{}"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t tensors[DATA_BYTES];
    struct safetensors file;
    struct error err = {0};
    memset(&file, 0, sizeof file);
    if (safetensors_parse(&file, data, size, tensors, DATA_BYTES, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    size_t sum = 0;
    for (size_t i = 0; i < file.count; i++) {
        const struct safetensors_entry *e = &file.entries[i];
        const uint8_t *at = e->data;
        KILN_ASSERT(e->rank >= 0 && e->rank <= SAFETENSORS_RANK_MAX, "%d", e->rank);
        KILN_ASSERT(at >= tensors && e->bytes <= DATA_BYTES - (size_t)(at - tensors), "%s",
                    e->name);
        KILN_ASSERT(safetensors_find(&file, e->name) == e, "%s", e->name);
        sum += e->bytes;
    }
    KILN_ASSERT(sum == DATA_BYTES || file.count == 0, "%zu", sum);
    safetensors_close(&file);
    return 0;
}
