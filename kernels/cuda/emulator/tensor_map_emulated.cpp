#include "kernels/cuda/emulator/tensor_map_emulated.h"

#include <cstring>

#include "kernels/cuda/tensor_map.h"

static const int invalid_value = 1;

/* What the driver refuses: addresses and pitches off 16 bytes, empty or too large dimensions. */
static bool array_ok(const struct emulated_map *m)
{
    if ((uintptr_t)m->base % 16) return false;
    for (int i = 0; i < 3; i++)
        if (m->pitch[i] <= 0 || m->pitch[i] % 16 || m->pitch[i] >> 40) return false;
    for (int i = 0; i < 4; i++)
        if (!m->dim[i]) return false;
    return true;
}

static bool set_dim(uint32_t *to, int64_t dim)
{
    *to = (uint32_t)dim;
    return dim > 0 && dim <= 0xffffffff;
}

static void keep(struct tensor_map *map, struct emulated_map *m)
{
    m->mark = emulated_map_mark;
    memcpy(map->word, m, sizeof *m);
}

bool tensor_map_ready()
{
    return true;
}

int tensor_map_tiles(struct tensor_map *map, const struct tensor_tiles *t)
{
    struct emulated_map m = {};
    m.base = (const uint8_t *)t->base;
    bool ok = true;
    for (int i = 0; i < 4; i++) ok = set_dim(&m.dim[i], t->dim[i]) && ok;
    for (int i = 0; i < 3; i++) {
        m.pitch[i] = t->pitch[i];
        m.box[i] = (uint16_t)t->box[i];
        ok = ok && t->box[i] > 0 && t->box[i] <= 256;
    }
    if (!ok || !array_ok(&m)) return invalid_value;
    keep(map, &m);
    return 0;
}

int tensor_map_pixels(struct tensor_map *map, const struct tensor_pixels *p)
{
    struct emulated_map m = {};
    m.base = (const uint8_t *)p->base;
    const int64_t dim[4] = {p->c, p->w, p->h, p->n};
    const int64_t pitch[3] = {p->pixel_pitch, p->line_pitch, p->image_pitch};
    bool ok = true;
    for (int i = 0; i < 4; i++) ok = set_dim(&m.dim[i], dim[i]) && ok;
    for (int i = 0; i < 3; i++) m.pitch[i] = pitch[i];
    m.pixels = 1;
    m.box[0] = (uint16_t)p->pixels;
    m.step = p->step;
    m.lower_x = p->from_x;
    m.lower_y = p->from_y;
    m.upper_x = p->from_x + (p->columns - 1) * p->step - (int)(p->w - 1);
    m.upper_y = p->from_y + (p->rows - 1) * p->step - (int)(p->h - 1);
    const int corner[4] = {m.lower_x, m.lower_y, m.upper_x, m.upper_y};
    for (int i = 0; i < 4; i++) ok = ok && corner[i] >= -128 && corner[i] <= 127;
    ok = ok && p->step >= 1 && p->step <= 8 && p->pixels > 0 && p->pixels <= 1024;
    if (!ok || !array_ok(&m)) return invalid_value;
    keep(map, &m);
    return 0;
}
