#include "diffusion/upscale/upscaler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/now.h"
#include "diffusion/upscale/rrdb.h"
#include "image/resize.h"

/* Pixels of a tile and of its surroundings that are computed and thrown away. */
#define TILE_PX 192
#define MARGIN_PX 16

struct upscaler {
    struct device *device;
    struct weight_store *store;
    struct rrdb net;
    enum dtype dtype;
    struct pass_memory memory;
};

static int load(struct upscaler *u, const char *path, struct error *err)
{
    struct rrdb_config c;
    enum dialect dialect;
    int rc = weight_store_open(&u->store, path, err);
    if (!rc) rc = rrdb_detect(&c, u->store, &dialect, err);
    if (!rc) rc = rrdb_init(&u->net, &c, err);
    if (rc) return rc;
    struct weight_loading loading = {
        .store = u->store, .prefix = "", .component = "the upscaler", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &loading, .err = err};
    rrdb_visit(&v, &u->net);
    return v.failed ? v.failed : weight_loading_check(&loading, err);
}

int upscaler_open(struct upscaler **upscaler, struct device *device, const char *path,
                  enum precision precision, struct error *err)
{
    struct upscaler *u = alloc_zero(1, sizeof *u);
    u->device = device;
    u->dtype = precision == PRECISION_FP32   ? DTYPE_F32
               : precision == PRECISION_BF16 ? DTYPE_BF16
               : precision == PRECISION_FP16 ? DTYPE_F16
                                             : device->default_dtype;
    pass_memory_init(&u->memory, device, 0);
    int rc = load(u, path, err);
    if (rc) {
        upscaler_close(u);
        return rc;
    }
    *upscaler = u;
    return 0;
}

void upscaler_close(struct upscaler *u)
{
    if (!u) return;
    pass_memory_release(&u->memory);
    rrdb_release(&u->net, u->device);
    weight_store_close(u->store);
    free(u);
}

int upscaler_factor(const struct upscaler *u)
{
    return 4 / u->net.config.unshuffle;
}

static int inside(int i, int n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Squares of s x s pixels become channels: [h/s, w/s, 3 s s], colour first as torch's unshuffle. */
static void cut(float *to, const struct pixels *from, int x0, int y0, int w, int h, int s)
{
    int channels = 3 * s * s;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const uint8_t *p =
                from->data + ((size_t)inside(y0 + y, from->height) * (size_t)from->width +
                              (size_t)inside(x0 + x, from->width)) *
                                 3;
            float *cell =
                to + ((size_t)(y / s) * (size_t)(w / s) + (size_t)(x / s)) * (size_t)channels;
            for (int c = 0; c < 3; c++) cell[c * s * s + y % s * s + x % s] = (float)p[c] / 255.0f;
        }
}

struct tile {
    int x, y, w, h; /* of the source, what this tile is for */
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* The margin ends where the picture ends: there the network's own zeros begin, as for a whole one. */
static int run_tile(struct upscaler *u, struct pixels *to, const struct pixels *from, struct tile t,
                    float *in, float *out, struct error *err)
{
    int s = u->net.config.unshuffle, f = upscaler_factor(u);
    int left = least(MARGIN_PX, t.x), top = least(MARGIN_PX, t.y);
    int w = left + t.w + least(MARGIN_PX, from->width - t.x - t.w);
    int h = top + t.h + least(MARGIN_PX, from->height - t.y - t.h);
    w += w % s ? s - w % s : 0;
    h += h % s ? s - h % s : 0;
    cut(in, from, t.x - left, t.y - top, w, h, s);
    struct pass p;
    pass_start(&p, &u->memory, u->dtype, NULL);
    struct tensor x = pass_input(&p, in, 4, TENSOR_DIM(1, h / s, w / s, u->net.config.in));
    pass_output(&p, out, rrdb_forward(&p, &u->net, x));
    int rc = pass_finish(&p, err);
    for (int y = 0; !rc && y < t.h * f; y++) {
        const float *row = out + ((size_t)(y + top * f) * (size_t)(w * f) + (size_t)(left * f)) * 3;
        uint8_t *to_row =
            to->data + ((size_t)(t.y * f + y) * (size_t)to->width + (size_t)(t.x * f)) * 3;
        for (int k = 0; k < t.w * f * 3; k++)
            to_row[k] = (uint8_t)lrintf(fminf(fmaxf(row[k], 0), 1) * 255);
    }
    return rc;
}

static int run_rgb(struct upscaler *u, struct pixels *to, const struct pixels *from,
                   const struct pipeline_hooks *hooks, struct error *err)
{
    int f = upscaler_factor(u), rc = pixels_new(to, from->width * f, from->height * f, 3, err);
    if (rc) return rc;
    size_t side = TILE_PX + 2 * MARGIN_PX + 4;
    float *in = alloc_try(side * side * 3, sizeof *in);
    float *out = alloc_try(side * side * 3 * (size_t)(f * f), sizeof *out);
    if (!in || !out) rc = error_set(err, ERR_NO_MEMORY, "no memory for a tile");
    double start = now_seconds();
    int across = (from->width + TILE_PX - 1) / TILE_PX,
        down = (from->height + TILE_PX - 1) / TILE_PX;
    for (int i = 0; !rc && i < across * down; i++) {
        struct tile t = {i % across * TILE_PX, i / across * TILE_PX, TILE_PX, TILE_PX};
        if (t.x + t.w > from->width) t.w = from->width - t.x;
        if (t.y + t.h > from->height) t.h = from->height - t.y;
        if (hooks && hooks->canceled && hooks->canceled(hooks->context))
            rc = error_set(err, ERR_CANCELED, "stopped on request");
        else
            rc = run_tile(u, to, from, t, in, out, err);
        struct pipeline_progress now = {PHASE_DECODE, i + 1, across * down, now_seconds() - start};
        if (!rc && hooks && hooks->progress) hooks->progress(hooks->context, &now);
    }
    free(in);
    free(out);
    if (rc) pixels_release(to);
    return rc;
}

/* The fourth channel, enlarged by itself. */
static int add_alpha(struct pixels *to, const struct pixels *from, struct error *err)
{
    struct pixels alpha = {0}, large = {0}, joined = {0};
    int64_t n = (int64_t)from->width * from->height;
    int rc = pixels_new(&alpha, from->width, from->height, 1, err);
    for (int64_t i = 0; !rc && i < n; i++) alpha.data[i] = from->data[i * 4 + 3];
    if (!rc) rc = pixels_resize(&large, &alpha, to->width, to->height, RESIZE_BICUBIC, err);
    if (!rc) rc = pixels_convert(&joined, to, 4, err);
    for (int64_t i = 0; !rc && i < (int64_t)to->width * to->height; i++)
        joined.data[i * 4 + 3] = large.data[i];
    pixels_release(&alpha);
    pixels_release(&large);
    pixels_release(to);
    if (!rc) *to = joined;
    return rc;
}

int upscaler_run(struct upscaler *u, struct pixels *to, const struct pixels *from,
                 const struct pipeline_hooks *hooks, struct error *err)
{
    struct pixels rgb = {0}, made = {0};
    int rc = pixels_convert(&rgb, from, 3, err);
    if (!rc) rc = run_rgb(u, &made, &rgb, hooks, err);
    if (!rc && from->channels == 4) rc = add_alpha(&made, from, err);
    pixels_release(&rgb);
    if (!rc) *to = made;
    return rc;
}
