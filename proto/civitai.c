#include "proto/civitai.h"

#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/str.h"
#include "proto/model_reference.h"
#include "proto/reader.h"

#define FILES_MAX 64
#define ITEMS_MAX 100
#define NAME_BYTES_MAX 255
#define URL_BYTES_MAX 4096
#define WORD_BYTES_MAX 4096

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

/* The primary file of weights, else the first; safetensors before anything else. */
static bool read_file(struct civitai_release *to, const json_t *o, struct arena *memory, int *best)
{
    struct reader r = {.what = "a file"};
    char hex[65];
    if (!json_is_object(o)) return false;
    const char *name = reader_text(&r, o, "name", NAME_BYTES_MAX, memory);
    const char *url = reader_text(&r, o, "downloadUrl", URL_BYTES_MAX, memory);
    const char *type = reader_text(&r, o, "type", NAME_BYTES_MAX, memory);
    bool primary = reader_bool(&r, o, "primary", false);
    double kib = reader_f64(&r, o, "sizeKB", 0, 1e12, 0);
    const json_t *hashes = reader_object(&r, o, "hashes");
    const char *sha256 = reader_text(&r, hashes, "SHA256", 128, memory);
    if (r.rc || !name || !url || (type && !str_equal(type, "Model"))) return false;
    const char *dot = strrchr(name, '.');
    int worth = 1 + primary + 2 * (dot && str_equal_nocase(dot, ".safetensors"));
    if (worth <= *best) return false;
    *best = worth;
    to->file = name;
    to->url = url;
    to->sha256 = sha256_normalise(hex, sha256) ? arena_string(memory, hex) : NULL;
    to->size_bytes = (int64_t)(kib * 1024);
    return true;
}

static bool read_release(struct civitai_release *to, const json_t *version, const json_t *model,
                         struct arena *memory)
{
    struct reader r = {.what = "a version"};
    struct civitai_release v = {0};
    int best = 0;
    if (!json_is_object(version)) return false;
    v.id = reader_i64(&r, version, "id", 1, INT64_MAX, 0);
    v.model_id = reader_i64(&r, model, "id", 1, INT64_MAX, 0);
    v.baseline = text_or_empty(reader_text(&r, version, "baseModel", NAME_BYTES_MAX, memory));
    v.model = text_or_empty(reader_text(&r, model, "name", NAME_BYTES_MAX, memory));
    v.type = text_or_empty(reader_text(&r, model, "type", NAME_BYTES_MAX, memory));
    v.words = reader_texts(&r, version, "trainedWords", CIVITAI_WORDS_MAX, WORD_BYTES_MAX, memory,
                           &v.word_count);
    const json_t *files = reader_array(&r, version, "files", FILES_MAX);
    for (size_t i = 0; files && i < json_array_size(files); i++)
        read_file(&v, json_array_get(files, i), memory, &best);
    if (r.rc || !v.id || !v.url) return false;
    *to = v;
    return true;
}

static void read_model(struct civitai_listing *l, struct reader *r, const json_t *model)
{
    struct reader mine = {.what = "a model"};
    const json_t *versions = json_is_object(model)
                                 ? reader_array(&mine, model, "modelVersions", CIVITAI_VERSIONS_MAX)
                                 : NULL;
    for (size_t i = 0; versions && i < json_array_size(versions); i++)
        if (l->count < CIVITAI_VERSIONS_MAX && !r->rc)
            l->count += read_release(&l->releases[l->count], json_array_get(versions, i), model,
                                     &l->memory);
}

int civitai_listing_parse(struct civitai_listing *to, const char *text, size_t length,
                          struct error *err)
{
    struct reader r;
    struct civitai_listing l = {0};
    int rc = reader_open(&r, "CivitAI's answer", text, length, err);
    if (rc) return rc;
    arena_init(&l.memory, READER_MEMORY_MAX);
    if (!json_is_object(r.root)) reader_fail(&r, ERR_FORMAT, "not an object");
    l.releases = reader_memory(&r, &l.memory, CIVITAI_VERSIONS_MAX, sizeof *l.releases);
    const json_t *items = r.rc ? NULL : reader_array(&r, r.root, "items", ITEMS_MAX);
    for (size_t i = 0; !r.rc && items && i < json_array_size(items); i++)
        read_model(&l, &r, json_array_get(items, i));
    if (!r.rc && !items) read_model(&l, &r, r.root);
    if (!r.rc && !items && !l.count)
        l.count =
            read_release(&l.releases[0], r.root, reader_object(&r, r.root, "model"), &l.memory);
    if (!r.rc && !l.count)
        reader_fail(&r, items ? ERR_NOT_FOUND : ERR_FORMAT, "no version with a file in it");
    rc = reader_close(&r);
    if (rc)
        arena_release(&l.memory);
    else
        *to = l;
    return rc;
}

void civitai_listing_release(struct civitai_listing *l)
{
    arena_release(&l->memory);
    memset(l, 0, sizeof *l);
}

enum civitai_fit civitai_fit(const char *baseline, enum family family)
{
    static const struct {
        const char *start;
        enum family family;
    } known[] = {
        {"SD 1", FAMILY_SD1},      {"SD 2", FAMILY_SD2_512}, {"SDXL", FAMILY_SDXL},
        {"Pony V7", FAMILY_COUNT}, {"Pony", FAMILY_SDXL},    {"Illustrious", FAMILY_SDXL},
        {"NoobAI", FAMILY_SDXL},
    };
    if (!*baseline || str_equal_nocase(baseline, "Other")) return CIVITAI_UNSAID;
    if (family == FAMILY_SD2_768) family = FAMILY_SD2_512;
    if (family == FAMILY_SDXL_REFINER) family = FAMILY_SDXL;
    for (unsigned i = 0; i < COUNT_OF(known); i++)
        if (!strncasecmp(baseline, known[i].start, strlen(known[i].start)))
            return known[i].family == family ? CIVITAI_FITS : CIVITAI_OTHER_FAMILY;
    return CIVITAI_OTHER_FAMILY;
}
