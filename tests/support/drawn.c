#include "tests/support/drawn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "tensor/safetensors.h"

#define TENSORS_MAX 4096

float *drawn_values(const char *name, int64_t count, double scale, double offset)
{
    uint64_t seed = 0xcbf29ce484222325u;
    float *values = alloc_zero((size_t)count + 1, sizeof *values);
    for (; *name; name++) seed = (seed ^ (uint8_t)*name) * 0x100000001b3u;
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = seed + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        double u = (double)(z >> 40) / (1 << 24);
        values[i] = (float)(offset + scale * (2 * u - 1));
    }
    return values;
}

struct drawing {
    struct safetensors_entry list[TENSORS_MAX];
    size_t count;
};

static int add_line(struct drawing *d, char *line, struct error *err)
{
    char name[256], shape[64];
    double scale, offset;
    if (sscanf(line, "%255s %63s %lf %lf", name, shape, &scale, &offset) != 4 ||
        d->count == TENSORS_MAX)
        return error_set(err, ERR_FORMAT, "not a line of a table: %s", line);
    struct safetensors_entry *e = &d->list[d->count++];
    int64_t n = 1;
    *e = (struct safetensors_entry){.name = alloc_string(name), .dtype = DTYPE_F32};
    for (char *at = shape, *end; *at && *at != '-' && e->rank < SAFETENSORS_RANK_MAX; at = end) {
        n *= e->dim[e->rank++] = strtoll(at, &end, 10);
        if (end == at) return error_set(err, ERR_FORMAT, "not a shape: %s", shape);
        end += *end == 'x';
    }
    e->data = drawn_values(name, n, scale, offset);
    e->bytes = (size_t)n * sizeof(float);
    return 0;
}

static int set_all(struct drawing *d, const char *word, struct error *err)
{
    const char *equals = strchr(word, '=');
    float value = strtof(equals + 1, NULL);
    for (size_t i = 0; i < d->count; i++) {
        struct safetensors_entry *e = &d->list[i];
        if (strncmp(e->name, word, (size_t)(equals - word)) || e->name[equals - word]) continue;
        for (size_t k = 0; k < e->bytes / sizeof(float); k++)
            ((float *)(uintptr_t)e->data)[k] = value;
        return 0;
    }
    return error_set(err, ERR_NOT_FOUND, "no tensor %s", word);
}

static int add_table(struct drawing *d, const char *path, struct error *err)
{
    char line[512];
    int rc = 0;
    FILE *f = fopen(path, "r");
    if (!f) return error_set(err, ERR_NOT_FOUND, "%s cannot be read", path);
    while (!rc && fgets(line, sizeof line, f)) rc = add_line(d, line, err);
    fclose(f);
    return rc;
}

int drawn_write(const char *path, const char *const *tables, int table_count, struct error *err)
{
    struct drawing *d = alloc_zero(1, sizeof *d);
    int rc = 0;
    for (int i = 0; i < table_count && !rc; i++)
        rc = strchr(tables[i], '=') ? set_all(d, tables[i], err) : add_table(d, tables[i], err);
    if (!rc) rc = safetensors_write(path, d->list, d->count, NULL, 0, err);
    for (size_t i = 0; i < d->count; i++) {
        free((void *)(uintptr_t)d->list[i].name);
        free((void *)(uintptr_t)d->list[i].data);
    }
    free(d);
    return rc;
}
