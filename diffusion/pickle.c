#include "diffusion/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/map_file.h"
#include "base/str.h"
#include "diffusion/pickle_reader.h"

#define TENSORS_MAX 20000
#define VISITS_MAX 500000
#define NAME_BYTES 512
#define DICT_DEPTH_MAX 6

/* PROTO 2, LONG1 of ten bytes, torch's magic number, STOP */
static const uint8_t legacy_head[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                      0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

struct flattening {
    struct pickle *file;
    struct pickle_reader *r;
    size_t room, visits;
    char name[NAME_BYTES];
};

static int by_key(const void *a, const void *b)
{
    return strcmp((*(struct value *const *)a)->text, (*(struct value *const *)b)->text);
}

/* ---- where the storages' bytes are ---- */

static int find_zip_storages(struct pickle_reader *r, const char *root)
{
    for (size_t i = 0; i < r->storage_count; i++) {
        struct value *s = r->storages[i];
        char name[NAME_BYTES], shown[64];
        int n = snprintf(name, sizeof name, "%s/data/%s", root, s->text);
        const struct zip_member *m =
            n > 0 && (size_t)n < sizeof name ? zip_members_find(r, name) : NULL;
        size_t need;
        str_clean(shown, sizeof shown, s->text);
        if (!m) return pickle_fail(r, ERR_FORMAT, "the storage %s is missing", shown);
        if (!size_mul((size_t)s->integer, dtype_bytes(s->dtype), &need) || need > m->length)
            return pickle_fail(r, ERR_FORMAT, "the storage %s is shorter than its %lld elements",
                               shown, (long long)s->integer);
        s->data = m->data;
        s->data_bytes = m->length;
    }
    return 0;
}

static int run_zip(struct pickle_reader *r, const uint8_t *data, size_t length, struct value **root)
{
    int rc = zip_members_read(r, data, length);
    if (rc) return rc;
    const struct zip_member *pickle = NULL;
    for (size_t i = 0; i < r->member_count; i++)
        if (str_ends(r->members[i].name, "/data.pkl")) pickle = &r->members[i];
    if (!pickle)
        return pickle_fail(r, ERR_FORMAT, "is a ZIP archive but no torch checkpoint (no data.pkl)");
    char folder[NAME_BYTES], name[NAME_BYTES + 16];
    snprintf(folder, sizeof folder, "%.*s", (int)(strlen(pickle->name) - strlen("/data.pkl")),
             pickle->name);
    snprintf(name, sizeof name, "%s/byteorder", folder);
    const struct zip_member *order = zip_members_find(r, name);
    if (order && (order->length < 6 || memcmp(order->data, "little", 6) != 0))
        return pickle_fail(r, ERR_UNSUPPORTED, "was written by a big-endian machine");
    const uint8_t *at = pickle->data;
    *root = pickle_run(r, &at, pickle->data + pickle->length);
    return r->failed ? r->failed : find_zip_storages(r, folder);
}

static int legacy_storage(struct pickle_reader *r, const char *key, const uint8_t **at,
                          const uint8_t *end)
{
    struct value probe = {.text = key}, *want = &probe;
    char shown[64];
    str_clean(shown, sizeof shown, key);
    struct value **hit = r->storage_count
                             ? bsearch(&want, r->storages, r->storage_count, sizeof want, by_key)
                             : NULL;
    if (!hit) return pickle_fail(r, ERR_FORMAT, "the storage %s belongs to no tensor", shown);
    if (end - *at < 8) return pickle_fail(r, ERR_FORMAT, "the file is cut short");
    uint64_t count = 0;
    for (int i = 7; i >= 0; i--) count = count << 8 | (*at)[i];
    *at += 8;
    size_t bytes;
    if (count > SIZE_MAX || !size_mul((size_t)count, dtype_bytes((*hit)->dtype), &bytes) ||
        bytes > (size_t)(end - *at))
        return pickle_fail(r, ERR_FORMAT, "the storage %s runs past the end of the file", shown);
    while (hit > r->storages && by_key(hit - 1, &want) == 0) hit--;
    for (; hit < r->storages + r->storage_count && by_key(hit, &want) == 0; hit++) {
        (*hit)->data = *at;
        (*hit)->data_bytes = bytes;
        if ((uint64_t)(*hit)->integer > count)
            return pickle_fail(r, ERR_FORMAT, "the storage %s is shorter than its tensors say",
                               shown);
    }
    *at += bytes;
    return 0;
}

static int run_legacy(struct pickle_reader *r, const uint8_t *data, size_t length,
                      struct value **root)
{
    const uint8_t *at = data, *end = data + length;
    if (length < sizeof legacy_head || memcmp(data, legacy_head, sizeof legacy_head) != 0)
        return pickle_fail(r, ERR_UNSUPPORTED, "is a pickle but no torch checkpoint");
    at += sizeof legacy_head;
    struct value *protocol = pickle_run(r, &at, end), *info = pickle_run(r, &at, end);
    if (!protocol || !info) return r->failed;
    if (protocol->kind != VALUE_INTEGER || protocol->integer != 1001)
        return pickle_fail(r, ERR_UNSUPPORTED, "has an unknown protocol of torch's old form");
    *root = pickle_run(r, &at, end);
    struct value *keys = *root ? pickle_run(r, &at, end) : NULL;
    if (!keys) return r->failed;
    if (keys->kind != VALUE_TUPLE) return pickle_fail(r, ERR_FORMAT, "lacks its list of storages");
    if (r->storage_count) qsort(r->storages, r->storage_count, sizeof *r->storages, by_key);
    int rc = 0;
    for (size_t i = 0; !rc && i < keys->count; i++)
        rc = keys->item[i]->kind == VALUE_STRING
                 ? legacy_storage(r, keys->item[i]->text, &at, end)
                 : pickle_fail(r, ERR_FORMAT, "has a storage without a name");
    return rc;
}

/* ---- from values to tensors ---- */

static bool integers(const struct value *v, int64_t *out, size_t count)
{
    if (v->kind != VALUE_TUPLE || v->count != count) return false;
    for (size_t i = 0; i < count; i++) {
        if (v->item[i]->kind != VALUE_INTEGER || v->item[i]->integer < 0) return false;
        out[i] = v->item[i]->integer;
    }
    return true;
}

static void copy_strided(uint8_t *to, const uint8_t *from, size_t size, int rank,
                         const int64_t *dim, const int64_t *stride)
{
    int64_t index[SAFETENSORS_RANK_MAX] = {0}, total = 1;
    for (int i = 0; i < rank; i++) total *= dim[i];
    for (int64_t n = 0; n < total; n++) {
        int64_t at = 0;
        for (int i = 0; i < rank; i++) at += index[i] * stride[i];
        memcpy(to + (size_t)n * size, from + (size_t)at * size, size);
        for (int i = rank - 1; i >= 0 && ++index[i] == dim[i]; i--) index[i] = 0;
    }
}

static int tensor_entry(struct flattening *f, const struct value *v, struct safetensors_entry *e)
{
    struct pickle_reader *r = f->r;
    char shown[96];
    str_clean(shown, sizeof shown, f->name);
    const struct value *s = v->item[0], *shape = v->item[2];
    int64_t stride[SAFETENSORS_RANK_MAX], count = 1, reach = 0;
    if (s->kind != VALUE_STORAGE || v->item[1]->kind != VALUE_INTEGER || v->item[1]->integer < 0 ||
        shape->kind != VALUE_TUPLE || shape->count > SAFETENSORS_RANK_MAX || !s->data)
        return pickle_fail(r, ERR_FORMAT, "the tensor %s is not built from a storage", shown);
    int64_t offset = v->item[1]->integer;
    e->rank = (int)shape->count;
    e->dtype = s->dtype;
    if (!integers(shape, e->dim, shape->count) || !integers(v->item[3], stride, shape->count))
        return pickle_fail(r, ERR_FORMAT, "the tensor %s has an odd shape or stride", shown);
    bool contiguous = true, overflow = false;
    for (int i = e->rank - 1; i >= 0; i--) {
        int64_t step;
        if (e->dim[i] != 1 && stride[i] != count) contiguous = false;
        overflow |= __builtin_mul_overflow(count, e->dim[i], &count);
        if (e->dim[i] == 0) continue;
        overflow |= __builtin_mul_overflow(e->dim[i] - 1, stride[i], &step);
        overflow |= __builtin_add_overflow(reach, step, &reach);
        if (overflow) break;
    }
    if (overflow || count > s->integer || offset > s->integer ||
        (count > 0 && reach >= s->integer - offset))
        return pickle_fail(r, ERR_FORMAT, "the tensor %s reaches past its storage", shown);
    size_t size = dtype_bytes(e->dtype);
    const uint8_t *data = s->data + (size_t)offset * size;
    e->bytes = (size_t)count * size;
    e->data = data;
    if (contiguous || count == 0) return 0;
    uint8_t *copy = alloc_try((size_t)count, size);
    if (!copy) return pickle_fail(r, ERR_NO_MEMORY, "no memory for the tensor %s", shown);
    r->copies = alloc_grow(r->copies, r->copy_count + 1, sizeof *r->copies);
    r->copies[r->copy_count++] = copy;
    copy_strided(copy, data, size, e->rank, e->dim, stride);
    e->data = copy;
    return 0;
}

static int add_tensor(struct flattening *f, const struct value *v)
{
    struct pickle *file = f->file;
    if (file->count == TENSORS_MAX)
        return pickle_fail(f->r, ERR_FORMAT, "holds more than %d tensors", TENSORS_MAX);
    if (file->count == f->room) {
        f->room = f->room ? 2 * f->room : 256;
        file->entries = alloc_grow(file->entries, f->room, sizeof *file->entries);
    }
    struct safetensors_entry e = {.name = arena_try(&f->r->arena, strlen(f->name) + 1, 1)};
    if (!e.name) return pickle_fail(f->r, ERR_NO_MEMORY, "no memory for names");
    strcpy((char *)e.name, f->name);
    int rc = tensor_entry(f, v, &e);
    if (!rc) file->entries[file->count++] = e;
    return rc;
}

static int flatten(struct flattening *f, const struct value *dict, size_t length, int depth)
{
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const struct value *key = dict->item[i], *v = dict->item[i + 1];
        if (++f->visits > VISITS_MAX)
            return pickle_fail(f->r, ERR_FORMAT, "has more than %d dict entries", VISITS_MAX);
        if (key->kind != VALUE_STRING || (v->kind != VALUE_TENSOR && v->kind != VALUE_DICT))
            continue;
        int n =
            snprintf(f->name + length, NAME_BYTES - length, "%s%s", length ? "." : "", key->text);
        if (n < 0 || (size_t)n >= NAME_BYTES - length)
            return pickle_fail(f->r, ERR_FORMAT, "has a tensor name longer than %d bytes",
                               NAME_BYTES);
        int rc = 0;
        if (v->kind == VALUE_TENSOR)
            rc = add_tensor(f, v);
        else if (depth < DICT_DEPTH_MAX)
            rc = flatten(f, v, length + (size_t)n, depth + 1);
        if (rc) return rc;
    }
    return 0;
}

static const struct value *state_dict(const struct value *root)
{
    static const char *const names[] = {"state_dict", "params_ema", "params", "model", "g_ema"};
    for (size_t k = 0; k < COUNT_OF(names); k++)
        for (size_t i = 0; i + 1 < root->count; i += 2)
            if (root->item[i]->kind == VALUE_STRING && root->item[i + 1]->kind == VALUE_DICT &&
                strcmp(root->item[i]->text, names[k]) == 0)
                return root->item[i + 1];
    return root;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_entry *)a)->name,
                  ((const struct safetensors_entry *)b)->name);
}

static int parse(struct pickle *file, const uint8_t *data, size_t length)
{
    struct pickle_reader *r = file->reader;
    struct value *root = NULL;
    int rc = length >= 4 && memcmp(data, "PK\3\4", 4) == 0 ? run_zip(r, data, length, &root)
                                                           : run_legacy(r, data, length, &root);
    if (rc) return rc;
    if (root->kind != VALUE_DICT)
        return pickle_fail(r, ERR_FORMAT, "holds no dictionary of tensors");
    struct flattening f = {.file = file, .r = r};
    rc = flatten(&f, state_dict(root), 0, 0);
    if (rc) return rc;
    if (file->count == 0) return pickle_fail(r, ERR_FORMAT, "holds no tensors");
    qsort(file->entries, file->count, sizeof *file->entries, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (by_name(&file->entries[i - 1], &file->entries[i]) == 0)
            return pickle_fail(r, ERR_FORMAT, "holds one tensor name twice");
    return 0;
}

int pickle_parse(struct pickle *file, const char *name, const uint8_t *data, size_t length,
                 struct error *err)
{
    struct pickle made = {.path = alloc_string(name), .reader = alloc_zero(1, sizeof *made.reader)};
    arena_init(&made.reader->arena, PICKLE_ARENA_BYTES);
    made.reader->name = made.path;
    made.reader->err = err;
    int rc = parse(&made, data, length);
    made.reader->err = NULL;
    if (rc) {
        pickle_close(&made);
        return rc;
    }
    *file = made;
    return 0;
}

int pickle_open(struct pickle *file, const char *path, struct error *err)
{
    const uint8_t *map = NULL;
    size_t bytes = 0;
    int rc = map_file(path, &map, &bytes, err);
    if (rc) return rc;
    rc = pickle_parse(file, path, map, bytes, err);
    if (rc) {
        munmap((void *)map, bytes);
        return rc;
    }
    file->map = map;
    file->map_bytes = bytes;
    return 0;
}

void pickle_close(struct pickle *file)
{
    struct pickle_reader *r = file->reader;
    if (r) {
        for (size_t i = 0; i < r->copy_count; i++) free(r->copies[i]);
        free(r->copies);
        free(r->storages);
        arena_release(&r->arena);
        free(r);
    }
    free(file->entries);
    free(file->path);
    if (file->map) munmap((void *)file->map, file->map_bytes);
    memset(file, 0, sizeof *file);
}
