#include "diffusion/train/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"

enum part {
    PART_DATA,
    PART_M,
    PART_V,
    PART_MEAN,
    PART_M8,
    PART_V8,
    PART_M_SCALE,
    PART_V_SCALE,
    PART_COUNT
};
static const char *const part_names[PART_COUNT] = {"weight", "m",  "v",       "mean",
                                                   "m8",     "v8", "m8scale", "v8scale"};

static const struct {
    const char *name, *kohya;
} optimizers[OPTIMIZER_COUNT] = {{"adamw", "AdamW"}, {"adamw8bit", "AdamW8bit"}};

const char *optimizer_name(enum optimizer o)
{
    return optimizers[o].name;
}

const char *optimizer_kohya(enum optimizer o)
{
    return optimizers[o].kohya;
}

bool optimizer_find(const char *name, enum optimizer *o)
{
    for (int i = 0; i < OPTIMIZER_COUNT; i++)
        if (str_equal_nocase(name, optimizers[i].name)) {
            *o = (enum optimizer)i;
            return true;
        }
    return false;
}

static void *part_get(const struct param *p, int part)
{
    void *const parts[PART_COUNT] = {p->data, p->m,  p->v,       p->mean,
                                     p->m8,   p->v8, p->m_scale, p->v_scale};
    return parts[part];
}

static void part_set(struct param *p, int part, void *memory)
{
    switch ((enum part)part) {
    case PART_DATA: p->data = memory; break;
    case PART_M: p->m = memory; break;
    case PART_V: p->v = memory; break;
    case PART_MEAN: p->mean = memory; break;
    case PART_M8: p->m8 = memory; break;
    case PART_V8: p->v8 = memory; break;
    case PART_M_SCALE: p->m_scale = memory; break;
    case PART_V_SCALE: p->v_scale = memory; break;
    case PART_COUNT: break;
    }
}

static enum dtype part_dtype(int part)
{
    return part == PART_M8 || part == PART_V8 ? DTYPE_U8 : DTYPE_F32;
}

static int64_t part_count(const struct param *p, int part)
{
    bool scale = part == PART_M_SCALE || part == PART_V_SCALE;
    return scale ? (p->count + ADAMW8_BLOCK - 1) / ADAMW8_BLOCK : p->count;
}

static size_t part_bytes(const struct param *p, int part)
{
    return (size_t)part_count(p, part) * dtype_bytes(part_dtype(part));
}

static bool part_kept(const struct params *p, const struct param *item, int part)
{
    bool small = p->optimizer == OPTIMIZER_ADAMW8 && item->count >= OPTIMIZER_LEAST_8BIT;
    if (part == PART_DATA) return true;
    if (part == PART_MEAN) return p->keep_mean;
    return (part == PART_M || part == PART_V) == !small;
}

void params_init(struct params *p, struct device *device, bool keep_mean)
{
    *p = (struct params){.device = device, .keep_mean = keep_mean};
}

static void param_release(struct params *p, struct param *item)
{
    const struct kernels *k = p->device->kernels;
    if (item->w && item->data) {
        weight_release(item->w, p->device);
        item->w->k.data = NULL;
        item->w->grad = NULL;
        item->w->trainable = false;
    }
    for (int part = 0; part < PART_COUNT; part++)
        if (part_get(item, part)) k->free(p->device, part_get(item, part));
    if (item->grad) k->free(p->device, item->grad);
    free(item->name);
}

void params_release(struct params *p)
{
    for (int i = 0; i < p->count; i++) param_release(p, &p->item[i]);
    free(p->item);
    *p = (struct params){0};
}

int params_adopt(struct params *p, struct weight *w, const char *name, const float *values,
                 struct error *err)
{
    const struct kernels *k = p->device->kernels;
    struct param item = {.name = alloc_string(name), .count = weight_count(w)};
    size_t bytes = (size_t)item.count * sizeof(float);
    int rc = 0;
    for (int part = 0; part < PART_COUNT && !rc; part++) {
        if (!part_kept(p, &item, part)) continue;
        void *memory = NULL;
        rc = k->alloc(p->device, &memory, part_bytes(&item, part), err);
        part_set(&item, part, memory);
        bool filled = part == PART_DATA || part == PART_MEAN;
        if (!rc && filled) rc = k->upload(p->device, memory, values, bytes, err);
        if (!rc && !filled) rc = k->zero(p->device, memory, part_bytes(&item, part), err);
    }
    void *grad = NULL;
    if (!rc) rc = k->alloc(p->device, &grad, bytes, err);
    item.grad = grad;
    if (!rc) rc = k->zero(p->device, grad, bytes, err);
    if (rc) {
        param_release(p, &item);
        return error_wrap(err, rc, "memory for training %s", name);
    }
    weight_release(w, p->device);
    item.w = w;
    w->k.data = item.data;
    w->k.dtype = DTYPE_F32;
    w->k.changes = true;
    w->k.version++;
    w->trainable = true;
    w->grad = grad;
    p->item = alloc_grow(p->item, (size_t)p->count + 1, sizeof *p->item);
    p->item[p->count++] = item;
    p->total += item.count;
    return 0;
}

int params_restart(struct params *p, const char *const *prefixes, struct error *err)
{
    for (int i = 0; i < p->count; i++) {
        struct param *item = &p->item[i];
        item->frozen = prefixes != NULL;
        for (const char *const *prefix = prefixes; prefix && *prefix; prefix++)
            if (str_starts(item->name, *prefix)) item->frozen = false;
        for (int part = PART_M; part < PART_COUNT; part++) {
            void *memory = part == PART_MEAN ? NULL : part_get(item, part);
            int rc = memory
                         ? p->device->kernels->zero(p->device, memory, part_bytes(item, part), err)
                         : 0;
            if (rc) return rc;
        }
    }
    return 0;
}

size_t params_moment_bytes(const struct params *p)
{
    size_t sum = 0;
    for (int i = 0; i < p->count; i++)
        for (int part = PART_M; part < PART_COUNT; part++)
            if (part != PART_MEAN && part_get(&p->item[i], part))
                sum += part_bytes(&p->item[i], part);
    return sum;
}

int params_zero_grad(struct params *p, struct error *err)
{
    for (int i = 0; i < p->count; i++) {
        int rc = p->device->kernels->zero(p->device, p->item[i].grad,
                                          (size_t)p->item[i].count * sizeof(float), err);
        if (rc) return rc;
    }
    return 0;
}

int params_grad_norm(struct params *p, double *norm, struct error *err)
{
    double sum = 0;
    for (int i = 0; i < p->count; i++) {
        double one = 0;
        if (p->item[i].frozen) continue;
        struct norm_args args = {p->item[i].grad, p->item[i].count, DTYPE_F32, &one};
        int rc = p->device->kernels->norm(p->device, &args, err);
        if (rc) return rc;
        sum += one;
    }
    *norm = sqrt(sum);
    return 0;
}

static int mean_follow(struct params *p, struct param *item, double decay, struct error *err)
{
    struct add_args args = {.y = item->mean,
                            .a = item->mean,
                            .b = item->data,
                            .count = item->count,
                            .b_count = item->count,
                            .alpha = decay,
                            .beta = 1 - decay,
                            .dtype = DTYPE_F32};
    return p->device->kernels->add(p->device, &args, err);
}

int params_update(struct params *p, const struct adamw *a, int64_t step, double grad_scale,
                  double *norm, struct error *err)
{
    double length;
    int rc = params_grad_norm(p, &length, err);
    if (rc) return rc;
    length *= grad_scale;
    if (norm) *norm = length;
    if (!isfinite(length))
        return error_set(err, ERR_INVALID,
                         "the gradient of step %lld is not a number (learning rate %g)",
                         (long long)step, a->lr);
    if (a->clip > 0 && length > a->clip) grad_scale *= a->clip / length;
    for (int i = 0; i < p->count && !rc; i++) {
        struct param *item = &p->item[i];
        if (item->frozen) continue;
        struct adamw_args args = {.param = item->data,
                                  .m = item->m,
                                  .v = item->v,
                                  .grad = item->grad,
                                  .count = item->count,
                                  .step = step,
                                  .lr = a->lr,
                                  .beta1 = a->beta1,
                                  .beta2 = a->beta2,
                                  .eps = a->eps,
                                  .weight_decay = a->weight_decay,
                                  .grad_scale = grad_scale};
        if (item->m8) {
            args.m = item->m8;
            args.v = item->v8;
            struct adamw8_args small = {args, item->m_scale, item->v_scale};
            rc = p->device->kernels->adamw8(p->device, &small, err);
        } else {
            rc = p->device->kernels->adamw(p->device, &args, err);
        }
        item->w->k.version++;
        if (!rc && item->mean) rc = mean_follow(p, item, a->mean_decay, err);
    }
    return rc;
}

int params_read(const struct params *p, int index, bool mean, float *out, struct error *err)
{
    const struct param *item = &p->item[index];
    return p->device->kernels->download(p->device, out,
                                        mean && item->mean ? item->mean : item->data,
                                        (size_t)item->count * sizeof(float), err);
}

int params_use_mean(struct params *p, struct error *err)
{
    int rc = 0;
    for (int i = 0; i < p->count && !rc; i++) {
        struct param *item = &p->item[i];
        if (!item->mean) continue;
        struct add_args args = {
            .y = item->data, .a = item->mean, .count = item->count, .alpha = 1, .dtype = DTYPE_F32};
        rc = p->device->kernels->add(p->device, &args, err);
        item->w->k.version++;
    }
    return rc;
}

int params_save(const struct params *p, const char *path, int64_t step,
                const struct safetensors_meta *extra, size_t extra_count, struct error *err)
{
    size_t room = (size_t)p->count * PART_COUNT, count = 0;
    struct safetensors_entry *entries = alloc_zero(room, sizeof *entries);
    char **names = alloc_zero(room, sizeof *names);
    void **copies = alloc_zero(room, sizeof *copies);
    int rc = 0;
    for (int i = 0; i < p->count && !rc; i++) {
        for (int part = 0; part < PART_COUNT && !rc; part++) {
            struct param *item = &p->item[i];
            void *memory = part_get(item, part);
            if (!memory) continue;
            size_t bytes = part_bytes(item, part);
            copies[count] = alloc_try(1, bytes);
            if (!copies[count]) {
                rc = error_set(err, ERR_NO_MEMORY, "no memory to save %s", item->name);
                break;
            }
            rc = p->device->kernels->download(p->device, copies[count], memory, bytes, err);
            names[count] = alloc_printf("%s#%s", item->name, part_names[part]);
            entries[count] = (struct safetensors_entry){.name = names[count],
                                                        .dtype = part_dtype(part),
                                                        .rank = 1,
                                                        .dim = {part_count(item, part)},
                                                        .data = copies[count],
                                                        .bytes = bytes};
            count++;
        }
    }
    struct safetensors_meta *meta = alloc_zero(extra_count + 1, sizeof *meta);
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)step);
    meta[0] = (struct safetensors_meta){"step", text};
    for (size_t i = 0; i < extra_count; i++) meta[i + 1] = extra[i];
    if (!rc) rc = safetensors_write(path, entries, count, meta, extra_count + 1, err);
    for (size_t i = 0; i < room; i++) {
        free(names[i]);
        free(copies[i]);
    }
    free(meta);
    free(copies);
    free(names);
    free(entries);
    return rc;
}

int params_load(struct params *p, const char *path, int64_t *step, struct error *err)
{
    struct safetensors file;
    int rc = safetensors_open(&file, path, err);
    if (rc) return rc;
    const char *text = safetensors_meta_find(&file, "step");
    int64_t value = 0;
    if (!text || !str_parse_i64(text, &value) || value < 0)
        rc =
            error_set(err, ERR_FORMAT, "%s is not the state of a training: it names no step", path);
    /* all are checked before any is changed */
    for (int change = 0; change < 2 && !rc; change++) {
        for (int i = 0; i < p->count && !rc; i++) {
            struct param *item = &p->item[i];
            for (int part = 0; part < PART_COUNT && !rc; part++) {
                void *memory = part_get(item, part);
                if (!memory) continue;
                char *name = alloc_printf("%s#%s", item->name, part_names[part]);
                const struct safetensors_entry *e = safetensors_find(&file, name);
                size_t bytes = part_bytes(item, part);
                if (!e || e->dtype != part_dtype(part) || e->bytes != bytes)
                    rc =
                        error_set(err, ERR_FORMAT,
                                  "%s belongs to another training: %s is absent or of another size",
                                  path, name);
                else if (change)
                    rc = p->device->kernels->upload(p->device, memory, e->data, bytes, err);
                free(name);
            }
            if (change) item->w->k.version++;
        }
    }
    safetensors_close(&file);
    if (!rc) *step = value;
    return rc;
}
