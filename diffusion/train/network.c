#include "diffusion/train/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/sample/noise_cpu.h"

struct start {
    struct params *params;
    const char *prefix;
    uint64_t seed;
};

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

static void draw(float *values, int64_t count, const struct weight *w, const char *name,
                 uint64_t seed)
{
    struct noise_cpu g;
    noise_cpu_seed(&g, (hash_name(name) ^ seed * 0x9e3779b1u) & 0xffffffffu);
    if (w->k.rank < 2) {
        float constant = str_ends(name, ".weight") ? 1 : 0;
        for (int64_t i = 0; i < count; i++) values[i] = constant;
    } else if (strstr(name, "embedding.weight")) {
        noise_cpu_normal(&g, values, (size_t)count);
        for (int64_t i = 0; i < count; i++) values[i] *= .02f;
    } else {
        float limit = 1 / sqrtf((float)(count / w->k.dim[0]));
        noise_cpu_uniform(&g, values, (size_t)count);
        for (int64_t i = 0; i < count; i++) values[i] = limit * (2 * values[i] - 1);
    }
}

static int start_one(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                     struct error *err)
{
    struct start *s = v->context;
    const char *name = site->name[DIALECT_HF];
    w->k.rank = site->rank;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    int64_t count = weight_count(w);
    float *values = alloc_try((size_t)count, sizeof *values);
    if (!values) return error_set(err, ERR_NO_MEMORY, "no memory for %s", name);
    draw(values, count, w, name, s->seed);
    char *full = alloc_printf("%s.%s", s->prefix, name);
    int rc = params_adopt(s->params, w, full, values, err);
    free(full);
    free(values);
    return rc;
}

int network_start(struct params *params, network_walk walk, void *model, const char *prefix,
                  uint64_t seed, struct error *err)
{
    struct start start = {params, prefix, seed};
    struct weight_visitor v = {.visit = start_one, .context = &start, .err = err};
    walk(&v, model);
    return v.failed;
}

static int entry_of(struct safetensors_entry *e, const struct params *params, int index,
                    size_t prefix_length, struct error *err)
{
    const struct param *item = &params->item[index];
    float *values = alloc_try((size_t)item->count, sizeof *values);
    uint16_t *half = alloc_try((size_t)item->count, sizeof *half);
    int rc = 0;
    if (!values || !half) rc = error_set(err, ERR_NO_MEMORY, "no memory to save %s", item->name);
    if (!rc) rc = params_read(params, index, true, values, err);
    if (!rc) dtype_convert(half, DTYPE_F16, values, DTYPE_F32, item->count);
    free(values);
    if (rc) {
        free(half);
        return rc;
    }
    *e = (struct safetensors_entry){.name = item->name + prefix_length,
                                    .dtype = DTYPE_F16,
                                    .rank = item->w->k.rank,
                                    .data = half,
                                    .bytes = (size_t)item->count * sizeof *half};
    for (int i = 0; i < e->rank; i++) e->dim[i] = item->w->k.dim[i];
    /* diffusers keeps the VAE's attention as linear layers, here they are 1x1 convolutions */
    if (strstr(e->name, "mid_block.attentions.0.to_") && e->rank == 4 && e->dim[3] == 1)
        e->rank = 2;
    return 0;
}

int network_save(const struct params *params, const char *prefix, const char *path,
                 struct error *err)
{
    struct safetensors_entry *entries = alloc_zero((size_t)params->count + 1, sizeof *entries);
    size_t count = 0, length = strlen(prefix);
    int rc = 0;
    for (int i = 0; i < params->count && !rc; i++) {
        if (strncmp(params->item[i].name, prefix, length) || params->item[i].name[length] != '.')
            continue;
        rc = entry_of(&entries[count], params, i, length + 1, err);
        if (!rc) count++;
    }
    const struct safetensors_meta meta = {"format", "pt"};
    if (!rc) rc = safetensors_write(path, entries, count, &meta, 1, err);
    for (size_t i = 0; i < count; i++) free((void *)entries[i].data);
    free(entries);
    return rc;
}
