#include "base/json_write.h"

#include <math.h>
#include <string.h>

static void put(struct json_write *w, const char *text, size_t length)
{
    if (!w->failed) w->failed = buf_append(w->out, text, length, NULL);
}

static void put_string(struct json_write *w, const char *text)
{
    put(w, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s == '"' || *s == '\\') {
            put(w, (const char[]){'\\', (char)*s}, 2);
        } else if (*s < 0x20) {
            if (!w->failed) w->failed = buf_printf(w->out, NULL, "\\u%04x", *s);
        } else {
            put(w, (const char *)s, 1);
        }
    }
    put(w, "\"", 1);
}

static void open_value(struct json_write *w, const char *name)
{
    if (w->depth) {
        if (!w->first) put(w, ",", 1);
        put(w, "\n", 1);
        for (int i = 0; i < w->depth; i++) put(w, "  ", 2);
    }
    w->first = false;
    if (name) {
        put_string(w, name);
        put(w, ": ", 2);
    }
}

void json_write_start(struct json_write *w, struct buf *out)
{
    *w = (struct json_write){.out = out, .first = true};
}

void json_write_object(struct json_write *w, const char *name)
{
    open_value(w, name);
    put(w, "{", 1);
    w->depth++;
    w->first = true;
}

void json_write_array(struct json_write *w, const char *name)
{
    open_value(w, name);
    put(w, "[", 1);
    w->depth++;
    w->first = true;
}

void json_write_close(struct json_write *w, char bracket)
{
    bool empty = w->first;
    w->depth--;
    w->first = false;
    if (!empty) {
        put(w, "\n", 1);
        for (int i = 0; i < w->depth; i++) put(w, "  ", 2);
    }
    put(w, &bracket, 1);
}

void json_write_text(struct json_write *w, const char *name, const char *text)
{
    open_value(w, name);
    if (text)
        put_string(w, text);
    else
        put(w, "null", 4);
}

void json_write_int(struct json_write *w, const char *name, int64_t value)
{
    open_value(w, name);
    if (!w->failed) w->failed = buf_printf(w->out, NULL, "%lld", (long long)value);
}

void json_write_uint(struct json_write *w, const char *name, uint64_t value)
{
    open_value(w, name);
    if (!w->failed) w->failed = buf_printf(w->out, NULL, "%llu", (unsigned long long)value);
}

void json_write_number(struct json_write *w, const char *name, double value)
{
    open_value(w, name);
    if (!isfinite(value))
        put(w, "null", 4);
    else if (!w->failed)
        w->failed = buf_printf(w->out, NULL, "%.10g", value);
}

void json_write_bool(struct json_write *w, const char *name, bool value)
{
    open_value(w, name);
    put(w, value ? "true" : "false", value ? 4 : 5);
}

int json_write_end(struct json_write *w, struct error *err)
{
    KILN_ASSERT(w->depth == 0, "%d brackets are open", w->depth);
    put(w, "\n", 1);
    return w->failed ? error_set(err, ERR_NO_MEMORY, "the JSON document is too long") : 0;
}
