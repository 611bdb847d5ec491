/* A model's weights and its device: reserved at once, brought in the order of use, handed over. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/model.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/vae/taesd.h"
#include "kernels/weight_pool.h"

struct walk {
    struct model *m;
    enum dtype dtype; /* of activations in this part */
    size_t bytes;
};

/* Every weight that drawing uses, a part after the other in the order of use. */
static int visit_parts(struct walk *walk,
                       int (*visit)(struct weight_visitor *v, struct weight *w,
                                    const struct weight_site *site, struct error *err),
                       struct error *err)
{
    struct model *m = walk->m;
    struct weight_visitor v = {.visit = visit, .context = walk, .err = err};
    walk->dtype = m->dtype;
    for (int i = 0; i < m->text.encoders; i++) clip_text_visit(&v, m->text.encoder[i]);
    if (!v.failed) unet_visit(&v, &m->unet);
    walk->dtype = m->vae_dtype;
    if (!v.failed && m->vae.config.decoder) vae_visit_decoder(&v, &m->vae);
    if (!v.failed && m->vae.config.encoder) vae_visit_encoder(&v, &m->vae);
    return v.failed;
}

static size_t packed_bytes(const struct walk *walk, const struct weight *w)
{
    enum dtype dtype = w->k.rank < 2 ? w->k.dtype : walk->dtype;
    size_t bytes = (size_t)weight_count(w) * dtype_bytes(dtype);
    return (bytes + WEIGHT_POOL_ALIGNMENT - 1) / WEIGHT_POOL_ALIGNMENT * WEIGHT_POOL_ALIGNMENT;
}

static int count_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                     struct error *err)
{
    struct walk *walk = v->context;
    if (!weight_present(w)) return 0;
    walk->bytes += packed_bytes(walk, w);
    w->k.pool = walk->m->pool;
    return 0;
}

int model_reserve(struct model *m, struct error *err)
{
    if (!m->device->fetches) return 0;
    struct walk walk = {.m = m};
    m->pool = weight_pool_new(m->device);
    int rc = visit_parts(&walk, count_one, err);
    if (!rc) rc = weight_pool_reserve(m->pool, walk.bytes, err);
    return rc ? error_wrap(err, rc, "weights of %zu MiB", walk.bytes >> 20) : 0;
}

static int fetch_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                     struct error *err)
{
    struct walk *walk = v->context;
    struct device *d = walk->m->device;
    if (!weight_present(w)) return 0;
    if (device_canceled(d)) return error_set(err, ERR_CANCELED, "not wanted any more");
    return d->kernels->pack(d, &w->k, walk->dtype, err);
}

int model_fetch(struct model *m, struct error *err)
{
    struct walk walk = {.m = m};
    if (!m->device->fetches) {
        for (int i = 0; i < m->store_count; i++)
            if (!weight_store_warm(m->stores[i], m->device->canceled, m->device->canceled_context))
                return error_set(err, ERR_CANCELED, "not wanted any more");
        return 0;
    }
    int rc = visit_parts(&walk, fetch_one, err);
    return rc ? rc : m->device->kernels->finish(m->device, err);
}

void model_move(struct model *m, struct device *to)
{
    pass_memory_put(m->memory);
    pass_memory_put(m->context);
    m->device = to;
    m->memory = pass_memory_get(to, PASS_STEPS);
    m->context = pass_memory_get(to, PASS_CONTEXT);
    weight_pool_move(m->pool, to);
    taesd_move(m->taesd, to);
}

size_t model_device_bytes(const struct model *m)
{
    return m->pool ? weight_pool_bytes(m->pool) : m->info.weight_bytes;
}

/* ---- a guess before it is opened ---- */

static void add_file(struct model_files *f, const char *path, size_t bytes)
{
    static const size_t chunk = (size_t)64 << 20;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), absent = 0;
    unsigned char *here = alloc_try(chunk / page, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    f->bytes += bytes;
    for (size_t at = 0; map != MAP_FAILED && here && at < bytes; at += chunk) {
        size_t part = bytes - at < chunk ? bytes - at : chunk, pages = (part + page - 1) / page;
        if (mincore((char *)map + at, part, here)) break;
        for (size_t i = 0; i < pages; i++) absent += !(here[i] & 1);
    }
    f->cold_bytes += absent * page;
    if (map != MAP_FAILED) munmap(map, bytes);
    if (fd >= 0) close(fd);
    free(here);
}

/* Of a component's folder: its safetensors, or where there are none its pickles. */
static void add_folder(struct model_files *f, const char *path, bool parts)
{
    static const char *const kinds[] = {".safetensors", ".bin"};
    size_t before = f->bytes;
    for (size_t k = 0; k < COUNT_OF(kinds) && f->bytes == before; k++) {
        DIR *folder = opendir(path);
        for (struct dirent *e; folder && (e = readdir(folder));) {
            struct stat st;
            char *inner = alloc_printf("%s/%s", path, e->d_name);
            if (e->d_name[0] != '.' && stat(inner, &st) == 0) {
                if (S_ISDIR(st.st_mode) && parts && !k) add_folder(f, inner, false);
                if (S_ISREG(st.st_mode) && st.st_size > 0 && str_ends(e->d_name, kinds[k]))
                    add_file(f, inner, (size_t)st.st_size);
            }
            free(inner);
        }
        if (folder) closedir(folder);
    }
}

struct model_files model_files(const char *path)
{
    struct stat st;
    struct model_files f = {0};
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            add_folder(&f, path, true);
        else if (st.st_size > 0)
            add_file(&f, path, (size_t)st.st_size);
    }
    return f;
}
