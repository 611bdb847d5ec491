#include "store/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/alloc.h"
#include "base/str.h"
#include "store/known.h"

/* "a%20b" -> "a b", for names on disk; the result is checked before it becomes one */
static char *decoded(const char *text, size_t length)
{
    int n = 0;
    char *raw = curl_easy_unescape(NULL, text, (int)length, &n);
    /* "%00": keep it as typed, the check refuses nothing then and no name is cut */
    bool whole = raw && strlen(raw) == (size_t)n;
    char *copy = whole ? alloc_string(raw) : alloc_string_n(text, length);
    curl_free(raw);
    return copy;
}

/* ---- filling in ---- */

static int set_file(struct wanted *w, const char *file, const struct source_options *o,
                    struct error *err)
{
    const char *extension = store_extension(w->kind, file);
    char shown[128];
    str_clean(shown, sizeof shown, file);
    if (!extension)
        return error_set(err, ERR_UNSUPPORTED, "%s: nothing here opens such a file among the %s",
                         shown, store_kind_name(w->kind));
    w->extension = alloc_string(extension);
    if (!w->name) w->name = alloc_string_n(file, strlen(file) - strlen(extension) - 1);
    if (o->name) {
        free(w->name);
        w->name = alloc_string(o->name);
    }
    return store_check_name(w->name, err);
}

static int set_hash(struct wanted *w, const struct source_options *o, struct error *err)
{
    char given[65];
    if (!o->sha256) return 0;
    if (!sha256_normalise(given, o->sha256))
        return error_set(err, ERR_INVALID, "\"%s\" is no SHA-256 of 64 hexadecimal digits",
                         o->sha256);
    if (*w->sha256 && strcmp(w->sha256, given) != 0)
        return error_set(err, ERR_REFUSED, "%s says its SHA-256 is %s, not %s", w->source,
                         w->sha256, given);
    memcpy(w->sha256, given, sizeof given);
    return 0;
}

/* Jobs name models: "Deliberate" must be what the Horde calls so. */
static int keep_names_true(struct wanted *w, const struct reference *r, struct error *err)
{
    struct store_entry e = {.kind = w->kind, .name = w->name};
    const char *meant = reference_sha256(r, &e);
    if (!meant || !strcmp(meant, w->sha256)) return 0;
    if (!*w->sha256) {
        memcpy(w->sha256, meant, sizeof w->sha256);
        return 0;
    }
    return error_set(err, ERR_REFUSED,
                     "the Horde's \"%s\" is another file (SHA-256 %s); choose a name with --as",
                     w->name, meant);
}

/* ---- the places ---- */

static int from_reference(struct wanted *w, const char *word, const struct source_options *o,
                          const struct reference *r, struct error *err)
{
    enum reference_list list;
    const struct reference_model *m = reference_find(r, word, o->kind, &list);
    if (!m) {
        const char *near = reference_nearest(r, word);
        return error_set(err, ERR_NOT_FOUND, "the Horde's lists have no \"%s\"%s%s%s", word,
                         near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    if (m->parts != 1)
        return error_set(err, ERR_UNSUPPORTED, "%s is %d files; Kiln reads models of one", m->name,
                         m->parts);
    if (!m->url) return error_set(err, ERR_NOT_FOUND, "%s: the list says no address", m->name);
    w->kind = reference_kind(list);
    w->name = alloc_string(reference_file_name(list, m));
    w->url = alloc_string(m->url);
    w->source = alloc_string("horde reference");
    w->size_bytes = m->size_bytes;
    str_clean(w->family, sizeof w->family, m->baseline);
    if (m->sha256) memcpy(w->sha256, m->sha256, sizeof w->sha256);
    return set_file(w, m->file, o, err);
}

static int from_known(struct wanted *w, const struct known_file *known,
                      const struct source_options *o, struct error *err)
{
    char *file = alloc_printf("%s.%s", known->file ? known->file : known->name, known->extension);
    w->kind = known->kind;
    w->url = alloc_string(known->url);
    w->source = alloc_string("known file");
    w->size_bytes = known->size_bytes;
    memcpy(w->sha256, known->sha256, sizeof w->sha256);
    int rc = set_file(w, file, o, err);
    free(file);
    return rc;
}

bool source_civitai_kind(const char *type, enum store_kind *kind)
{
    static const struct {
        const char *type;
        enum store_kind kind;
    } types[] = {
        {"Checkpoint", STORE_MODEL},
        {"LORA", STORE_LORA},
        {"LoCon", STORE_LORA},
        {"DoRA", STORE_LORA},
        {"TextualInversion", STORE_EMBEDDING},
        {"Upscaler", STORE_POST},
        {"Controlnet", STORE_CONTROLNET},
    };
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (str_equal_nocase(types[i].type, type)) {
            *kind = types[i].kind;
            return true;
        }
    return false;
}

static const struct civitai_file *choose_file(const struct civitai_version *v, int64_t file_id)
{
    const struct civitai_file *best = NULL;
    for (int i = 0; i < v->count; i++) {
        const struct civitai_file *f = &v->files[i];
        if (file_id && f->id == file_id) return f;
        bool better = !best || (f->primary && !best->primary);
        if (str_equal(f->type, "Model") && better) best = f;
    }
    return file_id ? NULL : best;
}

static int take_version(struct wanted *w, const struct civitai_version *v, int64_t file_id,
                        const struct source_options *o, struct error *err)
{
    char shown[64];
    str_clean(shown, sizeof shown, v->type);
    if (!source_civitai_kind(v->type, &w->kind))
        return error_set(err, ERR_UNSUPPORTED, "its type is %s, which Kiln has no use for", shown);
    if (o->kind != STORE_KIND_COUNT) w->kind = o->kind;
    const struct civitai_file *f = choose_file(v, file_id);
    if (!f) return error_set(err, ERR_NOT_FOUND, "it lists no such file");
    w->url = alloc_string(f->url);
    w->source = alloc_printf("civitai version %lld", (long long)v->id);
    str_clean(w->family, sizeof w->family, v->baseline);
    if (f->sha256) memcpy(w->sha256, f->sha256, sizeof w->sha256);
    return set_file(w, f->name, o, err);
}

static int from_civitai(struct wanted *w, int64_t id, int64_t file_id,
                        const struct source_options *o, struct fetch_client *c, struct error *err)
{
    struct civitai_version v = {0};
    struct fetch_reply reply;
    struct buf text;
    char *url = alloc_printf("https://civitai.com/api/v1/model-versions/%lld", (long long)id);
    buf_init(&text, FETCH_DOCUMENT_BYTES_MAX);
    int rc = fetch_document(c, url, NULL, &text, &reply, err);
    if (!rc)
        rc =
            civitai_version_parse(&v, text.length ? (const char *)text.data : "", text.length, err);
    if (!rc) rc = take_version(w, &v, file_id, o, err);
    if (!rc) rc = fetch_check_url(c, w->url, err);
    if (rc) error_wrap(err, rc, "civitai version %lld", (long long)id);
    civitai_version_release(&v);
    buf_release(&text);
    free(url);
    return rc;
}

static int from_hub(struct wanted *w, const char *path, const struct source_options *o,
                    struct error *err)
{
    const char *rest = path, *at[4];
    for (int i = 0; i < 4; i++) { /* ORG / REPO / resolve / REV / FILE... */
        const char *slash = strchr(rest, '/');
        if (!slash || slash == rest) rest = NULL;
        if (!rest) break;
        at[i] = rest;
        rest = slash + 1;
    }
    if (!rest || !*rest || !(str_starts(at[2], "resolve/") || str_starts(at[2], "blob/")))
        return error_set(err, ERR_INVALID,
                         "a Hugging Face URL has the form "
                         "https://huggingface.co/ORG/REPO/resolve/REV/FILE");
    const char *file = strrchr(path, '/') + 1;
    char *name = decoded(file, strlen(file));
    w->kind = o->kind == STORE_KIND_COUNT ? STORE_MODEL : o->kind;
    w->url =
        alloc_printf("https://huggingface.co/%.*sresolve/%s", (int)(at[2] - path), path, at[3]);
    w->source = alloc_string("hugging face");
    int rc = set_file(w, name, o, err);
    free(name);
    return rc;
}

static int from_any(struct wanted *w, const char *url, const char *path,
                    const struct source_options *o, struct error *err)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    char *name = decoded(file, strlen(file));
    w->kind = o->kind == STORE_KIND_COUNT ? STORE_MODEL : o->kind;
    w->url = alloc_string(url);
    w->source = alloc_string("url");
    int rc = set_file(w, name, o, err);
    free(name);
    return rc;
}

static int64_t number_after(const char *text, const char *word)
{
    const char *found = text ? strstr(text, word) : NULL;
    long long value = 0;
    return found && sscanf(found + strlen(word), "%lld", &value) == 1 && value > 0 ? value : 0;
}

static int from_civitai_url(struct wanted *w, const char *path, const char *query,
                            const struct source_options *o, struct fetch_client *c,
                            struct error *err)
{
    int64_t id = number_after(path, "api/download/models/");
    if (!id) id = number_after(path, "model-versions/");
    if (!id) id = number_after(query, "modelVersionId=");
    if (!id)
        return error_set(err, ERR_INVALID,
                         "which version? A CivitAI URL needs ?modelVersionId=N, or is "
                         "https://civitai.com/api/download/models/N");
    return from_civitai(w, id, number_after(query, "fileId="), o, c, err);
}

static int from_url(struct wanted *w, const char *url, const struct source_options *o,
                    struct fetch_client *c, struct error *err)
{
    int rc = fetch_check_url(c, url, err);
    if (rc) return rc;
    const char *start = strstr(url, "://") + 3;
    size_t host_length = strcspn(start, "/?#");
    const char *after = start + host_length + (start[host_length] == '/');
    char *host = alloc_string_n(start, host_length);
    char *path = alloc_string_n(after, strcspn(after, "?#"));
    const char *query = strchr(after, '?');
    if (str_equal_nocase(host, "huggingface.co"))
        rc = from_hub(w, path, o, err);
    else if (str_equal_nocase(host, "civitai.com"))
        rc = from_civitai_url(w, path, query, o, c, err);
    else
        rc = from_any(w, url, path, o, err);
    free(host);
    free(path);
    return rc;
}

/* hf:ORG/REPO/FILE */
static int from_hub_word(struct wanted *w, const char *word, const struct source_options *o,
                         struct error *err)
{
    const char *slash = strchr(word, '/');
    slash = slash ? strchr(slash + 1, '/') : NULL;
    if (!slash) return error_set(err, ERR_INVALID, "hf:%s has not the form hf:ORG/REPO/FILE", word);
    char *path = alloc_printf("%.*s/resolve/main%s", (int)(slash - word), word, slash);
    int rc = from_hub(w, path, o, err);
    free(path);
    return rc;
}

int source_resolve(struct wanted *to, const char *word, const struct source_options *o,
                   const struct reference *r, struct fetch_client *c, struct error *err)
{
    struct wanted w = {0};
    const struct known_file *known = known_find(word);
    int64_t id = 0;
    int rc;
    if (str_starts(word, "civitai:"))
        rc = str_parse_i64(word + 8, &id) && id > 0
                 ? from_civitai(&w, id, 0, o, c, err)
                 : error_set(err, ERR_INVALID, "%s has not the form civitai:VERSION", word);
    else if (str_starts(word, "hf:"))
        rc = from_hub_word(&w, word + 3, o, err);
    else if (strstr(word, "://"))
        rc = from_url(&w, word, o, c, err);
    else if (known && (o->kind == known->kind || o->kind == STORE_KIND_COUNT))
        rc = from_known(&w, known, o, err);
    else
        rc = from_reference(&w, word, o, r, err);
    if (!rc) rc = set_hash(&w, o, err);
    if (!rc) rc = keep_names_true(&w, r, err);
    if (rc)
        wanted_release(&w);
    else
        *to = w;
    return rc;
}
