#include "proto/reader.h"

#include <math.h>
#include <string.h>

#include "base/str.h"
#include "proto/scan.h"

int reader_open(struct reader *r, const char *what, const char *text, size_t length,
                struct error *err)
{
    json_error_t wrong;
    *r = (struct reader){.what = what, .err = err};
    r->rc = scan_json(what, text, length, err);
    if (r->rc) return r->rc;
    r->root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &wrong);
    if (!r->root) {
        char reason[200];
        str_clean(reason, sizeof reason, wrong.text);
        reader_fail(r, ERR_FORMAT, "not valid JSON at byte %d: %s", wrong.position, reason);
    }
    return r->rc;
}

int reader_close(struct reader *r)
{
    json_decref(r->root);
    r->root = NULL;
    return r->rc;
}

void reader_fail(struct reader *r, int code, const char *format, ...)
{
    if (r->rc) return;
    va_list args;
    va_start(args, format);
    r->rc = error_set_va(r->err, code, format, args);
    va_end(args);
    error_wrap(r->err, code, "%s", r->what);
}

static const char *type_word(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER: return "a whole number";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: return "null";
    }
    return "something else";
}

static void wrong_type(struct reader *r, const char *key, const char *wanted, const json_t *v)
{
    reader_fail(r, ERR_FORMAT, "%s is %s, expected %s", key, type_word(v), wanted);
}

static json_t *member(struct reader *r, const json_t *o, const char *key)
{
    if (r->rc || !o) return NULL;
    json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) ? v : NULL;
}

json_t *reader_object(struct reader *r, const json_t *o, const char *key)
{
    json_t *v = member(r, o, key);
    if (v && !json_is_object(v)) {
        wrong_type(r, key, "an object", v);
        return NULL;
    }
    return v;
}

json_t *reader_array(struct reader *r, const json_t *o, const char *key, size_t max)
{
    json_t *v = member(r, o, key);
    if (!v) return NULL;
    if (!json_is_array(v)) {
        wrong_type(r, key, "a list", v);
        return NULL;
    }
    if (json_array_size(v) > max) {
        reader_fail(r, ERR_FORMAT, "%s has %zu entries, the limit is %zu", key, json_array_size(v),
                    max);
        return NULL;
    }
    return v;
}

bool reader_bool(struct reader *r, const json_t *o, const char *key, bool fallback)
{
    json_t *v = member(r, o, key);
    if (!v) return fallback;
    if (!json_is_boolean(v)) {
        wrong_type(r, key, "true or false", v);
        return fallback;
    }
    return json_is_true(v);
}

int64_t reader_i64(struct reader *r, const json_t *o, const char *key, int64_t least, int64_t most,
                   int64_t fallback)
{
    json_t *v = member(r, o, key);
    if (!v) return fallback;
    int64_t value;
    if (json_is_integer(v)) {
        value = json_integer_value(v);
    } else if (json_is_real(v) && json_real_value(v) == trunc(json_real_value(v)) &&
               fabs(json_real_value(v)) < 9e15) {
        value = (int64_t)json_real_value(v);
    } else {
        wrong_type(r, key, "a whole number", v);
        return fallback;
    }
    if (value < least || value > most) {
        reader_fail(r, ERR_FORMAT, "%s is %lld, expected %lld to %lld", key, (long long)value,
                    (long long)least, (long long)most);
        return fallback;
    }
    return value;
}

int reader_int(struct reader *r, const json_t *o, const char *key, int least, int most,
               int fallback)
{
    return (int)reader_i64(r, o, key, least, most, fallback);
}

double reader_f64(struct reader *r, const json_t *o, const char *key, double least, double most,
                  double fallback)
{
    json_t *v = member(r, o, key);
    if (!v) return fallback;
    if (!json_is_number(v)) {
        wrong_type(r, key, "a number", v);
        return fallback;
    }
    double value = json_number_value(v);
    if (!(value >= least && value <= most)) {
        reader_fail(r, ERR_FORMAT, "%s is %g, expected %g to %g", key, value, least, most);
        return fallback;
    }
    return value;
}

void *reader_memory(struct reader *r, struct arena *memory, size_t count, size_t size)
{
    if (r->rc) return NULL;
    void *p = arena_try(memory, count ? count : 1, size);
    if (!p) reader_fail(r, ERR_NO_MEMORY, "no memory for %zu entries of %zu bytes", count, size);
    return p;
}

const char *reader_value_text(struct reader *r, const json_t *v, const char *key, size_t max_bytes,
                              struct arena *memory)
{
    if (r->rc || !v || json_is_null(v)) return NULL;
    if (!json_is_string(v)) {
        wrong_type(r, key, "a text", v);
        return NULL;
    }
    size_t length = json_string_length(v);
    if (length > max_bytes) {
        reader_fail(r, ERR_FORMAT, "%s has %zu bytes, the limit is %zu", key, length, max_bytes);
        return NULL;
    }
    char *copy = reader_memory(r, memory, length + 1, 1);
    if (copy) memcpy(copy, json_string_value(v), length);
    return copy;
}

const char *reader_text(struct reader *r, const json_t *o, const char *key, size_t max_bytes,
                        struct arena *memory)
{
    return reader_value_text(r, member(r, o, key), key, max_bytes, memory);
}

void reader_chars(struct reader *r, const json_t *o, const char *key, char *to, size_t room)
{
    to[0] = '\0';
    json_t *v = member(r, o, key);
    if (!v) return;
    if (!json_is_string(v))
        wrong_type(r, key, "a text", v);
    else if (json_string_length(v) >= room)
        reader_fail(r, ERR_FORMAT, "%s has %zu bytes, the limit is %zu", key, json_string_length(v),
                    room - 1);
    else
        memcpy(to, json_string_value(v), json_string_length(v) + 1);
}

const char **reader_texts(struct reader *r, const json_t *o, const char *key, size_t max,
                          size_t max_bytes, struct arena *memory, int *count)
{
    *count = 0;
    json_t *a = reader_array(r, o, key, max);
    if (!a) return NULL;
    size_t n = json_array_size(a);
    const char **list = reader_memory(r, memory, n, sizeof *list);
    for (size_t i = 0; i < n && !r->rc; i++) {
        list[i] = reader_value_text(r, json_array_get(a, i), key, max_bytes, memory);
        if (!r->rc && !list[i]) reader_fail(r, ERR_FORMAT, "%s has a null entry", key);
    }
    if (r->rc) return NULL;
    *count = (int)n;
    return list;
}
