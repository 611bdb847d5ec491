/* The two files of a tokenizer folder: vocab.json, a zero byte, merges.txt. */
#include <string.h>

#include "base/error.h"
#include "diffusion/text/tokens.h"
#include "fuzz.h"

static const struct fuzz_seed seeds[] = {
    FUZZ_TEXT(
        "{\"a\":0,\"b\":1,\"a</w>\":2,\"b</w>\":3,\"ab\":4,\"ab</w>\":5,\"<|startoftext|>\":6,"
        "\"<|endoftext|>\":7}\0#version: 0.2\na b\na b</w>\n"),
    FUZZ_TEXT("{\"<|startoftext|>\":0,\"<|endoftext|>\":1}\0"),
    FUZZ_TEXT("{\"\xc4\xa0\":0,\"\\u0100</w>\":1,\"<|startoftext|>\":3,\"<|endoftext|>\":2}\0\n"),
};

const struct fuzz_seed *fuzz_seeds(size_t *count)
{
    *count = sizeof seeds / sizeof seeds[0];
    return seeds;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t json = zero ? (size_t)(zero - data) : size, merges = zero ? size - json - 1 : 0;
    const char *list = zero ? (const char *)zero + 1 : "";
    struct vocab *v;
    struct error err = {0};
    if (vocab_parse(&v, (const char *)data, json, list, merges, &err)) {
        KILN_ASSERT(err.text[0]);
        return 0;
    }
    for (int32_t id = 0; id < vocab_count(v); id++) {
        const char *s = vocab_symbol(v, id);
        KILN_ASSERT(s && vocab_find(v, s, strlen(s)) == id, "id %d", (int)id);
    }
    static const char text[] = "ab abab ba \xc4\x80 <|endoftext|>";
    struct tokens t;
    tokens_init(&t);
    KILN_ASSERT(tokens_encode(&t, v, text, sizeof text - 1, &err) == 0);
    for (size_t i = 0; i < t.count; i++) KILN_ASSERT(t.id[i] >= 0 && t.id[i] < vocab_count(v));
    tokens_release(&t);
    vocab_close(v);
    return 0;
}
