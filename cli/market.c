#include "cli/market.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/json_write.h"
#include "base/str.h"
#include "cli/table.h"
#include "proto/civitai.h"
#include "proto/hub_listing.h"
#include "store/source.h"

struct listing { /* what is found, on its way out */
    struct table table;
    struct json_write w;
    struct buf out;
    bool json;
    int found, limit;
};

bool market_find(const char *name, enum market *m)
{
    static const char *const names[] = {"horde", "civitai", "huggingface"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_equal(names[i], name)) {
            *m = (enum market)i;
            return true;
        }
    return false;
}

static void add(struct listing *l, const char *get, const char *name, const char *kind,
                const char *family, int64_t bytes, const char *note)
{
    char size[24] = "-";
    if (++l->found > l->limit) return;
    if (!l->json) {
        if (l->found == 1) table_start(&l->table, "kiln models get|name|kind|family|>size|note");
        if (bytes) format_bytes(size, bytes);
        table_row(&l->table, get, name, kind, family, size, note);
        return;
    }
    json_write_object(&l->w, NULL);
    json_write_text(&l->w, "get", get);
    json_write_text(&l->w, "name", name);
    json_write_text(&l->w, "kind", *kind ? kind : NULL);
    json_write_text(&l->w, "baseline", *family ? family : NULL);
    json_write_int(&l->w, "size_bytes", bytes);
    json_write_text(&l->w, "note", *note ? note : NULL);
    json_write_close(&l->w, '}');
}

/* ---- CivitAI ---- */

static char *civitai_question(const char *word, enum store_kind kind, int limit)
{
    static const char *const types[STORE_KIND_COUNT] = {
        [STORE_MODEL] = "&types=Checkpoint",
        [STORE_POST] = "&types=Upscaler",
        [STORE_CONTROLNET] = "&types=Controlnet",
        [STORE_LORA] = "&types=LORA&types=LoCon&types=DoRA",
        [STORE_EMBEDDING] = "&types=TextualInversion",
    };
    const char *type = kind < STORE_KIND_COUNT && types[kind] ? types[kind] : "";
    return alloc_printf("https://civitai.com/api/v1/models?limit=%d%s&query=%s", limit, type, word);
}

/* The newest version of each model that a folder here is for. */
static int read_civitai(struct listing *to, const struct buf *text, enum store_kind wanted,
                        struct error *err)
{
    struct civitai_listing l = {0};
    int rc =
        civitai_listing_parse(&l, text->length ? (const char *)text->data : "", text->length, err);
    if (rc) return rc;
    for (int i = 0; i < l.count; i++) {
        const struct civitai_release *v = &l.releases[i];
        enum store_kind kind;
        char get[40], words[80] = "";
        bool older = i && v->model_id && l.releases[i - 1].model_id == v->model_id;
        if (older || !source_civitai_kind(v->type, &kind)) continue;
        if (wanted != STORE_KIND_COUNT && wanted != kind) continue;
        snprintf(get, sizeof get, "civitai:%lld", (long long)v->id);
        if (v->word_count) str_copy(words, sizeof words, v->words[0]);
        add(to, get, v->model, store_kind_name(kind), v->baseline, v->size_bytes, words);
    }
    civitai_listing_release(&l);
    return 0;
}

/* ---- Hugging Face ---- */

static char *hub_question(const char *word, enum store_kind kind, int limit)
{
    const char *filter = kind == STORE_MODEL        ? "&pipeline_tag=text-to-image"
                         : kind == STORE_LORA       ? "&filter=lora"
                         : kind == STORE_CONTROLNET ? "&filter=controlnet"
                                                    : "";
    return alloc_printf("https://huggingface.co/api/models?limit=%d&full=true%s&search=%s", limit,
                        filter, word);
}

static int read_hub(struct listing *to, const struct buf *text, enum store_kind kind,
                    struct error *err)
{
    struct hub_listing l = {0};
    int rc = hub_listing_parse(&l, text->length ? (const char *)text->data : "", text->length, err);
    if (rc) return rc;
    const char *of = kind == STORE_KIND_COUNT ? "" : store_kind_name(kind);
    for (int i = 0; i < l.count; i++)
        for (int k = 0; k < l.list[i].file_count; k++) {
            char *get = alloc_printf("hf:%s/%s", l.list[i].id, l.list[i].files[k]);
            add(to, get, l.list[i].id, of, "", 0,
                l.list[i].gated ? "gated: agree on its page, then HF_TOKEN" : "");
            free(get);
        }
    hub_listing_release(&l);
    return 0;
}

/* ---- both ---- */

static int print(struct listing *l, const char *where, const char *word, struct error *err)
{
    int rc = 0;
    if (l->json) {
        json_write_close(&l->w, ']');
        rc = json_write_end(&l->w, err);
        if (!rc) fwrite(l->out.data, 1, l->out.length, stdout);
    } else if (l->found) {
        table_print(&l->table);
    }
    if (!rc && l->found > l->limit)
        fprintf(stderr, "more than --limit %d; a narrower word, or a larger limit\n", l->limit);
    if (!rc && !l->found)
        rc = error_set(err, ERR_NOT_FOUND, "%s has no file for Kiln with \"%s\"", where, word);
    return rc;
}

int market_search(struct fetch_client *c, enum market m, const char *word, enum store_kind kind,
                  int limit, bool json, struct error *err)
{
    struct listing l = {.json = json, .limit = limit};
    struct fetch_reply reply = {0};
    struct buf text;
    char *escaped = curl_easy_escape(NULL, word, 0);
    char *url = m == MARKET_CIVITAI ? civitai_question(escaped, kind, limit)
                                    : hub_question(escaped, kind, limit);
    buf_init(&text, FETCH_DOCUMENT_BYTES_MAX);
    buf_init(&l.out, 16u << 20);
    if (json) json_write_start(&l.w, &l.out);
    if (json) json_write_array(&l.w, NULL);
    int rc = fetch_document(c, url, "", &text, &reply, err);
    if (!rc)
        rc = m == MARKET_CIVITAI ? read_civitai(&l, &text, kind, err)
                                 : read_hub(&l, &text, kind, err);
    if (rc == ERR_NOT_FOUND && reply.status == 200) rc = 0; /* a list of nothing: said below */
    if (!rc) rc = print(&l, m == MARKET_CIVITAI ? "CivitAI" : "Hugging Face", word, err);
    buf_release(&l.out);
    buf_release(&text);
    free(url);
    curl_free(escaped);
    return rc;
}
