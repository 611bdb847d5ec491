/*
 * The standalone driver: fuzz_NAME RUNS [CORPUS] [SEED]. Runs every seed and every file of CORPUS as it is,
 * then RUNS mutations of them. Deterministic: the same arguments do the same.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/now.h"
#include "base/str.h"
#include "fuzz.h"

#define INPUT_MAX (1u << 16)

static uint64_t random_state;
static struct fuzz_seed *pool;
static size_t pool_count;

static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1dull;
}

static size_t below(size_t n)
{
    return n ? (size_t)(next_random() % n) : 0;
}

static void pool_add(const void *data, size_t length)
{
    pool = alloc_grow(pool, pool_count + 1, sizeof *pool);
    pool[pool_count++] = (struct fuzz_seed){data, length};
}

static void read_corpus(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        struct buf b;
        size_t length;
        if (entry->d_name[0] == '.') continue;
        char *path = alloc_printf("%s/%s", folder, entry->d_name);
        buf_init(&b, 16u << 20);
        if (!buf_read_file(&b, path, NULL)) {
            void *data = buf_take(&b, &length);
            pool_add(data, length);
        }
        free(path);
    }
    if (d) closedir(d);
}

/* ---- mutations -------------------------------------------------------------------------- */

struct input {
    uint8_t data[INPUT_MAX];
    size_t length;
};

static void insert(struct input *in, size_t at, const void *data, size_t length)
{
    if (in->length + length > INPUT_MAX) return;
    memmove(in->data + at + length, in->data + at, in->length - at);
    memcpy(in->data + at, data, length);
    in->length += length;
}

static void erase(struct input *in, size_t at, size_t length)
{
    if (length > in->length - at) length = in->length - at;
    memmove(in->data + at, in->data + at + length, in->length - at - length);
    in->length -= length;
}

static void insert_word(struct input *in)
{
    static const char *const words[] = {"null",
                                        "true",
                                        "-1",
                                        "0",
                                        "1e999",
                                        "-0.0",
                                        "9223372036854775808",
                                        "18446744073709551616",
                                        "{}",
                                        "[]",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        ":",
                                        "\"",
                                        "\\",
                                        "\\u0000",
                                        "\\ud800",
                                        "\"id\":",
                                        "\"ids\":[",
                                        "\xff",
                                        "\xc0\x80",
                                        "\xed\xa0\x80",
                                        "\xe2\x80\xae",
                                        "1.5",
                                        "\"\"",
                                        "\"a\":1,"};
    const char *word = words[below(COUNT_OF(words))];
    insert(in, below(in->length + 1), word, strlen(word));
}

static void splice(struct input *in)
{
    const struct fuzz_seed *other = &pool[below(pool_count)];
    size_t from = below(other->length), n = below(other->length - from + 1);
    insert(in, below(in->length + 1), (const uint8_t *)other->data + from, n > 512 ? 512 : n);
}

static void set_number(struct input *in) /* a length field, most likely */
{
    static const uint32_t values[] = {0,      1,          2,           0xff,       0x100,
                                      0xffff, 0x7fffffff, 0x80000000u, 0xffffffffu};
    uint32_t v = below(2) ? values[below(COUNT_OF(values))] : (uint32_t)below(in->length + 8);
    size_t n = below(2) ? 4 : 8, at;
    if (in->length < n) return;
    at = below(4) ? below(in->length - n + 1) : 0;
    for (size_t i = 0; i < n; i++) in->data[at + i] = (uint8_t)(i < 4 ? v >> 8 * i : 0);
}

static void mutate(struct input *in)
{
    size_t at = below(in->length);
    switch (below(9)) {
    case 0:
        if (in->length) in->data[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (in->length) in->data[at] = (uint8_t)next_random();
        break;
    case 2: erase(in, at, 1 + below(16)); break;
    case 3: erase(in, at, below(in->length + 1)); break;
    case 4: insert_word(in); break;
    case 5: splice(in); break;
    case 6: set_number(in); break;
    case 7: { /* a piece twice */
        uint8_t piece[256];
        size_t n = below(in->length - at + 1);
        if (n > sizeof piece) n = sizeof piece;
        memcpy(piece, in->data + at, n);
        insert(in, below(in->length + 1), piece, n);
        break;
    }
    default: /* a digit */
        for (size_t i = 0; i < 32 && in->length; i++) {
            size_t k = below(in->length);
            if (in->data[k] < '0' || in->data[k] > '9') continue;
            in->data[k] = (uint8_t)('0' + below(10));
            break;
        }
    }
}

/* An exact heap copy, so that a sanitizer sees one byte too far. */
static void run(const void *data, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    memcpy(copy, data, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
}

int main(int argc, char **argv)
{
    uint64_t runs = 1000, seed = 20261124;
    size_t count;
    if (argc > 1) str_parse_u64(argv[1], &runs);
    if (argc > 2) read_corpus(argv[2]);
    if (argc > 3) str_parse_u64(argv[3], &seed);
    const struct fuzz_seed *seeds = fuzz_seeds(&count);
    for (size_t i = 0; i < count; i++) pool_add(seeds[i].data, seeds[i].length);
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    double started = now_seconds();
    struct input *in = alloc_zero(1, sizeof *in);
    for (size_t i = 0; i < pool_count; i++) run(pool[i].data, pool[i].length);
    for (uint64_t i = 0; i < runs; i++) {
        const struct fuzz_seed *from = &pool[below(pool_count)];
        in->length = from->length < INPUT_MAX ? from->length : INPUT_MAX;
        memcpy(in->data, from->data, in->length);
        for (size_t k = 1 + below(4); k; k--) mutate(in);
        run(in->data, in->length);
    }
    double seconds = now_seconds() - started;
    printf("%zu seeds, %llu mutations, seed %llu, %.0f a second\n", pool_count,
           (unsigned long long)runs, (unsigned long long)seed,
           (double)runs / (seconds > 0 ? seconds : 1));
    free(in);
    return 0;
}
