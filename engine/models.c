#include "engine/models.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/free_memory.h"
#include "base/log.h"
#include "base/str.h"
#include "kernels/device.h"

static bool relieve(void *context);

void models_init(struct models *m, struct device *device, enum precision precision,
                 size_t limit_bytes)
{
    memset(m, 0, sizeof *m);
    m->device = device;
    m->precision = precision;
    m->limit_bytes = limit_bytes;
    loader_init(&m->loader, device);
    device->relief = relieve;
    device->relief_context = m;
}

static void close_slot(struct model_slot *s)
{
    if (s->model) log_info("model.unloaded", "name=\"%s\"", s->name);
    model_close(s->model);
    s->model = NULL;
    s->ahead = false;
}

static void stop_loading(struct models *m)
{
    if (!m->loading) return;
    log_info("model.ahead", "name=\"%s\" text=\"given up\"", m->loading->name);
    loader_stop(&m->loader);
    m->loading = NULL;
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
    stop_loading(m);
    loader_close(&m->loader);
    m->device->relief = NULL;
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
        if (m->loading == s) stop_loading(m);
        if (m->current == s) m->current = NULL;
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
        if (m->slot[i].model) sum += model_device_bytes(m->slot[i].model);
    return sum;
}

/* Closes the least recently used model but these; false when there is none. */
static bool evict(struct models *m, const struct model_slot *keep, const struct model_slot *current)
{
    struct model_slot *oldest = NULL;
    for (int i = 0; i < m->count; i++) {
        struct model_slot *s = &m->slot[i];
        if (!s->model || s == keep || s == current) continue;
        if (!oldest || s->used < oldest->used) oldest = s;
    }
    if (!oldest) return false;
    close_slot(oldest);
    return true;
}

/* device.relief: in the middle of a job, or of loading. What was loaded ahead costs least. */
static bool relieve(void *context)
{
    struct models *m = context;
    if (m->loading) {
        stop_loading(m);
        return true;
    }
    for (int i = 0; i < m->count; i++)
        if (m->slot[i].ahead && m->slot[i].model) {
            close_slot(&m->slot[i]);
            return true;
        }
    return evict(m, NULL, m->current);
}

/* ---- room ---- */

#define HOST_SPARE ((size_t)256 << 20)
#define CARD_SPARE_MOST ((size_t)1 << 30)

/* On the CPU memory is lent without asking, and a process that takes too much is ended. */
static bool host_has_room(const struct models *m, const struct model_slot *s)
{
    return !m->device->host_memory ||
           free_memory_bytes() >= model_files(s->path).bytes + HOST_SPARE;
}

/* Room for one more beside the model in use, which may still grow: idle ones may go for it, as they would
 * when it is asked for. */
static bool room_ahead(struct models *m, const struct model_slot *s)
{
    struct device *d = m->device;
    struct model_files files = model_files(s->path);
    size_t bytes = files.bytes, left = 0;
    if (s->vae_path) bytes += model_files(s->vae_path).bytes;
    if (!bytes || m->ahead == AHEAD_NEVER) return false;
    /* there loading is mapping: what is in memory already is no sooner there for being looked at */
    if (d->host_memory && m->ahead == AHEAD_AUTO && files.cold_bytes < bytes / 8) return false;
    size_t used = m->current && m->current->model ? model_device_bytes(m->current->model) : 0;
    if (m->limit_bytes && used + bytes > m->limit_bytes) return false;
    while (m->limit_bytes && resident_bytes(m) + bytes > m->limit_bytes)
        if (!evict(m, s, m->current)) return false;
    if (d->host_memory) return free_memory_bytes() / 2 >= bytes + HOST_SPARE;
    if (!d->free_bytes) return true;
    size_t spare = d->memory_bytes / 16;
    if (spare > CARD_SPARE_MOST) spare = CARD_SPARE_MOST;
    while (d->free_bytes(d, &left, NULL) == 0 && left < bytes + spare)
        if (!evict(m, s, m->current)) return false;
    return left >= bytes + spare;
}

/* ---- loading ---- */

static void now_resident(struct models *m, struct model_slot *s, bool ahead)
{
    const struct model_info *info = model_info(s->model);
    s->used = ++m->uses;
    s->ahead = ahead;
    if (!s->hash.path) file_hash_start(&s->hash, s->path);
    log_info("model.loaded", "name=\"%s\" family=\"%s\" mib=%zu seconds=%.2f ahead=%d", s->name,
             family_people(info->family), info->weight_bytes >> 20, info->load_seconds, ahead);
}

static int take_ahead(struct models *m, struct error *err)
{
    struct model_slot *s = m->loading;
    m->loading = NULL;
    int rc = loader_take(&m->loader, &s->model, err);
    if (rc == ERR_DEVICE && !m->lost.code) m->lost = *err;
    if (rc)
        log_info("model.ahead", "name=\"%s\" reason=\"%s\"", s->name, err->text);
    else
        now_resident(m, s, true);
    return rc;
}

static int load(struct models *m, struct model_slot *s, struct error *err)
{
    enum precision precision = s->precision == PRECISION_AUTO ? m->precision : s->precision;
    int rc;
    m->current = NULL; /* its job is over */
    while (!host_has_room(m, s) && evict(m, s, NULL)) continue;
    do {
        rc = model_open(&s->model, m->device, s->path, s->vae_path, precision, err);
    } while (rc == ERR_NO_MEMORY && evict(m, s, NULL));
    if (rc) return rc;
    now_resident(m, s, false);
    while (m->limit_bytes && resident_bytes(m) > m->limit_bytes && evict(m, s, NULL)) continue;
    return 0;
}

int models_get(struct models *m, const char *name, struct model **model, struct error *err)
{
    struct model_slot *s = find(m, name);
    struct error ahead = {0};
    int rc = 0;
    if (!s) rc = models_name(m, name, name, NULL, PRECISION_AUTO, err);
    if (!rc && !s) s = find(m, name);
    /* what went wrong beside the work may go right alone */
    if (!rc && m->loading == s && take_ahead(m, &ahead) == ERR_DEVICE) {
        if (err) *err = ahead;
        rc = ERR_DEVICE;
    }
    if (!rc && !s->model) rc = load(m, s, err);
    if (rc) return error_wrap(err, rc, "model %s", name);
    s->used = ++m->uses;
    s->ahead = false;
    m->current = s;
    *model = s->model;
    return 0;
}

bool models_resident(struct models *m, const char *name)
{
    const struct model_slot *s = find(m, name);
    return s && s->model;
}

void models_foresee(struct models *m, const struct model_wish *wish)
{
    struct model_slot *s = find(m, wish->name);
    struct error err = {0};
    models_poll(m);
    if (m->loading || m->lost.code || (s && s->model)) return;
    int rc = models_name(m, wish->name, wish->path ? wish->path : wish->name, wish->vae_path,
                         wish->precision, &err);
    s = find(m, wish->name);
    if (rc || !room_ahead(m, s)) return;
    enum precision precision = s->precision == PRECISION_AUTO ? m->precision : s->precision;
    rc = loader_start(&m->loader, s->path, s->vae_path, precision, &err);
    if (!rc) m->loading = s;
    log_info("model.ahead", "name=\"%s\" text=\"%s\"", s->name, rc ? err.text : "begun");
}

void models_poll(struct models *m)
{
    struct error err = {0};
    if (m->loading && loader_state(&m->loader) == LOADER_DONE) take_ahead(m, &err);
}

const char *models_hash(struct models *m, const char *name, int wait)
{
    struct model_slot *s = find(m, name);
    return s ? file_hash_text(&s->hash, wait) : "";
}

void models_make_room(struct models *m)
{
    stop_loading(m);
    for (int i = 0; i < m->count; i++)
        if (&m->slot[i] != m->current) close_slot(&m->slot[i]);
}

void models_unload(struct models *m, const char *name)
{
    struct model_slot *s = find(m, name);
    if (!s) return;
    if (m->loading == s) stop_loading(m);
    if (m->current == s) m->current = NULL;
    close_slot(s);
}
