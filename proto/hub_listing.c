#include "proto/hub_listing.h"

#include <string.h>

#include "base/str.h"
#include "proto/reader.h"

#define ID_BYTES_MAX 200
#define FILE_BYTES_MAX 255
#define SIBLINGS_MAX 100000

static bool is_weights(const char *file)
{
    static const char *const ends[] = {".safetensors", ".ckpt", ".pt", ".pth", NULL};
    if (strchr(file, '/')) return false;
    for (int i = 0; ends[i]; i++)
        if (str_ends(file, ends[i])) return true;
    return false;
}

/* ORG/REPO of letters, digits, - _ . as the hub allows them: it becomes part of an address. */
static bool is_id(const char *id)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./";
    const char *slash = strchr(id, '/');
    return slash && slash != id && slash[1] && !strchr(slash + 1, '/') && !strstr(id, "..") &&
           strspn(id, letters) == strlen(id);
}

static bool read_repository(struct hub_repository *to, const json_t *o, struct arena *memory)
{
    struct reader r = {.what = "a repository"};
    struct hub_repository v = {0};
    if (!json_is_object(o)) return false;
    v.id = reader_text(&r, o, "id", ID_BYTES_MAX, memory);
    v.downloads = reader_i64(&r, o, "downloads", 0, INT64_MAX, 0);
    const json_t *gated = json_object_get(o, "gated"); /* false, "auto" or "manual" */
    v.gated = json_is_true(gated) || json_is_string(gated);
    const json_t *files = reader_array(&r, o, "siblings", SIBLINGS_MAX);
    for (size_t i = 0; files && i < json_array_size(files) && v.file_count < HUB_FILES_MAX; i++) {
        const json_t *file = json_array_get(files, i);
        struct reader one = {.what = "a file"};
        const char *name = json_is_object(file)
                               ? reader_text(&one, file, "rfilename", FILE_BYTES_MAX, memory)
                               : NULL;
        if (name && !one.rc && is_weights(name)) v.files[v.file_count++] = name;
    }
    if (r.rc || !v.id || !is_id(v.id)) return false;
    *to = v;
    return true;
}

int hub_listing_parse(struct hub_listing *to, const char *text, size_t length, struct error *err)
{
    struct reader r;
    struct hub_listing l = {0};
    int rc = reader_open(&r, "Hugging Face's answer", text, length, err);
    if (rc) return rc;
    arena_init(&l.memory, READER_MEMORY_MAX);
    size_t n = json_is_array(r.root) ? json_array_size(r.root) : 0;
    if (!json_is_array(r.root)) reader_fail(&r, ERR_FORMAT, "not a list");
    if (n > HUB_REPOSITORIES_MAX)
        reader_fail(&r, ERR_FORMAT, "%zu repositories, the limit is %d", n, HUB_REPOSITORIES_MAX);
    l.list = reader_memory(&r, &l.memory, HUB_REPOSITORIES_MAX, sizeof *l.list);
    for (size_t i = 0; i < n && !r.rc; i++)
        l.count += read_repository(&l.list[l.count], json_array_get(r.root, i), &l.memory);
    rc = reader_close(&r);
    if (rc)
        arena_release(&l.memory);
    else
        *to = l;
    return rc;
}

void hub_listing_release(struct hub_listing *l)
{
    arena_release(&l->memory);
    memset(l, 0, sizeof *l);
}
