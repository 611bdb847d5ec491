#include "diffusion/weight_store.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/file_kind.h"
#include "diffusion/model_json.h"
#include "diffusion/onnx.h"
#include "diffusion/pickle.h"

struct slot {
    const struct safetensors_entry *entry;
    bool used;
};

struct weight_store {
    char *path;
    struct safetensors *files; /* one, or the shards */
    size_t file_count;
    struct pickle pickle;
    bool pickled;
    struct onnx onnx;
    struct slot *slots; /* sorted by name */
    size_t count;
    void **owned; /* tensors that could not be used as they lie in the file */
    size_t owned_count;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct slot *)a)->entry->name, ((const struct slot *)b)->entry->name);
}

static int collect(struct weight_store *s, struct error *err)
{
    for (size_t i = 0; i < s->file_count; i++) s->count += s->files[i].count;
    s->count += s->pickle.count + s->onnx.count;
    s->slots = alloc_zero(s->count + 1, sizeof *s->slots);
    size_t n = 0;
    for (size_t i = 0; i < s->file_count; i++)
        for (size_t j = 0; j < s->files[i].count; j++)
            s->slots[n++].entry = &s->files[i].entries[j];
    for (size_t j = 0; j < s->pickle.count; j++) s->slots[n++].entry = &s->pickle.entries[j];
    for (size_t j = 0; j < s->onnx.count; j++) s->slots[n++].entry = &s->onnx.entries[j];
    qsort(s->slots, s->count, sizeof *s->slots, by_name);
    for (size_t i = 1; i < s->count; i++)
        if (by_name(&s->slots[i - 1], &s->slots[i]) == 0)
            return error_set(err, ERR_FORMAT, "%s: the tensor %s is in two files", s->path,
                             s->slots[i].entry->name);
    return 0;
}

static int open_shards(struct weight_store *s, struct error *err)
{
    char **names;
    size_t count;
    int rc = model_json_shards(&names, &count, s->path, err);
    if (rc) return rc;
    const char *slash = strrchr(s->path, '/');
    int folder = slash ? (int)(slash - s->path) + 1 : 0;
    s->files = alloc_zero(count, sizeof *s->files);
    for (size_t i = 0; i < count; i++) {
        char *path = alloc_printf("%.*s%s", folder, s->path, names[i]);
        if (!rc && !(rc = safetensors_open(&s->files[i], path, err))) s->file_count++;
        free(path);
        free(names[i]);
    }
    free(names);
    return rc;
}

int weight_store_open(struct weight_store **store, const char *path, struct error *err)
{
    enum file_kind kind;
    int rc = file_kind_of(&kind, path, err);
    if (rc) return rc;
    struct weight_store *s = alloc_zero(1, sizeof *s);
    s->path = alloc_string(path);
    switch (kind) {
    case FILE_SAFETENSORS:
        s->files = alloc_zero(1, sizeof *s->files);
        rc = safetensors_open(&s->files[0], path, err);
        s->file_count = rc == 0;
        break;
    case FILE_SHARDS: rc = open_shards(s, err); break;
    case FILE_ZIP_PICKLE:
    case FILE_LEGACY_PICKLE:
        rc = pickle_open(&s->pickle, path, err);
        s->pickled = rc == 0;
        break;
    case FILE_ONNX: rc = onnx_open(&s->onnx, path, err); break;
    case FILE_FOLDER:
        rc = error_set(err, ERR_INVALID, "%s is a folder where a file was expected", path);
        break;
    }
    if (!rc) rc = collect(s, err);
    if (rc) {
        weight_store_close(s);
        return rc;
    }
    *store = s;
    return 0;
}

void weight_store_close(struct weight_store *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->file_count; i++) safetensors_close(&s->files[i]);
    if (s->pickled) pickle_close(&s->pickle);
    onnx_close(&s->onnx);
    for (size_t i = 0; i < s->owned_count; i++) free(s->owned[i]);
    free(s->owned);
    free(s->files);
    free(s->slots);
    free(s->path);
    free(s);
}

const char *weight_store_path(const struct weight_store *s)
{
    return s->path;
}

size_t weight_store_count(const struct weight_store *s)
{
    return s->count;
}

const struct safetensors_entry *weight_store_at(const struct weight_store *s, size_t index)
{
    return s->slots[index].entry;
}

static struct slot *find_slot(const struct weight_store *s, const char *name)
{
    struct safetensors_entry key = {.name = name};
    struct slot slot = {.entry = &key};
    return s->count ? bsearch(&slot, s->slots, s->count, sizeof slot, by_name) : NULL;
}

static struct slot *find_slot_in(const struct weight_store *s, const char *prefix, const char *name)
{
    char full[2 * WEIGHT_NAME_BYTES];
    int n = snprintf(full, sizeof full, "%s%s", prefix, name);
    return n > 0 && (size_t)n < sizeof full ? find_slot(s, full) : NULL;
}

const struct safetensors_entry *weight_store_find(const struct weight_store *s, const char *name)
{
    const struct slot *slot = find_slot(s, name);
    return slot ? slot->entry : NULL;
}

const struct safetensors_entry *weight_store_find_in(const struct weight_store *s,
                                                     const char *prefix, const char *name)
{
    const struct slot *slot = find_slot_in(s, prefix, name);
    return slot ? slot->entry : NULL;
}

bool weight_store_has_prefix(const struct weight_store *s, const char *prefix)
{
    size_t low = 0, high = s->count, length = strlen(prefix);
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strncmp(s->slots[mid].entry->name, prefix, length) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->count && strncmp(s->slots[low].entry->name, prefix, length) == 0;
}

const char *weight_store_meta(const struct weight_store *s, const char *key)
{
    return s->file_count ? safetensors_meta_find(&s->files[0], key) : NULL;
}

/* ---- loading ---- */

static const char *shape_text(char text[96], int rank, const int64_t *dim)
{
    size_t n = 0;
    text[n++] = '[';
    for (int i = 0; i < rank && n < 80; i++)
        n += (size_t)snprintf(text + n, 96 - n, "%s%lld", i ? "," : "", (long long)dim[i]);
    snprintf(text + n, 96 - n, "]");
    return text;
}

/* The shape that the file must have for this site; trailing 1x1 may be there or not. */
static int wanted_shape(const struct weight_site *site, enum dialect d, int64_t dim[4])
{
    int rank = site->rank;
    for (int i = 0; i < rank; i++) dim[i] = site->dim[i];
    if (site->stacked_of[d]) dim[0] = site->stacked_of[d];
    if (site->transposed[d]) {
        int64_t swap = dim[0];
        dim[0] = dim[1];
        dim[1] = swap;
    }
    return rank;
}

static bool shape_fits(const struct safetensors_entry *e, int rank, const int64_t *dim)
{
    const int64_t *have = e->dim;
    int er = e->rank;
    if (rank == 4 && dim[2] == 1 && dim[3] == 1) rank = 2;
    if (er == 4 && have[2] == 1 && have[3] == 1) er = 2;
    for (; er > rank && have[0] == 1; er--) have++; /* [1,out,in,3,3], [1,C,1,1] */
    while (er > rank && have[er - 1] == 1) er--;
    if (rank != er) return false;
    for (int i = 0; i < rank; i++)
        if (have[i] != dim[i]) return false;
    return true;
}

static bool computable(enum dtype d)
{
    return d == DTYPE_F32 || d == DTYPE_F16 || d == DTYPE_BF16;
}

static void *keep(struct weight_store *s, void *memory)
{
    s->owned = alloc_grow(s->owned, s->owned_count + 1, sizeof *s->owned);
    return s->owned[s->owned_count++] = memory;
}

/* A copy in a type that kernels know, transposed when asked; NULL without memory. */
static void *converted(struct weight_store *s, const uint8_t *data, enum dtype from, enum dtype to,
                       int64_t rows, int64_t cols, bool transposed)
{
    size_t bytes = dtype_bytes(to);
    uint8_t *copy = alloc_try_aligned(64, (size_t)(rows * cols) * bytes + 1);
    if (!copy) return NULL;
    if (!transposed) {
        dtype_convert(copy, to, data, from, rows * cols);
        return keep(s, copy);
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            dtype_convert(copy + (size_t)(i * cols + j) * bytes, to,
                          data + (size_t)(j * rows + i) * dtype_bytes(from), from, 1);
    return keep(s, copy);
}

static bool mapped(const struct weight_store *s, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < s->file_count; i++)
        if (data >= s->files[i].map && data + bytes <= s->files[i].map + s->files[i].map_bytes)
            return true;
    if (s->onnx.map && data >= s->onnx.map && data + bytes <= s->onnx.map + s->onnx.map_bytes)
        return true;
    return s->pickled && s->pickle.map && data >= s->pickle.map &&
           data + bytes <= s->pickle.map + s->pickle.map_bytes;
}

static int take(struct weight_loading *l, struct weight *w, const struct weight_site *site,
                const struct safetensors_entry *e, struct error *err)
{
    enum dialect d = l->dialect;
    char want[96], have[96];
    int64_t dim[4] = {0};
    int rank = wanted_shape(site, d, dim);
    if (!shape_fits(e, rank, dim))
        return error_set(err, ERR_FORMAT, "%s: tensor %s is %s, %s needs %s",
                         weight_store_path(l->store), e->name, shape_text(have, e->rank, e->dim),
                         l->component, shape_text(want, rank, dim));
    enum dtype to = e->dtype;
    if (to == DTYPE_F8_E4M3 || to == DTYPE_F8_E5M2) to = DTYPE_F16;
    if (to == DTYPE_F64) to = DTYPE_F32;
    if (!computable(to))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: tensor %s holds %s, which is no type for weights",
                         weight_store_path(l->store), e->name, dtype_name(e->dtype));

    int64_t count = 1;
    for (int i = 0; i < site->rank; i++) count *= site->dim[i];
    int64_t rows = site->rank ? site->dim[0] : 1, cols = rows ? count / rows : 0;
    size_t size = dtype_bytes(e->dtype);
    const uint8_t *data = (const uint8_t *)e->data + (size_t)(site->stacked_from[d] * cols) * size;
    const void *ready = data;
    bool aligned = (uintptr_t)data % size == 0;
    if (to != e->dtype || site->transposed[d] || !aligned) {
        ready = converted(l->store, data, e->dtype, to, rows, cols, site->transposed[d]);
        if (!ready) return error_set(err, ERR_NO_MEMORY, "no memory to convert tensor %s", e->name);
    }
    w->name = e->name;
    w->k = (struct kernel_weight){.data = ready, .dtype = to, .rank = site->rank};
    w->k.gated = site->gated && site->rank == 2;
    w->k.mapped = mapped(l->store, ready, (size_t)count * dtype_bytes(to));
    for (int i = 0; i < site->rank; i++) w->k.dim[i] = site->dim[i];
    l->bytes += (size_t)count * size;
    l->count++;
    return 0;
}

int weight_load(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct weight_loading *l = v->context;
    const char *name = site->name[l->dialect];
    struct slot *slot = find_slot_in(l->store, l->prefix, name);
    if (!slot) {
        if (site->optional) return 0;
        if (l->missing < (int)COUNT_OF(l->missing_names))
            str_copy(l->missing_names[l->missing], WEIGHT_NAME_BYTES, name);
        l->missing++;
        return 0;
    }
    slot->used = true;
    return take(l, w, site, slot->entry, err);
}

int weight_loading_check(const struct weight_loading *l, struct error *err)
{
    if (!l->missing) return 0;
    char list[320] = "";
    size_t n = 0;
    for (int i = 0; i < l->missing && i < (int)COUNT_OF(l->missing_names); i++)
        n += str_copy(list + n, sizeof list - n, i ? ", " : ""),
            n += str_copy(list + n, sizeof list - n, l->missing_names[i]);
    return error_set(err, ERR_FORMAT, "%s lacks %d tensor%s of %s: %s%s",
                     weight_store_path(l->store), l->missing, l->missing == 1 ? "" : "s",
                     l->component, list,
                     l->missing > (int)COUNT_OF(l->missing_names) ? ", ..." : "");
}

static bool known_useless(const char *name)
{
    static const char *const start[] = {
        "model_ema.",
        "betas",
        "alphas_cumprod",
        "sqrt_",
        "log_one_minus_",
        "posterior_",
        "logvar",
        "loss.",
        "optimizer_states",
        "denoiser.",
        "first_stage_model.loss.",
        "lr_scheduler",
        "callbacks",
    };
    static const char *const end[] = {
        "position_ids", "logit_scale", "num_updates", ".decay", "attn_mask", "v_pred", "ztsnr",
    };
    for (size_t i = 0; i < COUNT_OF(start); i++)
        if (str_starts(name, start[i])) return true;
    for (size_t i = 0; i < COUNT_OF(end); i++)
        if (str_ends(name, end[i])) return true;
    return false;
}

size_t weight_store_ignored(const struct weight_store *s, const char **example)
{
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->slots[i].used || known_useless(s->slots[i].entry->name)) continue;
        if (n++ == 0 && example) *example = s->slots[i].entry->name;
    }
    return n;
}

/* ---- packing ---- */

void weight_store_forget_pages(const struct weight_store *s, const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (!mapped(s, data, bytes)) return; /* heap memory would turn to zeros */
    uintptr_t from = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)data + bytes) & ~(page - 1);
    /* clean pages of a read-only mapping: read again from the file when anybody asks */
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

#define WARM_PIECE ((size_t)4 << 20)

/* Without changing what the pages hold: populated by the kernel (Linux 5.14), or touched one by one. */
static bool warm(const uint8_t *map, size_t bytes, bool (*canceled)(void *context), void *context)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bool populates = true;
    for (size_t at = 0; map && at < bytes; at += WARM_PIECE) {
        size_t part = bytes - at < WARM_PIECE ? bytes - at : WARM_PIECE;
        if (canceled && canceled(context)) return false;
#ifdef MADV_POPULATE_READ
        if (populates) populates = madvise((void *)(map + at), part, MADV_POPULATE_READ) == 0;
#else
        populates = false;
#endif
        for (size_t i = 0; !populates && i < part; i += page)
            (void)*(const volatile uint8_t *)(map + at + i);
    }
    return true;
}

bool weight_store_warm(const struct weight_store *s, bool (*canceled)(void *context), void *context)
{
    bool all = warm(s->onnx.map, s->onnx.map_bytes, canceled, context);
    for (size_t i = 0; all && i < s->file_count; i++)
        all = warm(s->files[i].map, s->files[i].map_bytes, canceled, context);
    return all && (!s->pickled || warm(s->pickle.map, s->pickle.map_bytes, canceled, context));
}

int weight_pack(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct weight_packing *p = v->context;
    if (!site->layer || w != &site->layer->w || !weight_present(w)) return 0;
    if (device_canceled(p->device)) return error_set(err, ERR_CANCELED, "not wanted any more");
    int rc = p->device->kernels->pack(p->device, &w->k, p->activation, err);
    if (rc) return error_wrap(err, rc, "preparing %s", site->name[DIALECT_LDM]);
    if (w->k.packed)
        weight_store_forget_pages(p->store, w->k.data,
                                  (size_t)weight_count(w) * dtype_bytes(w->k.dtype));
    return 0;
}

void *weight_copy(struct weight *w, const struct safetensors_entry *e, int rank)
{
    enum dtype to = e->dtype == DTYPE_F16 || e->dtype == DTYPE_BF16 ? e->dtype : DTYPE_F32;
    int64_t n = 1;
    for (int i = 0; i < e->rank; i++) n *= e->dim[i];
    void *data = alloc_try_aligned(64, ((size_t)n + 1) * dtype_bytes(to));
    if (!data) return NULL;
    dtype_convert(data, to, e->data, e->dtype, n);
    w->name = NULL;
    w->k = (struct kernel_weight){.data = data, .dtype = to, .rank = rank};
    for (int i = 0; i < 4; i++) w->k.dim[i] = i < e->rank ? e->dim[i] : 1;
    return data;
}

int weight_drop(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    weight_release(w, v->context);
    return 0;
}
