#include "tensor/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/str.h"
#include "tensor/json_cursor.h"

#define HEADER_BYTES_MAX (16u << 20)
#define ENTRIES_MAX 20000u
#define NAME_BYTES_MAX 1024u
#define META_BYTES_MAX (8u << 20)
#define META_MAX 4096u
#define PARSE_BYTES_MAX (96u << 20)

struct parse {
    struct json_cursor c;
    struct safetensors *file;
    size_t entries_room, meta_room;
    uint64_t data_bytes;
    const uint8_t *data;
};

/* Shown in messages: names come from strangers. */
static const char *shown(const char *name, char to[96])
{
    str_clean(to, 96, name);
    return to;
}

static bool read_shape(struct parse *p, struct safetensors_entry *e)
{
    char name[96];
    if (!cursor_expect(&p->c, '[')) return false;
    e->rank = 0;
    if (cursor_take(&p->c, ']')) return true;
    do {
        uint64_t dim;
        if (e->rank == SAFETENSORS_RANK_MAX)
            return cursor_fail(&p->c, "tensor \"%s\" has more than %d dimensions",
                               shown(e->name, name), SAFETENSORS_RANK_MAX);
        if (!cursor_u64(&p->c, &dim)) return false;
        if (dim > INT64_MAX)
            return cursor_fail(&p->c, "tensor \"%s\" has a dimension past 2^63",
                               shown(e->name, name));
        e->dim[e->rank++] = (int64_t)dim;
    } while (cursor_take(&p->c, ','));
    return cursor_expect(&p->c, ']');
}

static bool read_offsets(struct parse *p, uint64_t *begin, uint64_t *end)
{
    return cursor_expect(&p->c, '[') && cursor_u64(&p->c, begin) && cursor_expect(&p->c, ',') &&
           cursor_u64(&p->c, end) && cursor_expect(&p->c, ']');
}

static bool check_span(struct parse *p, struct safetensors_entry *e, uint64_t begin, uint64_t end)
{
    char name[96];
    uint64_t bytes = dtype_bytes(e->dtype);
    for (int i = 0; i < e->rank; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)e->dim[i], &bytes))
            return cursor_fail(&p->c, "the shape of tensor \"%s\" overflows 64 bits",
                               shown(e->name, name));
    if (end < begin || end > p->data_bytes)
        return cursor_fail(&p->c, "tensor \"%s\" spans bytes %llu to %llu, the data part has %llu",
                           shown(e->name, name), (unsigned long long)begin, (unsigned long long)end,
                           (unsigned long long)p->data_bytes);
    if (bytes != end - begin)
        return cursor_fail(&p->c, "tensor \"%s\" needs %llu bytes for its shape, its span has %llu",
                           shown(e->name, name), (unsigned long long)bytes,
                           (unsigned long long)(end - begin));
    e->data = (const void *)((uintptr_t)p->data + (uintptr_t)begin);
    e->bytes = (size_t)bytes;
    return true;
}

static bool read_entry(struct parse *p, char *name)
{
    char text[96], *key, *dtype;
    struct safetensors_entry e = {.name = name, .dtype = DTYPE_COUNT, .rank = -1};
    uint64_t begin = 0, end = 0;
    bool offsets = false;
    if (!cursor_expect(&p->c, '{')) return false;
    do {
        if (!cursor_string(&p->c, &key, 32) || !cursor_expect(&p->c, ':')) return false;
        if (strcmp(key, "dtype") == 0 && e.dtype == DTYPE_COUNT) {
            if (!cursor_string(&p->c, &dtype, 32)) return false;
            if (!dtype_find(dtype, &e.dtype))
                return cursor_fail(&p->c, "tensor \"%s\" has the unknown dtype \"%s\"",
                                   shown(name, text), dtype);
        } else if (strcmp(key, "shape") == 0 && e.rank < 0) {
            if (!read_shape(p, &e)) return false;
        } else if (strcmp(key, "data_offsets") == 0 && !offsets) {
            if (!read_offsets(p, &begin, &end)) return false;
            offsets = true;
        } else {
            return cursor_fail(&p->c, "tensor \"%s\" has an unexpected or repeated field",
                               shown(name, text));
        }
    } while (cursor_take(&p->c, ','));
    if (!cursor_expect(&p->c, '}')) return false;
    if (e.dtype == DTYPE_COUNT || e.rank < 0 || !offsets)
        return cursor_fail(&p->c, "tensor \"%s\" lacks dtype, shape or data_offsets",
                           shown(name, text));
    if (!check_span(p, &e, begin, end)) return false;

    struct safetensors *file = p->file;
    if (file->count == ENTRIES_MAX) return cursor_fail(&p->c, "more than %u tensors", ENTRIES_MAX);
    if (file->count == p->entries_room) {
        p->entries_room = p->entries_room ? 2 * p->entries_room : 256;
        file->entries = alloc_grow(file->entries, p->entries_room, sizeof *file->entries);
    }
    file->entries[file->count++] = e;
    return true;
}

static bool read_meta(struct parse *p)
{
    struct safetensors *file = p->file;
    if (file->meta) return cursor_fail(&p->c, "__metadata__ appears twice");
    file->meta = alloc_zero(1, sizeof *file->meta);
    p->meta_room = 1;
    if (!cursor_expect(&p->c, '{')) return false;
    if (cursor_take(&p->c, '}')) return true;
    do {
        char *key, *value;
        if (!cursor_string(&p->c, &key, NAME_BYTES_MAX) || !cursor_expect(&p->c, ':') ||
            !cursor_string(&p->c, &value, META_BYTES_MAX))
            return false;
        if (file->meta_count == META_MAX)
            return cursor_fail(&p->c, "more than %u metadata entries", META_MAX);
        if (file->meta_count == p->meta_room) {
            p->meta_room *= 2;
            file->meta = alloc_grow(file->meta, p->meta_room, sizeof *file->meta);
        }
        file->meta[file->meta_count++] = (struct safetensors_meta){key, value};
    } while (cursor_take(&p->c, ','));
    return cursor_expect(&p->c, '}');
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    uintptr_t i = (uintptr_t)x->data, j = (uintptr_t)y->data;
    if (i != j) return i < j ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Sorted by offset the spans must form one chain from the first byte to the last. */
static bool check_chain(struct parse *p)
{
    char name[96];
    struct safetensors *file = p->file;
    if (file->count) qsort(file->entries, file->count, sizeof *file->entries, by_offset);
    uintptr_t at = (uintptr_t)p->data;
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_entry *e = &file->entries[i];
        if ((uintptr_t)e->data != at)
            return cursor_fail(&p->c, "tensor \"%s\" %s", shown(e->name, name),
                               (uintptr_t)e->data < at ? "overlaps the one before it"
                                                       : "leaves a hole before it");
        at += e->bytes;
    }
    if (at - (uintptr_t)p->data != p->data_bytes)
        return cursor_fail(
            &p->c, "the tensors end at byte %llu of the data part, the file has %llu",
            (unsigned long long)(at - (uintptr_t)p->data), (unsigned long long)p->data_bytes);
    if (file->count) qsort(file->entries, file->count, sizeof *file->entries, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->entries[i - 1].name, file->entries[i].name) == 0)
            return cursor_fail(&p->c, "tensor \"%s\" appears twice",
                               shown(file->entries[i].name, name));
    return true;
}

static bool read_header(struct parse *p)
{
    if (!cursor_expect(&p->c, '{')) return false;
    if (!cursor_take(&p->c, '}')) {
        do {
            char *name;
            if (!cursor_string(&p->c, &name, NAME_BYTES_MAX) || !cursor_expect(&p->c, ':'))
                return false;
            if (!(strcmp(name, "__metadata__") == 0 ? read_meta(p) : read_entry(p, name)))
                return false;
        } while (cursor_take(&p->c, ','));
        if (!cursor_expect(&p->c, '}')) return false;
    }
    while (p->c.at < p->c.end && *p->c.at == ' ') p->c.at++;
    if (p->c.at != p->c.end) return cursor_fail(&p->c, "bytes after the header's closing brace");
    return check_chain(p);
}

static void release_parsed(struct safetensors *file)
{
    free(file->entries);
    free(file->meta);
    if (file->arena) arena_release(file->arena);
    free(file->arena);
    file->entries = NULL;
    file->meta = NULL;
    file->arena = NULL;
    file->count = file->meta_count = 0;
}

int safetensors_parse(struct safetensors *file, const uint8_t *header, size_t header_bytes,
                      const uint8_t *data, size_t data_bytes, struct error *err)
{
    file->arena = alloc_zero(1, sizeof *file->arena);
    arena_init(file->arena, PARSE_BYTES_MAX);
    struct parse p = {
        .c = {.at = header, .end = header + header_bytes, .arena = file->arena, .err = err},
        .file = file,
        .data = data,
        .data_bytes = data_bytes,
    };
    if (read_header(&p)) return 0;
    release_parsed(file);
    return p.c.failed;
}

static int parse_mapped(struct safetensors *file, struct error *err)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | file->map[i];
    if (n > HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "the header claims %llu bytes, the limit is %u",
                         (unsigned long long)n, HEADER_BYTES_MAX);
    if (n > file->map_bytes - 8)
        return error_set(err, ERR_FORMAT,
                         "the header claims %llu bytes, the file has %zu: it is cut off",
                         (unsigned long long)n, file->map_bytes);
    return safetensors_parse(file, file->map + 8, (size_t)n, file->map + 8 + n,
                             file->map_bytes - 8 - (size_t)n, err);
}

int safetensors_open(struct safetensors *file, const char *path, struct error *err)
{
    struct safetensors opened = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "%s", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st)) {
        rc = error_set_errno(err, ERR_IO, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = error_set(err, ERR_FORMAT, "%s is not a regular file", path);
    } else if (st.st_size < 8) {
        rc = error_set(err, ERR_FORMAT, "%s has %lld bytes, too few for a safetensors file", path,
                       (long long)st.st_size);
    } else {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            rc = error_set_errno(err, ERR_IO, errno, "mapping %s", path);
        else
            opened.map = map;
    }
    close(fd);
    if (rc) return rc;

    opened.map_bytes = (size_t)st.st_size;
    rc = parse_mapped(&opened, err);
    if (rc) {
        munmap((void *)opened.map, opened.map_bytes);
        return error_wrap(err, rc, "%s is not a valid safetensors file", path);
    }
    opened.path = alloc_string(path);
    *file = opened;
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    if (!file) return;
    release_parsed(file);
    if (file->map) munmap((void *)file->map, file->map_bytes);
    free(file->path);
    *file = (struct safetensors){0};
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    struct safetensors_entry key = {.name = name};
    return file->count ? bsearch(&key, file->entries, file->count, sizeof key, by_name) : NULL;
}

const char *safetensors_meta_find(const struct safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->meta_count; i++)
        if (strcmp(file->meta[i].key, key) == 0) return file->meta[i].value;
    return NULL;
}
