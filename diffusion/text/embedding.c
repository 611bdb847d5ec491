#include "diffusion/text/embedding.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/weight_store.h"

/* A textual inversion is one tensor, two for SDXL, and perhaps counters beside them. */
enum { VECTORS_MAX = 75, WIDTH_MAX = 8192, TENSORS_MAX = 8 };

/* Tensors that carry vectors, by the names that trainers give them. */
static bool is_part(const struct safetensors_entry *e)
{
    return (e->rank == 1 || e->rank == 2) && e->dim[e->rank - 1] >= 1 && e->dim[0] >= 1 &&
           (e->dtype == DTYPE_F32 || e->dtype == DTYPE_F16 || e->dtype == DTYPE_BF16 ||
            e->dtype == DTYPE_F64);
}

static int add_part(struct embedding *e, const struct safetensors_entry *entry, struct error *err)
{
    int64_t width = entry->dim[entry->rank - 1], count = entry->rank == 2 ? entry->dim[0] : 1;
    if (width > WIDTH_MAX || count > VECTORS_MAX)
        return error_set(
            err, ERR_INVALID,
            "embedding '%s' has %lld vectors of %lld numbers; the limits are %d and %d", e->name,
            (long long)count, (long long)width, VECTORS_MAX, WIDTH_MAX);
    float *vector = alloc_try((size_t)(width * count), sizeof *vector);
    if (!vector) return error_set(err, ERR_NO_MEMORY, "no memory for embedding '%s'", e->name);
    dtype_convert(vector, DTYPE_F32, entry->data, entry->dtype, width * count);
    e->part[e->parts++] = (struct embedding_part){(int)width, (int)count, vector};
    return 0;
}

int embedding_from_entries(struct embedding *e, const char *name,
                           const struct safetensors_entry *entries, size_t count, struct error *err)
{
    struct embedding made = {.name = alloc_string(name), .strength = 1};
    int rc = 0;
    if (count > TENSORS_MAX)
        rc = error_set(
            err, ERR_FORMAT,
            "embedding '%s': the file holds %zu tensors, a textual inversion has at most %d", name,
            count, TENSORS_MAX);
    for (size_t i = 0; !rc && i < count && made.parts < EMBEDDING_PARTS_MAX; i++) {
        if (!is_part(&entries[i])) continue;
        bool second = embedding_for_width(&made, (int)entries[i].dim[entries[i].rank - 1]) != NULL;
        if (!second) rc = add_part(&made, &entries[i], err);
    }
    if (!rc && !made.parts)
        rc = error_set(err, ERR_FORMAT, "embedding '%s': the file holds no vectors", name);
    if (rc)
        embedding_release(&made);
    else
        *e = made;
    return rc;
}

int embedding_open(struct embedding *e, const char *path, const char *name, struct error *err)
{
    struct weight_store *store;
    int rc = weight_store_open(&store, path, err);
    if (rc) return rc;
    size_t count = weight_store_count(store);
    struct safetensors_entry *entries = alloc_zero(count + 1, sizeof *entries);
    for (size_t i = 0; i < count; i++) entries[i] = *weight_store_at(store, i);
    char *own = name && *name ? alloc_string(name) : str_stem(path);
    rc = embedding_from_entries(e, own, entries, count, err);
    if (rc) error_wrap(err, rc, "%s", path);
    free(own);
    free(entries);
    weight_store_close(store);
    return rc;
}

void embedding_release(struct embedding *e)
{
    free(e->name);
    for (int i = 0; i < e->parts; i++) free(e->part[i].vector);
    *e = (struct embedding){0};
}

const struct embedding_part *embedding_for_width(const struct embedding *e, int width)
{
    for (int i = 0; i < e->parts; i++)
        if (e->part[i].width == width) return &e->part[i];
    return NULL;
}
