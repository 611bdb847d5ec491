#include "diffusion/control/frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "diffusion/control/annotator.h"
#include "diffusion/hires.h"

#define FILL_PX 64

void control_source_size(enum family family, int width, int height, int *w, int *h)
{
    *w = width;
    *h = height;
    if (family != FAMILY_SDXL && family != FAMILY_SDXL_REFINER && width > 512 && height > 512)
        hires_size_512(width, height, w, h);
}

static int enlarge_cubic(struct pixels *to, const struct pixels *from, int width, int height,
                         struct error *err)
{
    size_t n = (size_t)width * (size_t)height, m = (size_t)from->width * (size_t)from->height;
    struct pixels made = {0};
    float *plane = alloc_try(m, sizeof *plane), *sized = alloc_try(n, sizeof *sized);
    int rc = pixels_new(&made, width, height, 3, err);
    bool ok = plane && sized;
    for (size_t c = 0; !rc && ok && c < 3; c++) {
        for (size_t i = 0; i < m; i++) plane[i] = from->data[i * 3 + c];
        ok = plane_resample(sized, width, height, plane, from->width, from->height, PLANE_CUBIC);
        for (size_t i = 0; ok && i < n; i++)
            made.data[i * 3 + c] = (uint8_t)fminf(fmaxf(rintf(sized[i]), 0), 255);
    }
    free(plane);
    free(sized);
    if (!rc && !ok) rc = error_set(err, ERR_NO_MEMORY, "no memory to enlarge a picture");
    if (rc)
        pixels_release(&made);
    else
        *to = made;
    return rc;
}

/* The border goes on to the right and below. */
static int fill_up(struct pixels *to, const struct pixels *from, struct error *err)
{
    int w = (from->width + FILL_PX - 1) / FILL_PX * FILL_PX;
    int h = (from->height + FILL_PX - 1) / FILL_PX * FILL_PX;
    int rc = pixels_new(to, w, h, 3, err);
    for (int y = 0; !rc && y < h; y++) {
        int row = y < from->height ? y : from->height - 1;
        const uint8_t *in = from->data + (size_t)row * (size_t)from->width * 3;
        uint8_t *out = to->data + (size_t)y * (size_t)w * 3;
        memcpy(out, in, (size_t)from->width * 3);
        for (int x = from->width; x < w; x++)
            memcpy(out + (size_t)x * 3, in + (size_t)(from->width - 1) * 3, 3);
    }
    return rc;
}

int control_frame(struct pixels *frame, int *width, int *height, const struct pixels *from,
                  const char *type, int side, struct error *err)
{
    static const char *const by_area[] = {"scribble", "hough", "mlsd"};
    int shorter = from->width < from->height ? from->width : from->height;
    double k = (double)side / shorter;
    int w = (int)rint(from->width * k), h = (int)rint(from->height * k), rc = 0;
    bool area = false;
    struct pixels sized = {0};
    for (size_t i = 0; i < COUNT_OF(by_area); i++)
        area = area || str_equal_nocase(type, by_area[i]);
    if (k > 1)
        rc = area ? pixels_resize_linear(&sized, from, w, h, true, err)
                  : enlarge_cubic(&sized, from, w, h, err);
    if (!rc) rc = fill_up(frame, k > 1 ? &sized : from, err);
    if (!rc) {
        *width = k > 1 ? w : from->width;
        *height = k > 1 ? h : from->height;
    }
    pixels_release(&sized);
    return rc;
}

int control_hint(float **hint, const struct pixels *map, int width, int height, struct error *err)
{
    double have = (double)map->width / map->height, want = (double)width / height;
    int left = 0, top = 0;
    if (have > want) left = (int)rint((map->width - map->width * (want / have)) / 2);
    if (have < want) top = (int)rint((map->height - map->height * (have / want)) / 2);
    int w = map->width - 2 * left, h = map->height - 2 * top;
    float *made = alloc_try((size_t)width * (size_t)height * 3, sizeof *made);
    if (!made) return error_set(err, ERR_NO_MEMORY, "no memory for the control image");
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int row = (int)floorf(((float)y + 0.5f) * ((float)h / (float)height));
            int column = (int)floorf(((float)x + 0.5f) * ((float)w / (float)width));
            row = top + (row < h ? row : h - 1);
            column = left + (column < w ? column : w - 1);
            const uint8_t *p = map->data + ((size_t)row * (size_t)map->width + (size_t)column) * 3;
            for (int c = 0; c < 3; c++)
                made[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c] = p[c] / 255.0f;
        }
    *hint = made;
    return 0;
}
