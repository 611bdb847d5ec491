#include "proto/horde_interrogate.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/field.h"
#include "proto/horde_read.h"

static const struct {
    const char *name;
    enum alchemy_result result;
} forms[] = {
#define X(name, text, result) {text, ALCHEMY_##result},
    ALCHEMY_TABLE(X)
#undef X
};

const char *alchemy_form_name(enum alchemy_form f)
{
    return f < ALCHEMY_UNKNOWN ? forms[f].name : "unknown";
}

enum alchemy_form alchemy_form_find(const char *name)
{
    int i = 0;
    while (i < ALCHEMY_UNKNOWN && !str_equal(forms[i].name, name)) i++;
    return (enum alchemy_form)i;
}

enum alchemy_result alchemy_form_result(enum alchemy_form f)
{
    return f < ALCHEMY_UNKNOWN ? forms[f].result : ALCHEMY_TEXT;
}

/* ---- the alchemist's side --------------------------------------------------------------- */

int horde_alchemy_pop_format(const struct horde_alchemy_pop *p, struct buf *body, struct error *err)
{
    struct writer w;
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "name", p->name);
    writer_text(&w, "bridge_agent", p->bridge_agent);
    writer_texts(&w, "forms", p->forms, p->form_count);
    writer_i64(&w, "amount", p->amount);
    writer_i64(&w, "threads", p->threads);
    writer_i64(&w, "max_tiles", p->max_tiles);
    writer_texts(&w, "priority_usernames", p->priority_usernames, p->priority_count);
    writer_end_object(&w);
    return writer_close(&w);
}

static void read_form(struct reader *r, const json_t *o, struct horde_form *to,
                      struct arena *memory)
{
    if (!horde_read_id(r, json_object_get(o, "id"), to->id)) return;
    to->form_name = reader_text(r, o, "form", 255, memory);
    to->source_image = reader_text(r, o, "source_image", 16 << 20, memory);
    to->r2_upload = reader_text(r, o, "r2_upload", 8192, memory);
    to->control_type = reader_text(r, reader_object(r, o, "payload"), "control_type", 255, memory);
    if (r->rc) return;
    if (!to->form_name) to->form_name = "";
    to->form = alchemy_form_find(to->form_name);
}

int horde_forms_parse(struct horde_forms *f, const char *body, size_t length, struct error *err)
{
    struct reader r;
    struct horde_forms *read = alloc_zero(1, sizeof *read);
    arena_init(&read->memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the alchemy pop reply", body, length, err);
    if (!rc) {
        if (!json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
        json_t *list = reader_array(&r, r.root, "forms", HORDE_FORMS_MAX);
        for (size_t i = 0; i < json_array_size(list) && !r.rc; i++, read->count++) {
            read_form(&r, json_array_get(list, i), &read->list[i], &read->memory);
            for (size_t k = 0; k < i && !r.rc; k++)
                if (str_equal(read->list[k].id, read->list[i].id))
                    reader_fail(&r, ERR_FORMAT, "forms has %s twice", read->list[i].id);
        }
        horde_read_skipped(&r, r.root, &read->memory, &read->skipped, &read->skipped_count);
        rc = reader_close(&r);
    }
    if (rc)
        horde_forms_release(read);
    else
        *f = *read;
    free(read);
    return rc;
}

void horde_forms_release(struct horde_forms *f)
{
    arena_release(&f->memory);
    memset(f, 0, sizeof *f);
}

/* An interrogation has all of its lists, empty ones too: its readers count on them. */
static void write_empty_groups(struct writer *w, const struct alchemy_word *words, int count)
{
    static const char *const groups[] = {"tags",    "sites",     "artists",   "flavors",
                                         "mediums", "movements", "techniques"};
    for (size_t g = 0; g < COUNT_OF(groups); g++) {
        int i = 0;
        while (i < count && !str_equal(words[i].group, groups[g])) i++;
        if (i < count) continue;
        writer_array(w, groups[g]);
        writer_end_array(w);
    }
}

static void write_words(struct writer *w, const char *key, const struct alchemy_word *words,
                        int count)
{
    writer_object(w, key);
    for (int i = 0; i < count; i++) {
        int first = 0;
        while (!str_equal(words[first].group, words[i].group)) first++;
        if (first < i) continue; /* its group is written already */
        writer_array(w, words[i].group);
        for (int k = i; k < count; k++) {
            if (!str_equal(words[k].group, words[i].group)) continue;
            writer_object(w, NULL);
            writer_text(w, "text", words[k].text);
            writer_f64(w, "confidence", words[k].confidence);
            writer_end_object(w);
        }
        writer_end_array(w);
    }
    if (str_equal(key, "interrogation")) write_empty_groups(w, words, count);
    writer_end_object(w);
}

int horde_alchemy_submit_format(const struct horde_alchemy_submit *s, struct buf *body,
                                struct error *err)
{
    struct writer w;
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_text(&w, "id", s->id);
    writer_text(&w, "state", s->faulted ? "faulted" : "ok");
    writer_object(&w, "result");
    if (s->faulted) {
        /* an object is asked for; what stands in it does not matter */
    } else {
        switch (s->kind) {
        case ALCHEMY_TEXT: writer_text(&w, s->form, s->text); break;
        case ALCHEMY_FLAG: writer_bool(&w, s->form, s->flag); break;
        case ALCHEMY_NUMBER: writer_f64(&w, s->form, s->number); break;
        case ALCHEMY_IMAGE: writer_text(&w, s->form, "R2"); break;
        case ALCHEMY_WORDS: write_words(&w, s->form, s->words, s->word_count); break;
        }
    }
    writer_end_object(&w);
    writer_end_object(&w);
    return writer_close(&w);
}

/* ---- the requester's side --------------------------------------------------------------- */

int horde_alchemy_async_format(const struct horde_alchemy_async *a, struct buf *body,
                               struct error *err)
{
    struct writer w;
    if (!a->source_image && !a->source.data)
        return error_set(err, ERR_INVALID, "an alchemy request needs a source image");
    writer_open(&w, body, 0, err);
    writer_object(&w, NULL);
    writer_array(&w, "forms");
    for (int i = 0; i < a->form_count; i++) {
        writer_object(&w, NULL);
        writer_text(&w, "name", a->forms[i]);
        writer_end_object(&w);
    }
    writer_end_array(&w);
    if (a->source_image)
        writer_text(&w, "source_image", a->source_image);
    else
        writer_base64(&w, "source_image", a->source.data, a->source.length);
    writer_bool(&w, "slow_workers", a->slow_workers);
    writer_bool(&w, "trusted_workers", a->trusted_workers);
    writer_end_object(&w);
    return writer_close(&w);
}

static const char *value_text(struct reader *r, const json_t *v, struct arena *memory)
{
    if (!v || json_is_null(v)) return NULL;
    if (json_is_string(v)) return reader_value_text(r, v, "result", 64u << 20, memory);
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    char *copy = text ? reader_memory(r, memory, strlen(text) + 1, 1) : NULL;
    if (copy) strcpy(copy, text);
    free(text);
    return copy;
}

int horde_alchemy_result_parse(struct horde_alchemy_result *result, const char *body, size_t length,
                               struct error *err)
{
    struct reader r;
    struct horde_alchemy_result read = {0};
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the result of the alchemy", body, length, err);
    if (!rc) {
        read.state = reader_text(&r, r.root, "state", 255, &read.memory);
        if (!r.rc && !read.state) reader_fail(&r, ERR_FORMAT, "state is missing");
        json_t *list = reader_array(&r, r.root, "forms", HORDE_FORMS_MAX);
        for (size_t i = 0; i < json_array_size(list) && !r.rc; i++, read.count++) {
            json_t *o = json_array_get(list, i);
            struct horde_form_result *to = &read.list[i];
            to->form = reader_text(&r, o, "form", 255, &read.memory);
            to->state = reader_text(&r, o, "state", 255, &read.memory);
            json_t *values = reader_object(&r, o, "result");
            if (!r.rc && (!to->form || !to->state))
                reader_fail(&r, ERR_FORMAT, "forms has an entry without form or state");
            if (!r.rc) to->result = value_text(&r, json_object_get(values, to->form), &read.memory);
        }
        rc = reader_close(&r);
    }
    if (rc)
        horde_alchemy_result_release(&read);
    else
        *result = read;
    return rc;
}

void horde_alchemy_result_release(struct horde_alchemy_result *r)
{
    arena_release(&r->memory);
    memset(r, 0, sizeof *r);
}

/* ---- words ---- */

static void read_words(struct reader *r, const char *group, const json_t *list,
                       struct horde_words *to)
{
    size_t i;
    const json_t *o;
    if (!json_is_array(list)) reader_fail(r, ERR_FORMAT, "a group is no list");
    json_array_foreach(list, i, o)
    {
        if (r->rc) return;
        if (to->count == HORDE_WORDS_MAX) {
            reader_fail(r, ERR_FORMAT, "more than %d words", HORDE_WORDS_MAX);
            return;
        }
        struct alchemy_word *w = &to->list[to->count];
        w->group = group;
        w->text = reader_text(r, o, "text", 1000, &to->memory);
        w->confidence = reader_f64(r, o, "confidence", -1e6, 1e6, 0);
        if (!r->rc && !w->text) reader_fail(r, ERR_FORMAT, "a word has no text");
        to->count++;
    }
}

int horde_words_parse(struct horde_words *words, const char *json, size_t length, struct error *err)
{
    struct reader r;
    struct horde_words read = {0};
    const char *key;
    json_t *list;
    arena_init(&read.memory, READER_MEMORY_MAX);
    int rc = reader_open(&r, "the interrogation", json, length, err);
    if (!rc) {
        if (!json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
        read.list = reader_memory(&r, &read.memory, HORDE_WORDS_MAX, sizeof *read.list);
        json_object_foreach(r.root, key, list)
        {
            if (json_is_null(list)) continue;
            char *group = r.rc ? NULL : reader_memory(&r, &read.memory, strlen(key) + 1, 1);
            if (!group) break;
            strcpy(group, key);
            read_words(&r, group, list, &read);
        }
        rc = reader_close(&r);
    }
    if (rc)
        horde_words_release(&read);
    else
        *words = read;
    return rc;
}

void horde_words_release(struct horde_words *w)
{
    arena_release(&w->memory);
    memset(w, 0, sizeof *w);
}

int64_t alchemy_price_milli(enum alchemy_form f, int tiles, bool slow_workers)
{
    int64_t reward = alchemy_form_result(f) == ALCHEMY_IMAGE ? 3000 * (int64_t)tiles
                     : f == ALCHEMY_INTERROGATION            ? 3000
                                                             : 1000;
    return reward + (slow_workers ? 2000 : 1000);
}
