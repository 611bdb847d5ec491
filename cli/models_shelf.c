/* models_shelf.c - what lies in the store: list, rm, verify. */
#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "base/str.h"
#include "cli/models_run.h"
#include "cli/table.h"

static void list_json(const struct store_list *l, struct buf *out)
{
    struct json_write w;
    json_write_start(&w, out);
    json_write_array(&w, NULL);
    for (int i = 0; i < l->count; i++) {
        const struct store_entry *e = &l->entries[i];
        json_write_object(&w, NULL);
        json_write_text(&w, "name", e->name);
        json_write_text(&w, "kind", store_kind_name(e->kind));
        json_write_text(&w, "file", e->file);
        json_write_text(&w, "state", store_state_name(e->state));
        json_write_int(&w, "bytes", e->bytes);
        json_write_text(&w, "sha256", *e->sha256 ? e->sha256 : NULL);
        json_write_text(&w, "source", *e->source ? e->source : NULL);
        json_write_int(&w, "checked_ms", e->checked_ms);
        json_write_close(&w, '}');
    }
    json_write_close(&w, ']');
    if (!json_write_end(&w, NULL)) fwrite(out->data, 1, out->length, stdout);
}

int models_list(struct models_run *m, struct error *err)
{
    struct store_list l;
    struct table t;
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    if (m->json) {
        struct buf out;
        buf_init(&out, 64u << 20);
        list_json(&l, &out);
        buf_release(&out);
    } else if (!l.count) {
        fprintf(stderr, "nothing in %s; kiln models search WORD, kiln models get NAME\n",
                m->store.folder);
    } else {
        table_start(&t, "name|kind|state|>size|checked|from");
        for (int i = 0; i < l.count; i++) {
            const struct store_entry *e = &l.entries[i];
            char size[24], when[24];
            table_row(&t, e->name, store_kind_name(e->kind), store_state_name(e->state),
                      format_bytes(size, e->bytes), format_when(when, e->checked_ms), e->source);
        }
        table_print(&t);
    }
    store_list_release(&l);
    return 0;
}

int models_rm(struct models_run *m, struct error *err)
{
    struct store_list l;
    const struct store_entry *e;
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    rc = store_find(&e, &l, m->word, err);
    if (!rc) rc = store_remove(&m->store, e, err);
    if (!rc) fprintf(stderr, "removed %s/%s\n", store_kind_name(e->kind), e->file);
    store_list_release(&l);
    return rc;
}

static int verify_one(struct models_run *m, const struct store_entry *e, struct table *t,
                      struct error *err)
{
    char given[65] = "", sha256[65] = "";
    const char *known = reference_sha256(&m->reference, e);
    enum store_state state = e->state;
    if (m->source.sha256 && !sha256_normalise(given, m->source.sha256))
        return error_set(err, ERR_INVALID, "\"%s\" is no SHA-256 of 64 hexadecimal digits",
                         m->source.sha256);
    if (*given) known = given;
    int rc = store_verify(&m->store, e, known, models_progress, m, &state, sha256, err);
    progress_end(&m->progress);
    if (!rc || rc == ERR_FORMAT)
        table_row(t, e->name, store_kind_name(e->kind), rc ? "bad" : store_state_name(state),
                  sha256);
    return rc;
}

static int verify_all(struct models_run *m, const struct store_list *l, struct table *t,
                      struct error *err)
{
    struct error first = {0};
    int bad = 0;
    for (int i = 0; i < l->count; i++) {
        struct error one = {0};
        if (l->entries[i].state >= STORE_PARTIAL) continue;
        if (!verify_one(m, &l->entries[i], t, &one)) continue;
        fprintf(stderr, "kiln models: %s\n", one.text);
        if (!bad++) first = one;
    }
    if (bad) error_set(err, first.code, "%d of %d did not pass", bad, l->count);
    return first.code;
}

int models_verify(struct models_run *m, struct error *err)
{
    struct store_list l;
    struct table t;
    struct error ignored;
    const struct store_entry *e = NULL;
    if (m->source.sha256 && !m->word)
        return error_set(err, ERR_INVALID, "--sha256 is for one file; name it");
    reference_open(&m->reference, &m->store, NULL, &ignored); /* the copy at hand, if any */
    int rc = store_read_list(&l, &m->store, err);
    if (rc) return rc;
    if (m->word) rc = store_find(&e, &l, m->word, err);
    if (!rc) {
        table_start(&t, "name|kind|state|sha-256");
        rc = m->word ? verify_one(m, e, &t, err) : verify_all(m, &l, &t, err);
        table_print(&t);
    }
    store_list_release(&l);
    return rc;
}
