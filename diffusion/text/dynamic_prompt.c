#include "diffusion/text/dynamic_prompt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/sample/mt19937.h"

enum { PASSES_MAX = 1000 }; /* nesting; deeper groups stay as they are */

/* random.seed(int): the number's 32-bit words, low first */
static void python_seed(struct mt19937 *m, uint64_t seed)
{
    const uint32_t words[] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    mt19937_seed_array(m, words, words[1] ? 2 : 1);
}

/* random.choice: as many bits as the count has, drawn again while too large */
static uint32_t python_below(struct mt19937 *m, uint32_t count)
{
    int bits = 32 - __builtin_clz(count);
    uint32_t drawn;
    do drawn = mt19937_draw(m) >> (32 - bits);
    while (drawn >= count);
    return drawn;
}

/* The innermost group that begins at `open`: where it closes, or NULL. */
static char *closing(char *open)
{
    char *at = open + 1 + strcspn(open + 1, "{}");
    return *at == '}' && at > open + 1 ? at : NULL;
}

/* Writes the chosen word of [from, end) to `to`; returns the end of it. They may overlap. */
static char *choose(char *to, const char *from, const char *end, struct mt19937 *m)
{
    uint32_t count = 1;
    for (const char *at = from; at < end; at++) count += *at == '|';
    uint32_t skip = python_below(m, count);
    while (skip) skip -= *from++ == '|';
    const char *bar = memchr(from, '|', (size_t)(end - from));
    size_t length = (size_t)((bar ? bar : end) - from);
    memmove(to, from, length);
    return to + length;
}

static bool expand_once(char *text, struct mt19937 *m)
{
    bool found = false;
    char *to = text, *at = text;
    while (*at) {
        char *end = *at == '{' ? closing(at) : NULL;
        if (end) {
            to = choose(to, at + 1, end, m);
            at = end + 1;
            found = true;
        } else {
            *to++ = *at++;
        }
    }
    *to = 0;
    return found;
}

char *dynamic_prompt_expand(const char *text, uint64_t seed)
{
    char *copy = alloc_string(text);
    if (!strchr(copy, '{')) return copy;
    struct mt19937 m;
    python_seed(&m, seed);
    for (int pass = 0; pass < PASSES_MAX && expand_once(copy, &m); pass++) continue;
    return copy;
}
