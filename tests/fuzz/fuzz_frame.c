/* A byte stream cut anywhere: what comes out in one piece comes out in many. */
#include <string.h>

#include "fuzz.h"
#include "proto/frame.h"

#define MAX 4096

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT("\x03\0\0\0abc\x01\0\0\0x"),
    FUZZ_TEXT("\x10\0\0\0"
              "0123456789abcdef\x02\0\0\0hi\xff\xff\xff\xff"),
    FUZZ_TEXT("\0\0\0\0"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

struct outcome {
    size_t frames, bytes;
    uint32_t sum;
    int rc;
};

static struct outcome feed(const uint8_t *data, size_t size, size_t step)
{
    struct outcome o = {0};
    struct buf in;
    struct error err = {0};
    const uint8_t *payload;
    size_t length;
    buf_init(&in, 1 << 20);
    for (size_t at = 0; at < size && o.rc == 0; at += step) {
        buf_append(&in, data + at, size - at < step ? size - at : step, &err);
        while ((o.rc = frame_next(&in, MAX, &payload, &length, &err)) == 1) {
            o.frames++;
            o.bytes += length;
            for (size_t i = 0; i < length; i++) o.sum = o.sum * 31 + payload[i];
            KILN_ASSERT(length > 0 && length <= MAX, "%zu", length);
            frame_drop(&in, length);
        }
    }
    buf_release(&in);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole = feed(data, size, size ? size : 1), bytes = feed(data, size, 1);
    KILN_ASSERT(whole.frames == bytes.frames && whole.bytes == bytes.bytes, "%zu %zu", whole.frames,
                bytes.frames);
    KILN_ASSERT(whole.sum == bytes.sum && whole.rc == bytes.rc);
    return 0;
}
