#include "tensor/json_cursor.h"

#include <string.h>

#include "base/str.h"

bool cursor_fail(struct json_cursor *c, const char *format, ...)
{
    if (c->failed) return false;
    va_list args;
    va_start(args, format);
    c->failed = error_set_va(c->err, ERR_FORMAT, format, args);
    va_end(args);
    return false;
}

void cursor_skip_space(struct json_cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

bool cursor_take(struct json_cursor *c, char wanted)
{
    if (c->failed) return false;
    cursor_skip_space(c);
    if (c->at >= c->end || *c->at != (uint8_t)wanted) return false;
    c->at++;
    return true;
}

bool cursor_expect(struct json_cursor *c, char wanted)
{
    if (c->failed) return false;
    if (cursor_take(c, wanted)) return true;
    if (c->at >= c->end) return cursor_fail(c, "the header ends where '%c' is expected", wanted);
    return cursor_fail(c, "'%c' is expected, byte 0x%02x found", wanted, *c->at);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool read_hex4(struct json_cursor *c, uint32_t *value)
{
    if (c->end - c->at < 4) return cursor_fail(c, "a \\u escape is cut off");
    *value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*c->at++);
        if (digit < 0) return cursor_fail(c, "a \\u escape has a digit that is not hexadecimal");
        *value = *value << 4 | (uint32_t)digit;
    }
    return true;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static bool read_unicode(struct json_cursor *c, char *to, size_t *used)
{
    uint32_t code, low;
    if (!read_hex4(c, &code)) return false;
    if (code == 0) return cursor_fail(c, "a string holds a NUL");
    if (code >= 0xdc00 && code < 0xe000) return cursor_fail(c, "a lone surrogate in a string");
    if (code >= 0xd800 && code < 0xdc00) {
        if (c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u')
            return cursor_fail(c, "a lone surrogate in a string");
        c->at += 2;
        if (!read_hex4(c, &low)) return false;
        if (low < 0xdc00 || low >= 0xe000) return cursor_fail(c, "a lone surrogate in a string");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *used += put_utf8(to + *used, code);
    return true;
}

static bool read_escape(struct json_cursor *c, char *to, size_t *used)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    if (c->at >= c->end) return cursor_fail(c, "a string is cut off");
    uint8_t letter = *c->at++;
    if (letter == 'u') return read_unicode(c, to, used);
    const char *found = letter ? strchr(from, letter) : NULL;
    if (!found) return cursor_fail(c, "an escape that JSON does not know");
    to[(*used)++] = into[found - from];
    return true;
}

bool cursor_string(struct json_cursor *c, char **text, size_t limit_bytes)
{
    if (!cursor_expect(c, '"')) return false;
    const uint8_t *close = c->at;
    while (close < c->end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= c->end) return cursor_fail(c, "a string is cut off");
    size_t room = (size_t)(close - c->at); /* escapes only shrink */
    if (room > limit_bytes)
        return cursor_fail(c, "a string of %zu bytes is longer than %zu", room, limit_bytes);
    char *to = arena_try(c->arena, room + 1, 1);
    if (!to) return cursor_fail(c, "the header needs more memory than its limit");
    size_t used = 0;
    while (c->at < close) {
        uint8_t byte = *c->at++;
        if (byte < 0x20) return cursor_fail(c, "a control character in a string");
        if (byte != '\\')
            to[used++] = (char)byte;
        else if (!read_escape(c, to, &used))
            return false;
    }
    c->at = close + 1;
    to[used] = 0;
    if (!str_is_utf8(to, used)) return cursor_fail(c, "a string is not UTF-8");
    *text = to;
    return true;
}

bool cursor_u64(struct json_cursor *c, uint64_t *value)
{
    if (c->failed) return false;
    cursor_skip_space(c);
    const uint8_t *first = c->at;
    uint64_t sum = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (__builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*c->at - '0'), &sum))
            return cursor_fail(c, "a number is larger than 64 bits");
        c->at++;
    }
    if (c->at == first) return cursor_fail(c, "a whole number without sign is expected");
    if (*first == '0' && c->at - first > 1) return cursor_fail(c, "a number with leading zeros");
    if (c->at < c->end && (*c->at == '.' || *c->at == 'e' || *c->at == 'E'))
        return cursor_fail(c, "a number with a fraction or exponent");
    *value = sum;
    return true;
}
