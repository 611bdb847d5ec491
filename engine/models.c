#include "engine/models.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/log.h"
#include "base/str.h"

void models_init(struct models *m, struct device *device, enum precision precision,
                 size_t limit_bytes)
{
    memset(m, 0, sizeof *m);
    m->device = device;
    m->precision = precision;
    m->limit_bytes = limit_bytes;
}

static void close_slot(struct model_slot *s)
{
    if (s->model) log_info("model.unloaded", "name=\"%s\"", s->name);
    model_close(s->model);
    s->model = NULL;
}

static void release_slot(struct model_slot *s)
{
    close_slot(s);
    file_hash_stop(&s->hash);
    free(s->name);
    free(s->path);
    free(s->vae_path);
    memset(s, 0, sizeof *s);
}

void models_release(struct models *m)
{
    for (int i = 0; i < m->count; i++) release_slot(&m->slot[i]);
    m->count = 0;
}

static struct model_slot *find(const struct models *m, const char *name)
{
    for (int i = 0; i < m->count; i++)
        if (str_equal(m->slot[i].name, name)) return (struct model_slot *)(uintptr_t)&m->slot[i];
    return NULL;
}

bool precision_find(const char *name, enum precision *precision)
{
    static const char *const names[] = {"auto", "fp32", "bf16", "fp16", "int8"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_equal_nocase(name, names[i])) {
            *precision = (enum precision)i;
            return true;
        }
    return false;
}

/* "pocket" and whatever else comes with the program; any other path as it is. */
static char *resolve(const char *path)
{
    if (!strchr(path, '/')) {
        char *relative = alloc_printf("models/%s", path);
        char *found = data_path_find(relative);
        free(relative);
        if (found) return found;
    }
    return alloc_string(path);
}

bool models_is_named(const struct models *m, const char *name, const char *path,
                     const char *vae_path, enum precision precision)
{
    const struct model_slot *s = find(m, name);
    char *resolved = resolve(path);
    bool same = s && str_equal(s->path, resolved) && str_equal(s->vae_path, vae_path) &&
                s->precision == precision;
    free(resolved);
    return same;
}

int models_name(struct models *m, const char *name, const char *path, const char *vae_path,
                enum precision precision, struct error *err)
{
    if (models_is_named(m, name, path, vae_path, precision)) return 0;
    struct model_slot *s = find(m, name);
    char *resolved = resolve(path);
    if (s) {
        release_slot(s);
    } else if (m->count == MODELS_MAX) {
        free(resolved);
        return error_set(err, ERR_INVALID, "more than %d models named; \"%s\" is one too many",
                         MODELS_MAX, name);
    } else {
        s = &m->slot[m->count++];
    }
    s->name = alloc_string(name);
    s->path = resolved;
    s->vae_path = alloc_string(vae_path);
    s->precision = precision;
    return 0;
}

static size_t resident_bytes(const struct models *m)
{
    size_t sum = 0;
    for (int i = 0; i < m->count; i++)
        if (m->slot[i].model) sum += model_info(m->slot[i].model)->weight_bytes;
    return sum;
}

/* Closes the least recently used model but `keep`; false when there is none. */
static bool evict(struct models *m, const struct model_slot *keep)
{
    struct model_slot *oldest = NULL;
    for (int i = 0; i < m->count; i++) {
        struct model_slot *s = &m->slot[i];
        if (s->model && s != keep && (!oldest || s->used < oldest->used)) oldest = s;
    }
    if (!oldest) return false;
    close_slot(oldest);
    return true;
}

static int load(struct models *m, struct model_slot *s, struct error *err)
{
    enum precision precision = s->precision == PRECISION_AUTO ? m->precision : s->precision;
    int rc;
    do {
        rc = model_open(&s->model, m->device, s->path, s->vae_path, precision, err);
    } while (rc == ERR_NO_MEMORY && evict(m, s));
    if (rc) return rc;
    if (!s->hash.path) file_hash_start(&s->hash, s->path);
    while (m->limit_bytes && resident_bytes(m) > m->limit_bytes && evict(m, s)) continue;
    const struct model_info *info = model_info(s->model);
    log_info("model.loaded", "name=\"%s\" family=\"%s\" mib=%zu seconds=%.2f", s->name,
             family_people(info->family), info->weight_bytes >> 20, info->load_seconds);
    return 0;
}

int models_get(struct models *m, const char *name, struct model **model, struct error *err)
{
    struct model_slot *s = find(m, name);
    int rc = 0;
    if (!s) rc = models_name(m, name, name, NULL, PRECISION_AUTO, err);
    if (!rc && !s) s = find(m, name);
    if (!rc && !s->model) rc = load(m, s, err);
    if (rc) return error_wrap(err, rc, "model %s", name);
    s->used = ++m->uses;
    *model = s->model;
    return 0;
}

const char *models_hash(struct models *m, const char *name, int wait)
{
    struct model_slot *s = find(m, name);
    return s ? file_hash_text(&s->hash, wait) : "";
}

void models_make_room(struct models *m)
{
    for (int i = 0; i < m->count; i++)
        if (m->slot[i].used != m->uses) close_slot(&m->slot[i]);
}

void models_unload(struct models *m, const char *name)
{
    struct model_slot *s = find(m, name);
    if (s) close_slot(s);
}
