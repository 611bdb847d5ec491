#include "proto/field.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/request.h"

#define AT(type, base, offset) (*(type *)((char *)(base) + (offset)))
#define AT_CONST(type, base, offset) (*(type const *)((const char *)(base) + (offset)))

/* ---- writing ---------------------------------------------------------------------------- */

static void write_list(struct writer *w, const struct field *f, const char *first, int count,
                       struct field_blobs *blobs)
{
    writer_array(w, f->name);
    for (int i = 0; i < count; i++) {
        writer_object(w, NULL);
        field_write(w, f->fields, first + (size_t)i * f->stride, blobs);
        writer_end_object(w);
    }
    writer_end_array(w);
}

static void write_blob(struct writer *w, const struct field *f, const struct blob *b,
                       struct field_blobs *blobs)
{
    if (!b->data) {
        writer_text(w, f->name, NULL);
        return;
    }
    KILN_ASSERT(blobs, "%s needs a message with blobs", f->name);
    if (blobs->count == blobs->max) {
        if (!w->rc)
            w->rc = error_set(w->err, ERR_INVALID, "more than %d blobs in one message", blobs->max);
        return;
    }
    writer_i64(w, f->name, blobs->count);
    blobs->list[blobs->count++] = b;
}

static void write_field(struct writer *w, const struct field *f, const void *from,
                        struct field_blobs *blobs)
{
    const char *at = (const char *)from + f->offset;
    char text[24];
    switch (f->kind) {
    case FIELD_BOOL: writer_bool(w, f->name, *(const bool *)at); break;
    case FIELD_INT: writer_i64(w, f->name, *(const int *)at); break;
    case FIELD_I64: writer_i64(w, f->name, *(const int64_t *)at); break;
    case FIELD_U64:
        snprintf(text, sizeof text, "%llu", (unsigned long long)*(const uint64_t *)at);
        writer_text(w, f->name, text);
        break;
    case FIELD_F64:
    case FIELD_NUMBER: writer_f64(w, f->name, *(const double *)at); break;
    case FIELD_ENUM: writer_text(w, f->name, f->names[*(const int *)at]); break;
    case FIELD_TEXT:
    case FIELD_HEAP: writer_text(w, f->name, *(const char *const *)at); break;
    case FIELD_WORD:
        writer_text(w, f->name, *(const char *const *)at ? *(const char *const *)at : "");
        break;
    case FIELD_CHARS: writer_text(w, f->name, at); break;
    case FIELD_TEXTS:
        writer_texts(w, f->name, *(const char *const *const *)at,
                     AT_CONST(int, from, f->count_offset));
        break;
    case FIELD_NAMES:
        writer_texts(w, f->name, (const char *const *)at, AT_CONST(int, from, f->count_offset));
        break;
    case FIELD_LIST:
        write_list(w, f, *(const char *const *)at, AT_CONST(int, from, f->count_offset), blobs);
        break;
    case FIELD_ARRAY: write_list(w, f, at, AT_CONST(int, from, f->count_offset), blobs); break;
    case FIELD_OBJECT:
        writer_object(w, f->name);
        field_write(w, f->fields, at, blobs);
        writer_end_object(w);
        break;
    case FIELD_NUMBERS:
        writer_array(w, f->name);
        for (int i = 0; i < (int)f->most; i++) writer_f64(w, NULL, ((const double *)at)[i]);
        writer_end_array(w);
        break;
    case FIELD_BLOB: write_blob(w, f, (const struct blob *)at, blobs); break;
    }
}

void field_write(struct writer *w, const struct field *fields, const void *from,
                 struct field_blobs *blobs)
{
    for (const struct field *f = fields; f->name; f++) write_field(w, f, from, blobs);
}

/* ---- reading ---------------------------------------------------------------------------- */

static void read_enum(struct reader *r, const struct field *f, const char *text, int *to)
{
    for (int i = 0; f->names[i]; i++)
        if (strcmp(f->names[i], text) == 0) {
            *to = i;
            return;
        }
    char shown[80];
    str_clean(shown, sizeof shown, text);
    reader_fail(r, ERR_FORMAT, "%s \"%s\" is not known", f->name, shown);
}

static void read_list(struct reader *r, const struct field *f, const json_t *v, void *to,
                      struct arena *memory, struct field_blobs *blobs)
{
    if (!json_is_array(v) || json_array_size(v) > (size_t)f->most) {
        reader_fail(r, ERR_FORMAT, "%s is not a list of at most %d entries", f->name, (int)f->most);
        return;
    }
    size_t n = json_array_size(v);
    char *first = (char *)to + f->offset;
    if (f->kind == FIELD_LIST) {
        first = reader_memory(r, memory, n, f->stride);
        if (!first) return;
        AT(char *, to, f->offset) = first;
    }
    AT(int, to, f->count_offset) = (int)n; /* at once: a release after an error frees the blobs */
    for (size_t i = 0; i < n && !r->rc; i++) {
        json_t *entry = json_array_get(v, i);
        if (!json_is_object(entry))
            reader_fail(r, ERR_FORMAT, "%s has an entry that is no object", f->name);
        else
            field_read(r, f->fields, entry, first + i * f->stride, memory, blobs);
    }
}

static void read_names(struct reader *r, const struct field *f, const json_t *v, void *to,
                       struct arena *memory)
{
    if (!json_is_array(v) || json_array_size(v) > (size_t)f->most) {
        reader_fail(r, ERR_FORMAT, "%s is not a list of at most %d texts", f->name, (int)f->most);
        return;
    }
    const char **names = (const char **)((char *)to + f->offset);
    int n = (int)json_array_size(v);
    for (int i = 0; i < n && !r->rc; i++) {
        names[i] = reader_value_text(r, json_array_get(v, (size_t)i), f->name, FIELD_TEXT_BYTES_MAX,
                                     memory);
        if (!r->rc && !names[i]) reader_fail(r, ERR_FORMAT, "%s has a null entry", f->name);
    }
    if (!r->rc) AT(int, to, f->count_offset) = n;
}

static void read_blob(struct reader *r, const struct field *f, const json_t *o, struct blob *to,
                      struct field_blobs *blobs)
{
    KILN_ASSERT(blobs, "%s needs a message with blobs", f->name);
    int index = reader_int(r, o, f->name, 0, blobs->count - 1, 0);
    if (r->rc) return;
    uint8_t *copy = alloc_try((size_t)blobs->lengths[index] + 1, 1);
    if (!copy) {
        reader_fail(r, ERR_NO_MEMORY, "%s: no memory for %u bytes", f->name, blobs->lengths[index]);
        return;
    }
    memcpy(copy, blobs->bytes[index], blobs->lengths[index]);
    free(to->data);
    *to = (struct blob){copy, blobs->lengths[index]};
}

static void read_numbers(struct reader *r, const struct field *f, const json_t *v, double *to)
{
    if (!json_is_array(v) || json_array_size(v) > (size_t)f->most) {
        reader_fail(r, ERR_FORMAT, "%s is not a list of at most %d numbers", f->name, (int)f->most);
        return;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        json_t *n = json_array_get(v, i);
        if (json_is_number(n))
            to[i] = json_number_value(n);
        else if (json_is_null(n))
            to[i] = NAN;
        else
            reader_fail(r, ERR_FORMAT, "%s has an entry that is no number", f->name);
    }
}

static void read_heap(struct reader *r, const struct field *f, const json_t *v, char **to)
{
    if (!json_is_string(v)) {
        reader_fail(r, ERR_FORMAT, "%s is no text", f->name);
        return;
    }
    if (json_string_length(v) > FIELD_TEXT_BYTES_MAX) {
        reader_fail(r, ERR_FORMAT, "%s has %zu bytes, the limit is %d", f->name,
                    json_string_length(v), FIELD_TEXT_BYTES_MAX);
        return;
    }
    free(*to);
    *to = alloc_string_n(json_string_value(v), json_string_length(v));
}

static void read_field(struct reader *r, const struct field *f, const json_t *o, const json_t *v,
                       void *to, struct arena *memory, struct field_blobs *blobs)
{
    char *at = (char *)to + f->offset;
    const char *text;
    switch (f->kind) {
    case FIELD_BOOL: *(bool *)at = reader_bool(r, o, f->name, false); break;
    case FIELD_INT: *(int *)at = reader_int(r, o, f->name, (int)f->least, (int)f->most, 0); break;
    case FIELD_I64:
        *(int64_t *)at = reader_i64(r, o, f->name, (int64_t)f->least, (int64_t)f->most, 0);
        break;
    case FIELD_U64:
        text = reader_text(r, o, f->name, 20, memory);
        if (text && !str_parse_u64(text, (uint64_t *)at))
            reader_fail(r, ERR_FORMAT, "%s is no whole number", f->name);
        break;
    case FIELD_F64:
        *(double *)at = reader_f64(r, o, f->name, f->least, f->most, *(double *)at);
        break;
    case FIELD_NUMBER: *(double *)at = reader_f64(r, o, f->name, -1e300, 1e300, NAN); break;
    case FIELD_ENUM:
        text = reader_text(r, o, f->name, 200, memory);
        if (text) read_enum(r, f, text, (int *)at);
        break;
    case FIELD_TEXT:
    case FIELD_WORD:
        text = reader_text(r, o, f->name, FIELD_TEXT_BYTES_MAX, memory);
        if (text) *(const char **)at = text;
        break;
    case FIELD_CHARS: reader_chars(r, o, f->name, at, (size_t)f->most); break;
    case FIELD_HEAP: read_heap(r, f, v, (char **)at); break;
    case FIELD_TEXTS:
        *(const char ***)at = reader_texts(r, o, f->name, (size_t)f->most, FIELD_TEXT_BYTES_MAX,
                                           memory, &AT(int, to, f->count_offset));
        break;
    case FIELD_NAMES: read_names(r, f, v, to, memory); break;
    case FIELD_LIST:
    case FIELD_ARRAY: read_list(r, f, v, to, memory, blobs); break;
    case FIELD_OBJECT:
        if (reader_object(r, o, f->name)) field_read(r, f->fields, v, at, memory, blobs);
        break;
    case FIELD_NUMBERS: read_numbers(r, f, v, (double *)at); break;
    case FIELD_BLOB: read_blob(r, f, o, (struct blob *)at, blobs); break;
    }
}

void field_read(struct reader *r, const struct field *fields, const json_t *o, void *to,
                struct arena *memory, struct field_blobs *blobs)
{
    for (const struct field *f = fields; f->name && !r->rc; f++) {
        json_t *v = json_object_get(o, f->name);
        if (v && !json_is_null(v))
            read_field(r, f, o, v, to, memory, blobs);
        else if (f->needed)
            reader_fail(r, ERR_FORMAT, "%s is missing", f->name);
        else if (f->kind == FIELD_NUMBER)
            AT(double, to, f->offset) = NAN;
        else if (f->kind == FIELD_WORD && !AT(const char *, to, f->offset))
            AT(const char *, to, f->offset) = "";
    }
}
