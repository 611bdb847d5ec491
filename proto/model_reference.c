#include "proto/model_reference.h"

#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/reader.h"

#define MODELS_MAX 20000
#define FILES_MAX 64
#define NAME_BYTES_MAX 255
#define URL_BYTES_MAX 4096
#define TEXT_BYTES_MAX 16384

bool sha256_normalise(char to[65], const char *text)
{
    char small[65];
    if (!text || strlen(text) != 64) return false;
    for (int i = 0; i < 64; i++) {
        char c = text[i];
        if (c >= 'A' && c <= 'F') c = (char)(c - 'A' + 'a');
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
        small[i] = c;
    }
    small[64] = 0;
    memcpy(to, small, sizeof small);
    return true;
}

static const char *read_sha256(struct reader *r, const json_t *o, const char *key,
                               struct arena *memory)
{
    char hex[65];
    const char *text = reader_text(r, o, key, 128, memory);
    return sha256_normalise(hex, text) ? arena_string(memory, hex) : NULL;
}

static const char *text_or(const char *text, const char *fallback)
{
    return text ? text : fallback;
}

/* ---- the Horde's files ---- */

static const char *url_of(struct reader *r, const json_t *downloads, const char *file,
                          struct arena *memory)
{
    for (size_t i = 0; downloads && i < json_array_size(downloads); i++) {
        const json_t *d = json_array_get(downloads, i);
        const char *name = reader_text(r, d, "file_name", TEXT_BYTES_MAX, memory);
        if (name && str_equal(name, file))
            return reader_text(r, d, "file_url", URL_BYTES_MAX, memory);
    }
    return NULL;
}

static void read_files(struct reader *r, const json_t *config, struct reference_model *m,
                       struct arena *memory)
{
    const json_t *files = reader_array(r, config, "files", FILES_MAX);
    const json_t *downloads = reader_array(r, config, "download", FILES_MAX);
    for (size_t i = 0; files && i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i);
        const char *path = reader_text(r, f, "path", TEXT_BYTES_MAX, memory);
        if (!path || str_ends(path, ".yaml") || str_ends(path, ".json")) continue;
        if (m->parts++) continue;
        const char *slash = strrchr(path, '/');
        m->file = slash ? slash + 1 : path;
        m->sha256 = read_sha256(r, f, "sha256sum", memory);
        m->url = url_of(r, downloads, path, memory);
        if (!m->url && slash) m->url = url_of(r, downloads, m->file, memory);
    }
}

/* A reader of its own for each record, so that what is wrong in one stays there. */
static bool read_model(struct reference_model *to, const char *key, const json_t *o,
                       struct arena *memory)
{
    struct reader r = {.what = key};
    struct reference_model m = {0};
    if (!json_is_object(o) || strlen(key) > NAME_BYTES_MAX) return false;
    m.name = arena_string(memory, key);
    m.baseline = text_or(reader_text(&r, o, "baseline", NAME_BYTES_MAX, memory), "");
    m.style = text_or(reader_text(&r, o, "style", NAME_BYTES_MAX, memory), "");
    m.description = text_or(reader_text(&r, o, "description", TEXT_BYTES_MAX, memory), "");
    m.nsfw = reader_bool(&r, o, "nsfw", false);
    m.inpainting = reader_bool(&r, o, "inpainting", false);
    m.size_bytes = reader_i64(&r, o, "size_on_disk_bytes", 0, INT64_C(1) << 50, 0);
    read_files(&r, reader_object(&r, o, "config"), &m, memory);
    if (r.rc || !m.file) return false;
    *to = m;
    return true;
}

int model_reference_parse(struct model_reference *to, const char *what, const char *text,
                          size_t length, struct error *err)
{
    struct reader r;
    struct model_reference m = {0};
    const char *key;
    json_t *value;
    int rc = reader_open(&r, what, text, length, err);
    if (rc) return rc;
    arena_init(&m.memory, READER_MEMORY_MAX);
    size_t n = json_object_size(r.root);
    if (!json_is_object(r.root) || n > MODELS_MAX)
        reader_fail(&r, ERR_FORMAT, "not an object of at most %d models", MODELS_MAX);
    m.list = reader_memory(&r, &m.memory, n + 1, sizeof *m.list);
    if (!r.rc) json_object_foreach(r.root, key, value)
        {
            if (read_model(&m.list[m.count], key, value, &m.memory))
                m.count++;
            else
                m.skipped++;
        }
    if (!m.count) reader_fail(&r, ERR_FORMAT, "no model in it");
    rc = reader_close(&r);
    if (rc)
        arena_release(&m.memory);
    else
        *to = m;
    return rc;
}

void model_reference_release(struct model_reference *m)
{
    arena_release(&m->memory);
    memset(m, 0, sizeof *m);
}

/* ---- CivitAI ---- */

static bool read_civitai_file(struct civitai_file *to, const json_t *o, struct arena *memory)
{
    struct reader r = {.what = "a file"};
    struct civitai_file f = {0};
    if (!json_is_object(o)) return false;
    f.id = reader_i64(&r, o, "id", 0, INT64_MAX, 0);
    f.name = reader_text(&r, o, "name", TEXT_BYTES_MAX, memory);
    f.type = text_or(reader_text(&r, o, "type", NAME_BYTES_MAX, memory), "");
    f.url = reader_text(&r, o, "downloadUrl", URL_BYTES_MAX, memory);
    f.primary = reader_bool(&r, o, "primary", false);
    f.sha256 = read_sha256(&r, reader_object(&r, o, "hashes"), "SHA256", memory);
    if (r.rc || !f.name || !f.url) return false;
    *to = f;
    return true;
}

int civitai_version_parse(struct civitai_version *to, const char *text, size_t length,
                          struct error *err)
{
    struct reader r;
    struct civitai_version v = {0};
    int rc = reader_open(&r, "CivitAI's answer", text, length, err);
    if (rc) return rc;
    arena_init(&v.memory, READER_MEMORY_MAX);
    if (!json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
    const json_t *model = reader_object(&r, r.root, "model");
    const json_t *files = reader_array(&r, r.root, "files", FILES_MAX);
    size_t n = files ? json_array_size(files) : 0;
    v.id = reader_i64(&r, r.root, "id", 0, INT64_MAX, 0);
    v.version = text_or(reader_text(&r, r.root, "name", TEXT_BYTES_MAX, &v.memory), "");
    v.baseline = text_or(reader_text(&r, r.root, "baseModel", NAME_BYTES_MAX, &v.memory), "");
    v.model = text_or(reader_text(&r, model, "name", TEXT_BYTES_MAX, &v.memory), "");
    v.type = text_or(reader_text(&r, model, "type", NAME_BYTES_MAX, &v.memory), "");
    v.files = reader_memory(&r, &v.memory, n + 1, sizeof *v.files);
    for (size_t i = 0; !r.rc && i < n; i++)
        v.count += read_civitai_file(&v.files[v.count], json_array_get(files, i), &v.memory);
    if (!v.count) reader_fail(&r, ERR_FORMAT, "no file in it");
    rc = reader_close(&r);
    if (rc)
        arena_release(&v.memory);
    else
        *to = v;
    return rc;
}

void civitai_version_release(struct civitai_version *v)
{
    arena_release(&v->memory);
    memset(v, 0, sizeof *v);
}
