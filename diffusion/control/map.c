#include "diffusion/control/map.h"

#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "image/resize.h"

static const struct {
    const char *type;
    int (*make)(struct pixels *to, const struct pixels *from, struct error *err);
} maps[] = {
    {"canny", map_canny},     {"scribble", map_scribble}, {"fakescribbles", map_fakescribbles},
    {"lineart", map_lineart}, {"tile", map_tile},         {"color", map_color},
    {"colour", map_color},    {"hough", map_hough},
};

static int find(const char *type)
{
    for (size_t i = 0; i < COUNT_OF(maps); i++)
        if (str_equal_nocase(type, maps[i].type)) return (int)i;
    return -1;
}

bool control_map_known(const char *type)
{
    return find(type) >= 0;
}

int control_map(struct pixels *to, const struct pixels *from, const char *type, struct error *err)
{
    int i = find(type);
    if (i >= 0) return maps[i].make(to, from, err);
    char shown[64];
    str_clean(shown, sizeof shown, type);
    return error_set(err, ERR_UNSUPPORTED,
                     "control type \"%s\" needs an annotator network: send the finished map "
                     "(image_is_control), or use canny, scribble, fakescribbles, lineart, tile, "
                     "color or hough",
                     shown);
}

int map_from_bytes(struct pixels *to, const struct pixels *from, const uint8_t *grey,
                   struct error *err)
{
    int rc = pixels_new(to, from->width, from->height, 3, err);
    for (int64_t i = 0; !rc && i < (int64_t)from->width * from->height; i++)
        memset(to->data + i * 3, grey[i], 3);
    return rc;
}

/* The picture itself: what a tile ControlNet wants is the source at its size. */
int map_tile(struct pixels *to, const struct pixels *from, struct error *err)
{
    int rc = pixels_new(to, from->width, from->height, 3, err);
    if (!rc) memcpy(to->data, from->data, (size_t)from->width * (size_t)from->height * 3);
    return rc;
}

/* A palette: cubic down to a 64th, then squares of one colour. */
int map_color(struct pixels *to, const struct pixels *from, struct error *err)
{
    struct pixels small = {0};
    int w = from->width / 64 > 0 ? from->width / 64 : 1;
    int h = from->height / 64 > 0 ? from->height / 64 : 1;
    int rc = pixels_resize(&small, from, w, h, RESIZE_BICUBIC, err);
    if (!rc) rc = pixels_new(to, from->width, from->height, 3, err);
    for (int y = 0; !rc && y < from->height; y++)
        for (int x = 0; x < from->width; x++) {
            int64_t at = (int64_t)(y * h / from->height) * w + x * w / from->width;
            memcpy(to->data + ((int64_t)y * from->width + x) * 3, small.data + at * 3, 3);
        }
    pixels_release(&small);
    return rc;
}
