#include "diffusion/onnx.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/map_file.h"

#define WEIGHTS_MAX 65536
#define CONVS_MAX 4096
#define ARENA_BYTES ((size_t)64 << 20)

/* field numbers of onnx.proto */
enum { MODEL_GRAPH = 7 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5 };
enum { NODE_INPUT = 1, NODE_OP_TYPE = 4 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_FLOATS = 4, TENSOR_NAME = 8, TENSOR_RAW = 9 };
enum { TENSOR_LOCATION = 14 };

struct slice {
    const uint8_t *data;
    size_t length;
};

struct field {
    uint32_t number;
    uint64_t value;     /* of a varint */
    struct slice bytes; /* of anything with a length; data NULL: a number */
};

struct initializer {
    struct slice name;
    enum dtype dtype;
    int rank;
    int64_t dim[SAFETENSORS_RANK_MAX];
    struct slice data;
    bool usable;
};

struct reader {
    const char *name;
    struct initializer *weights; /* sorted by name once all are there */
    size_t weight_count, weight_room, entry_room;
    int convs;
    bool normed; /* the last convolution's norm is taken */
    struct onnx *file;
    struct error *err;
};

static int damaged(struct reader *r, const char *what)
{
    return error_set(r->err, ERR_FORMAT, "%s: damaged ONNX file (%s)", r->name, what);
}

/* ---- the wire ---- */

static bool take_varint(struct slice *s, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && s->length; shift += 7) {
        uint8_t byte = *s->data;
        s->data++;
        s->length--;
        *value |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) return true;
    }
    return false;
}

static bool take_bytes(struct slice *s, uint64_t length, struct slice *out)
{
    if (length > s->length) return false;
    *out = (struct slice){s->data, (size_t)length};
    s->data += length;
    s->length -= (size_t)length;
    return true;
}

/* The next field of a message; false at damage. Wire types 0, 1, 2 and 5; groups are refused. */
static bool take_field(struct slice *s, struct field *f)
{
    uint64_t key, length;
    struct slice fixed;
    *f = (struct field){0};
    if (!take_varint(s, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) return false;
    f->number = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0: return take_varint(s, &f->value);
    case 1: return take_bytes(s, 8, &fixed);
    case 2: return take_varint(s, &length) && take_bytes(s, length, &f->bytes);
    case 5: return take_bytes(s, 4, &fixed);
    default: return false;
    }
}

static bool says(struct slice s, const char *text)
{
    return s.length == strlen(text) && memcmp(s.data, text, s.length) == 0;
}

/* ---- weights ---- */

static bool type_of(uint64_t onnx_type, enum dtype *d)
{
    static const struct {
        uint64_t type;
        enum dtype dtype;
    } known[] = {{1, DTYPE_F32}, {10, DTYPE_F16}, {11, DTYPE_F64}, {16, DTYPE_BF16}};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (known[i].type == onnx_type) {
            *d = known[i].dtype;
            return true;
        }
    return false;
}

static bool add_dim(struct initializer *w, uint64_t dim)
{
    if (w->rank == SAFETENSORS_RANK_MAX || dim > INT32_MAX) return false;
    w->dim[w->rank++] = (int64_t)dim;
    return true;
}

/* One by one, or packed into one field. */
static bool add_dims(struct initializer *w, const struct field *f)
{
    if (!f->bytes.data) return add_dim(w, f->value);
    struct slice rest = f->bytes;
    uint64_t dim;
    while (rest.length)
        if (!take_varint(&rest, &dim) || !add_dim(w, dim)) return false;
    return true;
}

/* Are there as many bytes as the shape says? */
static bool fills(const struct initializer *w)
{
    uint64_t bytes = dtype_bytes(w->dtype);
    for (int i = 0; i < w->rank; i++)
        if (__builtin_mul_overflow(bytes, (uint64_t)w->dim[i], &bytes)) return false;
    return bytes == w->data.length;
}

static int read_initializer(struct reader *r, struct slice message)
{
    struct initializer w = {0};
    bool typed = false, shaped = true;
    while (message.length) {
        struct field f;
        if (!take_field(&message, &f)) return damaged(r, "a weight");
        if (f.number == TENSOR_DIMS) shaped = shaped && add_dims(&w, &f);
        if (f.number == TENSOR_TYPE) typed = type_of(f.value, &w.dtype);
        if (f.number == TENSOR_NAME) w.name = f.bytes;
        if ((f.number == TENSOR_FLOATS || f.number == TENSOR_RAW) && f.bytes.data) w.data = f.bytes;
        if (f.number == TENSOR_LOCATION && f.value == 1)
            return error_set(r->err, ERR_UNSUPPORTED,
                             "%s keeps its weights in another file, which Kiln does not read",
                             r->name);
    }
    w.usable = typed && shaped && fills(&w);
    if (r->weight_count == WEIGHTS_MAX)
        return error_set(r->err, ERR_FORMAT, "%s has more than %d weights", r->name, WEIGHTS_MAX);
    if (r->weight_count == r->weight_room) {
        r->weight_room = r->weight_room ? 2 * r->weight_room : 256;
        r->weights = alloc_grow(r->weights, r->weight_room, sizeof *r->weights);
    }
    r->weights[r->weight_count++] = w;
    return 0;
}

static int compare(struct slice a, struct slice b)
{
    size_t both = a.length < b.length ? a.length : b.length;
    int order = both ? memcmp(a.data, b.data, both) : 0;
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

static int by_slice(const void *a, const void *b)
{
    return compare(((const struct initializer *)a)->name, ((const struct initializer *)b)->name);
}

static const struct initializer *find(const struct reader *r, struct slice name)
{
    struct initializer key = {.name = name};
    if (!r->weight_count || !name.length) return NULL;
    return bsearch(&key, r->weights, r->weight_count, sizeof key, by_slice);
}

/* ---- nodes ---- */

static void add_entry(struct reader *r, struct slice input, const char *kind, const char *part)
{
    struct onnx *file = r->file;
    const struct initializer *w = find(r, input);
    if (!w || !w->usable) return; /* who needs it will say that it is missing */
    if (file->count == r->entry_room) {
        r->entry_room = r->entry_room ? 2 * r->entry_room : 256;
        file->entries = alloc_grow(file->entries, r->entry_room, sizeof *file->entries);
    }
    struct safetensors_entry *e = &file->entries[file->count++];
    *e = (struct safetensors_entry){
        .dtype = w->dtype, .rank = w->rank, .data = w->data.data, .bytes = w->data.length};
    e->name = arena_printf(file->arena, "%s.%d.%s", kind, r->convs - 1, part);
    memcpy(e->dim, w->dim, sizeof e->dim);
}

static int read_node(struct reader *r, struct slice message)
{
    static const char *const parts[] = {"weight", "bias", "running_mean", "running_var"};
    struct slice inputs[5] = {0}, type = {0};
    int count = 0;
    while (message.length) {
        struct field f;
        if (!take_field(&message, &f)) return damaged(r, "a node");
        if (f.number == NODE_OP_TYPE) type = f.bytes;
        if (f.number == NODE_INPUT && count < 5) inputs[count++] = f.bytes;
    }
    if (says(type, "Conv")) {
        if (r->convs == CONVS_MAX)
            return error_set(r->err, ERR_FORMAT, "%s has more than %d convolutions", r->name,
                             CONVS_MAX);
        r->convs++;
        r->normed = false;
        for (int i = 0; i < 2; i++) add_entry(r, inputs[i + 1], "conv", parts[i]);
    } else if (says(type, "BatchNormalization") && r->convs && !r->normed) {
        r->normed = true;
        for (int i = 0; i < 4; i++) add_entry(r, inputs[i + 1], "norm", parts[i]);
    }
    return 0;
}

/* Nodes come before the weights they name: two walks. */
static int read_graph(struct reader *r, struct slice graph)
{
    for (int walk = 0; walk < 2; walk++) {
        struct slice rest = graph;
        while (rest.length) {
            struct field f;
            int rc = 0;
            if (!take_field(&rest, &f)) return damaged(r, "the graph");
            if (!f.bytes.data) continue;
            if (walk == 0 && f.number == GRAPH_INITIALIZER) rc = read_initializer(r, f.bytes);
            if (walk == 1 && f.number == GRAPH_NODE) rc = read_node(r, f.bytes);
            if (rc) return rc;
        }
        if (r->weight_count) qsort(r->weights, r->weight_count, sizeof *r->weights, by_slice);
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_entry *)a)->name,
                  ((const struct safetensors_entry *)b)->name);
}

static int read_model(struct reader *r, struct slice model)
{
    bool seen = false;
    while (model.length) {
        struct field f;
        if (!take_field(&model, &f)) return damaged(r, "the outermost message");
        if (f.number != MODEL_GRAPH || !f.bytes.data) continue;
        if (seen) return damaged(r, "two graphs");
        seen = true;
        int rc = read_graph(r, f.bytes);
        if (rc) return rc;
    }
    if (!r->file->count)
        return error_set(r->err, ERR_FORMAT, "%s: an ONNX file without convolutions", r->name);
    qsort(r->file->entries, r->file->count, sizeof *r->file->entries, by_name);
    return 0;
}

int onnx_parse(struct onnx *file, const char *name, const uint8_t *data, size_t length,
               struct error *err)
{
    struct onnx made = {.path = alloc_string(name), .arena = alloc_zero(1, sizeof *made.arena)};
    struct reader r = {.name = made.path, .file = &made, .err = err};
    arena_init(made.arena, ARENA_BYTES);
    int rc = read_model(&r, (struct slice){data, length});
    free(r.weights);
    if (rc) {
        onnx_close(&made);
        return rc;
    }
    *file = made;
    return 0;
}

int onnx_open(struct onnx *file, const char *path, struct error *err)
{
    const uint8_t *map = NULL;
    size_t bytes = 0;
    int rc = map_file(path, &map, &bytes, err);
    if (!rc) rc = onnx_parse(file, path, map, bytes, err);
    if (rc) {
        if (map) munmap((void *)map, bytes);
        return rc;
    }
    file->map = map;
    file->map_bytes = bytes;
    return 0;
}

void onnx_close(struct onnx *file)
{
    if (file->arena) arena_release(file->arena);
    free(file->arena);
    free(file->entries);
    free(file->path);
    if (file->map) munmap((void *)file->map, file->map_bytes);
    memset(file, 0, sizeof *file);
}
