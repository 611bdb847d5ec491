/* Drawings: scribbles by threshold, fake scribbles by difference of Gaussians, classic line art. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "diffusion/control/map.h"

static int no_memory(struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for a control map");
}

/* A person's drawing: dark strokes on paper become white on black. */
int map_scribble(struct pixels *to, const struct pixels *from, struct error *err)
{
    int64_t n = (int64_t)from->width * from->height;
    uint8_t *grey = alloc_try((size_t)n, 1);
    if (!grey) return no_memory(err);
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *p = from->data + i * from->channels;
        uint8_t least = p[0] < p[1] ? p[0] : p[1];
        grey[i] = (least < p[2] ? least : p[2]) < 127 ? 255 : 0;
    }
    int rc = map_from_bytes(to, from, grey, err);
    free(grey);
    return rc;
}

static float *floats(const struct pixels *from)
{
    int64_t n = (int64_t)from->width * from->height;
    float *x = alloc_try((size_t)n * 3, sizeof *x);
    for (int64_t i = 0; x && i < n; i++)
        for (int k = 0; k < 3; k++) x[i * 3 + k] = from->data[i * from->channels + k];
    return x;
}

static float least_of(const float *a, const float *b)
{
    return fminf(fminf(a[0] - b[0], a[1] - b[1]), a[2] - b[2]);
}

int map_fakescribbles(struct pixels *to, const struct pixels *from, struct error *err)
{
    int w = from->width, h = from->height;
    float *fine = floats(from), *coarse = floats(from);
    uint8_t *grey = alloc_try((size_t)w * (size_t)h, 1);
    bool ok = fine && coarse && grey && map_blur(fine, w, h, 3, 0.5, 4) &&
              map_blur(coarse, w, h, 3, 5, 4);
    for (int64_t i = 0; ok && i < (int64_t)w * h; i++) {
        float dog = fminf(fmaxf(255 - least_of(coarse + i * 3, fine + i * 3), 0), 255);
        grey[i] = 2 * (255 - dog) > 32 ? 255 : 0;
    }
    int rc = ok ? map_from_bytes(to, from, grey, err) : no_memory(err);
    free(fine);
    free(coarse);
    free(grey);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Middle of what is darker than its surroundings by more than 8, at least 16. */
static float typical(const float *x, int64_t n, float *scratch)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > 8) scratch[kept++] = x[i];
    if (!kept) return 16;
    qsort(scratch, (size_t)kept, sizeof *scratch, by_value);
    float middle = kept % 2 ? scratch[kept / 2] : (scratch[kept / 2 - 1] + scratch[kept / 2]) / 2;
    return fmaxf(16, middle);
}

int map_lineart(struct pixels *to, const struct pixels *from, struct error *err)
{
    int w = from->width, h = from->height;
    int64_t n = (int64_t)w * h;
    float *x = floats(from), *soft = floats(from), *dark = alloc_try((size_t)n, sizeof *dark),
          *scratch = alloc_try((size_t)n, sizeof *scratch);
    uint8_t *grey = alloc_try((size_t)n, 1);
    bool ok = x && soft && dark && scratch && grey && map_blur(soft, w, h, 3, 6, 4);
    for (int64_t i = 0; ok && i < n; i++)
        dark[i] = fminf(fmaxf(least_of(soft + i * 3, x + i * 3), 0), 255);
    float middle = ok ? typical(dark, n, scratch) : 1;
    for (int64_t i = 0; ok && i < n; i++) grey[i] = (uint8_t)fminf(dark[i] / middle * 127, 255);
    int rc = ok ? map_from_bytes(to, from, grey, err) : no_memory(err);
    free(x);
    free(soft);
    free(dark);
    free(scratch);
    free(grey);
    return rc;
}
