#include "diffusion/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/text/unicode_tables.h"

static bool in_ranges(const struct code_range *r, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > r[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= r[low].first;
}

bool unicode_is_letter(uint32_t c)
{
    if (c < 128) return (c | 32) >= 'a' && (c | 32) <= 'z';
    return in_ranges(unicode_letters, unicode_letters_count, c);
}

bool unicode_is_number(uint32_t c)
{
    if (c < 128) return c >= '0' && c <= '9';
    return in_ranges(unicode_numbers, unicode_numbers_count, c);
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

uint32_t unicode_lower(uint32_t c)
{
    if (c < 128) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (c == 0x130) return 'i';
    size_t low = 0, high = unicode_small_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unicode_small[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == unicode_small_count || c < unicode_small[low].first) return c;
    const struct code_shift *s = &unicode_small[low];
    return (c - s->first) % s->step ? c : (uint32_t)((int32_t)c + s->delta);
}

uint32_t utf8_next(const char *text, size_t length, size_t *at)
{
    const uint8_t *s = (const uint8_t *)text + *at;
    size_t left = length - *at, more;
    uint32_t c;
    (*at)++;
    if (s[0] < 0x80) return s[0];
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        c = s[0] & 0x1f, more = 1;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        c = s[0] & 0x0f, more = 2;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        c = s[0] & 0x07, more = 3;
    else
        return 0xfffd;
    if (more >= left) return 0xfffd;
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0xfffd;
        c = c << 6 | (s[i] & 0x3f);
    }
    bool shortest = more == 1 || c >= (more == 2 ? 0x800u : 0x10000u);
    if (!shortest || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0xfffd;
    *at += more;
    return c;
}

size_t utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    for (size_t i = more; i; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[more] | c);
    return more + 1;
}

/* --- normalization form C --- */

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

static uint32_t combining_class(uint32_t c)
{
    if (c < 0x300) return 0;
    size_t low = 0, high = unicode_classes_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unicode_classes[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    bool in = low < unicode_classes_count && c >= unicode_classes[low].first;
    return in ? unicode_classes[low].class : 0;
}

static const struct code_pair *decomposition(uint32_t c)
{
    size_t low = 0, high = unicode_decompositions_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unicode_decompositions[middle].whole)
            low = middle + 1;
        else
            high = middle;
    }
    bool in = low < unicode_decompositions_count && unicode_decompositions[low].whole == c;
    return in ? &unicode_decompositions[low] : NULL;
}

/* Full canonical decomposition: at most 4 code points. */
static size_t decompose(uint32_t *out, uint32_t c)
{
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t s = c - S_BASE, t = s % T_COUNT;
        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + t;
        return t ? 3 : 2;
    }
    const struct code_pair *p = c < 0xc0 ? NULL : decomposition(c);
    if (!p) {
        out[0] = c;
        return 1;
    }
    size_t n = decompose(out, p->a);
    if (p->b) n += decompose(out + n, p->b);
    return n;
}

static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    size_t low = 0, high = unicode_compositions_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct code_join *j = &unicode_compositions[middle];
        if (a > j->a || (a == j->a && b > j->b))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == unicode_compositions_count) return 0;
    const struct code_join *j = &unicode_compositions[low];
    return j->a == a && j->b == b ? j->whole : 0;
}

/* Marks between two starters, by class, equal classes in their order. Insertion sort: runs are
 * short, and a run of thousands is refused below. */
enum { RUN_MAX = 64 };
static void reorder(uint32_t *c, size_t count)
{
    for (size_t i = 1, run = 0; i < count; i++) {
        uint32_t mark = combining_class(c[i]);
        run = mark ? run + 1 : 0;
        if (!mark || run > RUN_MAX) continue;
        size_t j = i;
        uint32_t own = c[i];
        while (j && combining_class(c[j - 1]) > mark) {
            c[j] = c[j - 1];
            j--;
        }
        c[j] = own;
    }
}

bool unicode_nfc(uint32_t **text, size_t *count)
{
    size_t n = 0;
    bool plain = true;
    for (size_t i = 0; i < *count; i++) plain = plain && (*text)[i] < 0x300;
    if (plain) return true; /* Latin-1 and its neighbours are composed already */
    uint32_t *c = alloc_try(*count, 4 * sizeof *c);
    if (!c) return false;
    for (size_t i = 0; i < *count; i++) n += decompose(c + n, (*text)[i]);
    reorder(c, n);

    size_t out = 0, starter = SIZE_MAX; /* of the composed text */
    uint32_t last = 0;                  /* class of the last mark kept after the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t mark = combining_class(c[i]), whole = 0;
        bool blocked = starter != out - 1 && (last >= mark || !last);
        if (starter != SIZE_MAX && !blocked) whole = compose(c[starter], c[i]);
        if (whole) {
            c[starter] = whole;
            continue;
        }
        if (!mark) starter = out;
        last = mark;
        c[out++] = c[i];
    }
    free(*text);
    *text = c;
    *count = out;
    return true;
}
