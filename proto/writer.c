#include "proto/writer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

void writer_open(struct writer *w, struct buf *out, int indent, struct error *err)
{
    *w = (struct writer){.out = out, .err = err, .mark = out->length, .indent = indent};
    w->first[0] = true;
}

int writer_close(struct writer *w)
{
    KILN_ASSERT(w->rc || w->depth == 0, "%d levels left open", w->depth);
    if (w->rc) buf_truncate(w->out, w->mark);
    return w->rc;
}

static void put(struct writer *w, const char *text, size_t length)
{
    if (!w->rc) w->rc = buf_append(w->out, text, length, w->err);
}

static void put_line(struct writer *w)
{
    static const char blanks[] = "                                                                ";
    if (!w->indent) return;
    put(w, "\n", 1);
    size_t n = (size_t)(w->depth * w->indent);
    put(w, blanks, n < sizeof blanks ? n : sizeof blanks - 1);
}

/* Bytes of the UTF-8 character at text, or 0 when it is not one. */
static size_t utf8_length(const char *text, size_t left)
{
    unsigned char c = (unsigned char)*text;
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return n <= left && str_is_utf8(text, n) ? n : 0;
}

static void put_string(struct writer *w, const char *text, size_t length)
{
    put(w, "\"", 1);
    size_t plain = 0; /* start of the run not yet written */
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = c < 0x80 ? 1 : utf8_length(text + i, length - i);
        if (n && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            i += n;
            continue;
        }
        put(w, text + plain, i - plain);
        char escape[8];
        if (!n)
            strcpy(escape, "?");
        else if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", c);
        else
            snprintf(escape, sizeof escape, "\\u%04x", c);
        put(w, escape, strlen(escape));
        plain = ++i;
    }
    put(w, text + plain, length - plain);
    put(w, "\"", 1);
}

static void start(struct writer *w, const char *key)
{
    if (!w->first[w->depth]) put(w, ",", 1);
    if (w->depth) put_line(w);
    w->first[w->depth] = false;
    if (key) {
        put_string(w, key, strlen(key));
        put(w, w->indent ? ": " : ":", w->indent ? 2 : 1);
    }
}

static void open_level(struct writer *w, const char *key, const char *mark)
{
    start(w, key);
    put(w, mark, 1);
    KILN_ASSERT(w->depth + 1 < (int)(sizeof w->first / sizeof w->first[0]), "nesting");
    w->first[++w->depth] = true;
}

static void close_level(struct writer *w, const char *mark)
{
    bool empty = w->first[w->depth--];
    if (!empty) put_line(w);
    put(w, mark, 1);
}

void writer_object(struct writer *w, const char *key)
{
    open_level(w, key, "{");
}

void writer_end_object(struct writer *w)
{
    close_level(w, "}");
}

void writer_array(struct writer *w, const char *key)
{
    open_level(w, key, "[");
}

void writer_end_array(struct writer *w)
{
    close_level(w, "]");
}

void writer_text_n(struct writer *w, const char *key, const char *value, size_t length)
{
    start(w, key);
    put_string(w, value, length);
}

void writer_text(struct writer *w, const char *key, const char *value)
{
    if (value) {
        writer_text_n(w, key, value, strlen(value));
        return;
    }
    start(w, key);
    put(w, "null", 4);
}

void writer_i64(struct writer *w, const char *key, int64_t value)
{
    char text[24];
    start(w, key);
    put(w, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)value));
}

void writer_f64(struct writer *w, const char *key, double value)
{
    char text[32];
    start(w, key);
    if (!isfinite(value)) {
        put(w, "null", 4);
        return;
    }
    /* the fewest digits that read back as the same number */
    int n = 0;
    double back = 0;
    for (int digits = 15; digits <= 17 && (!n || back != value); digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, value);
        str_parse_f64(text, &back);
    }
    put(w, text, (size_t)n);
}

void writer_bool(struct writer *w, const char *key, bool value)
{
    start(w, key);
    put(w, value ? "true" : "false", value ? 4 : 5);
}

void writer_texts(struct writer *w, const char *key, const char *const *values, int count)
{
    writer_array(w, key);
    for (int i = 0; i < count; i++) writer_text(w, NULL, values[i]);
    writer_end_array(w);
}

void writer_base64(struct writer *w, const char *key, const void *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = bytes;
    start(w, key);
    put(w, "\"", 1);
    for (size_t i = 0; i < length; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        if (i + 1 < length) v |= (uint32_t)in[i + 1] << 8;
        if (i + 2 < length) v |= in[i + 2];
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < length ? digits[v >> 6 & 63] : '=',
                        i + 2 < length ? digits[v & 63] : '='};
        put(w, four, 4);
    }
    put(w, "\"", 1);
}
