#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/json_write.h"
#include "base/str.h"
#include "cli/models_run.h"
#include "cli/table.h"

#define SHOWN_MAX 40

static bool contains(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (; *text; text++)
        if (!strncasecmp(text, word, length)) return true;
    return !length;
}

static void search_row(struct table *t, struct json_write *w, enum reference_list list,
                       const struct reference_model *x, enum store_state state, bool here)
{
    char size[24] = "-", about[64];
    const char *kind = store_kind_name(reference_kind(list));
    if (!w->out) {
        if (x->size_bytes) format_bytes(size, x->size_bytes);
        str_copy(about, sizeof about, x->description);
        table_row(t, x->name, kind, x->baseline, x->style, size, x->nsfw ? "yes" : "",
                  here ? store_state_name(state) : "", about);
        return;
    }
    json_write_object(w, NULL);
    json_write_text(w, "name", x->name);
    json_write_text(w, "kind", kind);
    json_write_text(w, "baseline", x->baseline);
    json_write_text(w, "style", x->style);
    json_write_text(w, "description", x->description);
    json_write_int(w, "size_bytes", x->size_bytes);
    json_write_bool(w, "nsfw", x->nsfw);
    json_write_bool(w, "inpainting", x->inpainting);
    json_write_text(w, "sha256", x->sha256);
    json_write_text(w, "url", x->url);
    json_write_text(w, "state", here ? store_state_name(state) : NULL);
    json_write_close(w, '}');
}

static const struct store_entry *entry_of(const struct store_list *here, enum reference_list list,
                                          const struct reference_model *x)
{
    for (int i = 0; i < here->count; i++)
        if (here->entries[i].kind == reference_kind(list) &&
            str_equal(here->entries[i].name, reference_file_name(list, x)))
            return &here->entries[i];
    return NULL;
}

static int search_market(struct models_run *m, struct error *err)
{
    int64_t limit = m->limit > 0 ? m->limit : SHOWN_MAX;
    if (m->offline)
        return error_set(err, ERR_INVALID, "--from and --offline contradict each other");
    if (!m->word || !*m->word)
        return error_set(err, ERR_INVALID, "--from needs a WORD: its lists are too long to show");
    if (limit > MARKET_LIMIT_MAX)
        return error_set(err, ERR_INVALID, "--limit %lld: at most %d at once from there",
                         (long long)limit, MARKET_LIMIT_MAX);
    return market_search(&m->client, m->from, m->word, m->source.kind, (int)limit, m->json, err);
}

int models_search(struct models_run *m, struct error *err)
{
    if (m->from != MARKET_HORDE) return search_market(m, err);
    struct store_list here = {0};
    struct buf out;
    struct json_write w = {0};
    struct table t;
    int found = 0, shown = 0, limit = m->limit > 0 ? (int)m->limit : m->json ? 100000 : SHOWN_MAX;
    int rc = models_open_reference(m, err);
    if (!rc) rc = store_read_list(&here, &m->store, err);
    if (rc) return rc;
    buf_init(&out, 64u << 20);
    if (m->json) json_write_start(&w, &out);
    if (m->json) json_write_array(&w, NULL);
    for (int l = 0; l < REFERENCE_COUNT; l++)
        for (int i = 0; i < m->reference.lists[l].count; i++) {
            const struct reference_model *x = &m->reference.lists[l].list[i];
            const char *word = m->word ? m->word : "";
            enum store_kind kind = m->source.kind;
            if (kind != STORE_KIND_COUNT && kind != reference_kind((enum reference_list)l))
                continue;
            if (!contains(x->name, word) && !contains(x->description, word) &&
                !contains(x->baseline, word) && !contains(x->style, word))
                continue;
            if (++found > limit) continue;
            if (!m->json && found == 1)
                table_start(&t, "name|kind|family|style|>size|nsfw|here|about");
            const struct store_entry *e = entry_of(&here, (enum reference_list)l, x);
            search_row(&t, &w, (enum reference_list)l, x, e ? e->state : STORE_OWN, e != NULL);
            shown++;
        }
    if (m->json) {
        json_write_close(&w, ']');
        rc = json_write_end(&w, err);
        if (!rc) fwrite(out.data, 1, out.length, stdout);
    } else if (found) {
        table_print(&t);
    }
    if (!rc && shown < found)
        fprintf(stderr, "%d more; --limit %d shows all\n", found - shown, found);
    if (!rc && !found)
        rc = error_set(err, ERR_NOT_FOUND, "the Horde's lists have nothing with \"%s\"",
                       m->word ? m->word : "");
    buf_release(&out);
    store_list_release(&here);
    return rc;
}
