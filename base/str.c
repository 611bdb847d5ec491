#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"

bool str_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_equal_nocase(const char *a, const char *b)
{
    return a == b || (a && b && strcasecmp(a, b) == 0);
}

bool str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && memcmp(text + n - m, suffix, m) == 0;
}

bool str_parse_i64(const char *text, int64_t *value)
{
    char *end;
    if (!text || !*text || *text == ' ') return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || *end) return false;
    *value = parsed;
    return true;
}

bool str_parse_u64(const char *text, uint64_t *value)
{
    char *end;
    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (errno || *end) return false;
    *value = parsed;
    return true;
}

bool str_parse_f64(const char *text, double *value)
{
    char *end;
    if (!text || !*text || *text == ' ') return false;
    double parsed = strtod(text, &end);
    if (*end || !isfinite(parsed)) return false;
    *value = parsed;
    return true;
}

/* Length of the valid UTF-8 character at text, 0 when there is none; *point is its code. */
static size_t utf8_character(const unsigned char *s, size_t left, uint32_t *point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    if (n == 0 || n > left || s[0] > 0xf4) return 0;
    uint32_t code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    *point = code;
    return n;
}

size_t str_copy(char *to, size_t room, const char *from)
{
    size_t n = strlen(from);
    if (n >= room) {
        n = room - 1;
        while (n && ((unsigned char)from[n] & 0xc0) == 0x80) n--;
    }
    memmove(to, from, n);
    to[n] = 0;
    return n;
}

static bool unwanted(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x2069) || c == 0xfeff ||
           c == 0x61c;
}

size_t str_clean(char *to, size_t room, const char *from)
{
    size_t left = strlen(from), used = 0;
    const unsigned char *s = (const unsigned char *)from;
    while (left) {
        uint32_t c;
        size_t n = utf8_character(s, left, &c);
        size_t put = n ? n : 1;
        if (n && unwanted(c)) {
            /* an escape sequence loses its ESC; what follows is harmless text */
        } else if (used + put >= room) {
            break;
        } else if (n) {
            memcpy(to + used, s, n);
            used += n;
        } else {
            to[used++] = '?';
        }
        s += put;
        left -= put;
    }
    to[used] = 0;
    return used;
}

char *str_stem(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return alloc_string_n(name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
}

bool str_is_utf8(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    while (length) {
        uint32_t c;
        size_t n = utf8_character(s, length, &c);
        if (n == 0) return false;
        s += n;
        length -= n;
    }
    return true;
}

size_t str_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > 64 || m > 64) return n + m;
    size_t row[65];
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t cost = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < cost) cost = row[j] + 1;
            if (row[j - 1] + 1 < cost) cost = row[j - 1] + 1;
            row[j] = cost;
        }
    }
    return row[m];
}

const char *str_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 1;
    for (; *names; names++) {
        size_t d = str_distance(word, *names);
        if (d <= best_distance && d < strlen(*names)) {
            best = *names;
            best_distance = d - (d > 0);
            if (d == 0) break;
        }
    }
    return best;
}
