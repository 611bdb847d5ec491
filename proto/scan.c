#include "proto/scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Returns the index after the closing quote, or `length` + 1 when the string does not end. */
static size_t skip_string(const char *text, size_t at, size_t length)
{
    for (at++; at < length; at++) {
        if (text[at] == '\\')
            at++;
        else if (text[at] == '"')
            return at + 1;
    }
    return length + 1;
}

int scan_json(const char *what, const char *text, size_t length, struct error *err)
{
    char open[SCAN_DEPTH_MAX];
    int depth = 0;
    size_t structural = 0;
    if (length == 0) return error_set(err, ERR_FORMAT, "%s is empty", what);
    for (size_t i = 0; i < length;) {
        char c = text[i];
        if (c == '\0') return error_set(err, ERR_FORMAT, "%s has a NUL byte at byte %zu", what, i);
        if (c == '"') {
            size_t next = skip_string(text, i, length);
            if (next > length)
                return error_set(err, ERR_FORMAT, "%s ends inside the text that begins at byte %zu",
                                 what, i);
            i = next;
            continue;
        }
        bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
        if (opens || closes || c == ',' || c == ':') {
            if (++structural > SCAN_STRUCTURAL_MAX)
                return error_set(err, ERR_FORMAT, "%s has more than %d structural characters", what,
                                 SCAN_STRUCTURAL_MAX);
        }
        if (opens) {
            if (depth == SCAN_DEPTH_MAX)
                return error_set(err, ERR_FORMAT, "%s nests deeper than %d levels at byte %zu",
                                 what, SCAN_DEPTH_MAX, i);
            open[depth++] = c;
        }
        if (closes) {
            if (depth == 0 || open[depth - 1] != (c == '}' ? '{' : '['))
                return error_set(err, ERR_FORMAT, "%s closes what it did not open at byte %zu",
                                 what, i);
            depth--;
        }
        i++;
    }
    if (depth)
        return error_set(err, ERR_FORMAT, "%s ends %d levels deep: it is cut off", what, depth);
    return 0;
}
