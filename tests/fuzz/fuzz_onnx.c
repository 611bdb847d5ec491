/* An ONNX file: whatever the bytes, entries stay inside them. */
#include <string.h>

#include "diffusion/onnx.h"
#include "fuzz.h"

/* a graph with a node alone; the whole form is corpus/onnx/conv_and_norm */
static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("\x08\x07\x3a\x0e"
              "\x0a\x0c\x0a\x01x\x0a\x01w\"\x04"
              "Conv"),
    FUZZ_TEXT("\x08\x07\x12\x07"
              "pytorch\x3a\x00"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct onnx file;
    struct error err = {0};
    if (onnx_parse(&file, "fuzz", data, size, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    for (size_t i = 0; i < file.count; i++) {
        const struct safetensors_entry *e = &file.entries[i];
        const uint8_t *at = e->data;
        size_t bytes = dtype_bytes(e->dtype);
        KILN_ASSERT(e->rank >= 0 && e->rank <= SAFETENSORS_RANK_MAX, "%d", e->rank);
        for (int k = 0; k < e->rank; k++) bytes *= (size_t)e->dim[k];
        KILN_ASSERT(bytes == e->bytes, "%s", e->name);
        KILN_ASSERT(!e->bytes || (at >= data && e->bytes <= size - (size_t)(at - data)), "%s",
                    e->name);
        KILN_ASSERT(i == 0 || strcmp(file.entries[i - 1].name, e->name) < 0, "%s", e->name);
    }
    onnx_close(&file);
    return 0;
}
