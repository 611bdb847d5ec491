/*
 * fuzz.h - one target, two drivers.
 *
 * Place    each fuzz_NAME.c has the two functions below. It is linked with driver.c for `./setup
 *          test` (fixed seed, so many mutations of its own seeds and of tests/fuzz/corpus/NAME),
 *          and, where the compiler is clang, with libFuzzer for as long as one likes.
 * Failure  a target aborts (KILN_ASSERT) when a promise is broken; crashes are the sanitizers'.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_seed {
    const void *data;
    size_t length;
};

#define FUZZ_TEXT(text)                                                                            \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Well-formed inputs to start from; lives for the process. */
const struct fuzz_seed *fuzz_seeds(size_t *count);

#endif
