/* Pictures through the VAE with bounded memory: one image at a time, large ones in tiles. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/free_memory.h"
#include "diffusion/vae/vae.h"
#include "tensor/pass_plan.h"

struct job {
    struct vae *m;
    struct pass_memory *memory;
    enum dtype dtype;
    size_t *peak_bytes;
};

static int done(const struct job *job, struct pass *p, struct error *err)
{
    if (job->peak_bytes && p->peak_bytes > *job->peak_bytes) *job->peak_bytes = p->peak_bytes;
    return pass_finish(p, err);
}

/* A picture's size on its way through either half. */
struct plan {
    const struct job *job;
    int64_t h, w;
};

static void plan_decode(struct pass *p, void *context)
{
    const struct plan *plan = context;
    struct vae *m = plan->job->m;
    vae_decode(
        p, m,
        pass_tensor(p, p->dtype, 4, TENSOR_DIM(1, plan->h, plan->w, m->config.latent_channels)));
}

static void plan_encode(struct pass *p, void *context)
{
    const struct plan *plan = context;
    struct vae *m = plan->job->m;
    struct tensor t = pass_tensor(p, p->dtype, 4, TENSOR_DIM(1, plan->h, plan->w, 3));
    op_scale(p, op_slice(p, vae_encode(p, m, t), 0, m->config.latent_channels), m->config.scale);
}

/* z: [h,w,c] floats, already divided by the scale -> rgb [8h,8w,3] */
static int decode_one(const struct job *job, const float *z, int64_t h, int64_t w, float *rgb,
                      struct error *err)
{
    struct pass p;
    int rc = pass_plan(job->memory, job->dtype, plan_decode, &(struct plan){job, h, w}, err);
    if (rc) return rc;
    pass_start(&p, job->memory, job->dtype, NULL);
    struct tensor t = pass_input(&p, z, 4, TENSOR_DIM(1, h, w, job->m->config.latent_channels));
    pass_output(&p, rgb, vae_decode(&p, job->m, t));
    return done(job, &p, err);
}

/* rgb [H,W,3] -> mean [H/8,W/8,c], on the UNet's scale */
static int encode_one(const struct job *job, const float *rgb, int64_t h, int64_t w, float *mean,
                      struct error *err)
{
    struct pass p;
    int rc = pass_plan(job->memory, job->dtype, plan_encode, &(struct plan){job, h, w}, err);
    if (rc) return rc;
    pass_start(&p, job->memory, job->dtype, NULL);
    int64_t c = job->m->config.latent_channels;
    struct tensor t = pass_input(&p, rgb, 4, TENSOR_DIM(1, h, w, 3));
    t = op_scale(&p, op_slice(&p, vae_encode(&p, job->m, t), 0, c), job->m->config.scale);
    pass_output(&p, mean, t);
    return done(job, &p, err);
}

#define TILE 128 /* latents: 1024 x 1024 pixels */

/* Whether a picture's maps have room: the first block of full size holds its input, one map between and, where
 * norms make maps of their own, its result. A device without host memory says so itself. */
static bool fits(const struct job *job, int64_t latents)
{
    const struct vae_config *c = &job->m->config;
    if (latents <= TILE * TILE || !job->memory->device->host_memory) return true;
    size_t pixels = (size_t)(latents * vae_factor(job->m) * vae_factor(job->m));
    const int maps = job->memory->device->kernels->norm_conv2d ? 1 : 2;
    size_t channels = (size_t)(c->channels[c->levels > 1] + maps * c->channels[0]);
    return pixels * channels * dtype_bytes(job->dtype) <= free_memory_bytes() / 4 * 3;
}

/* Where tile k of a side of `total` starts: tiles are `tile` long, a quarter of it shared. */
static int64_t tile_start(int64_t total, int64_t tile, int64_t k)
{
    int64_t start = k * (tile - tile / 4);
    return start + tile > total ? (total > tile ? total - tile : 0) : start;
}

static int64_t tile_count(int64_t total, int64_t tile)
{
    int64_t stride = tile - tile / 4;
    return total <= tile ? 1 : (total - tile + stride - 1) / stride + 1;
}

/* Weight of a position in a tile: rises over the shared part, except at the picture's border. */
static float ramp(int64_t at, int64_t size, int64_t start, int64_t total, int64_t shared)
{
    float weight = 1;
    if (start > 0 && at < shared) weight = ((float)at + 0.5f) / (float)shared;
    int64_t from_end = size - 1 - at;
    if (start + size < total && from_end < shared)
        weight = fminf(weight, ((float)from_end + 0.5f) / (float)shared);
    return weight;
}

struct grid {
    int64_t h, w, c; /* of the whole, channels of the data */
};

static void cut(float *to, const float *from, struct grid g, int64_t y, int64_t x, int64_t h,
                int64_t w)
{
    for (int64_t i = 0; i < h; i++)
        memcpy(to + i * w * g.c, from + ((y + i) * g.w + x) * g.c, (size_t)(w * g.c) * sizeof *to);
}

static void blend(float *sum, float *weight, const float *from, struct grid g, int64_t y, int64_t x,
                  int64_t h, int64_t w, int64_t shared)
{
    for (int64_t i = 0; i < h; i++)
        for (int64_t j = 0; j < w; j++) {
            float f = ramp(i, h, y, g.h, shared) * ramp(j, w, x, g.w, shared);
            int64_t at = (y + i) * g.w + x + j;
            weight[at] += f;
            for (int64_t k = 0; k < g.c; k++) sum[at * g.c + k] += f * from[(i * w + j) * g.c + k];
        }
}

typedef int (*tile_work)(const struct job *job, const float *in, int64_t h, int64_t w, float *out,
                         struct error *err);

/* in and out are one image, channels last; sizes of tiles are in latents. */
static int tiled(const struct job *job, tile_work work, struct grid in_grid, const float *in,
                 struct grid out_grid, float *out, int64_t in_scale, int64_t out_scale,
                 int64_t tile, struct error *err)
{
    int64_t lh = in_grid.h / in_scale, lw = in_grid.w / in_scale;
    if (tile == VAE_TILE_AUTO) {
        bool small = lh * lw <= TILE * TILE;
        int rc = fits(job, lh * lw) ? work(job, in, in_grid.h, in_grid.w, out, err) : ERR_NO_MEMORY;
        if (rc != ERR_NO_MEMORY || small) return rc;
        tile = TILE;
    }
    if (tile <= 0 || lh * lw <= tile * tile) return work(job, in, in_grid.h, in_grid.w, out, err);
    int64_t th = lh < tile ? lh : tile, tw = lw < tile ? lw : tile;
    float *part = alloc_try((size_t)(th * tw * in_scale * in_scale * in_grid.c), sizeof *part);
    float *made = alloc_try((size_t)(th * tw * out_scale * out_scale * out_grid.c), sizeof *made);
    float *weight = alloc_try((size_t)(out_grid.h * out_grid.w), sizeof *weight);
    int rc = part && made && weight
                 ? 0
                 : error_set(err, ERR_NO_MEMORY, "no memory for the tiles of a %lldx%lld picture",
                             (long long)out_grid.w, (long long)out_grid.h);
    memset(out, 0, (size_t)(out_grid.h * out_grid.w * out_grid.c) * sizeof *out);
    for (int64_t a = 0; !rc && a < tile_count(lh, tile); a++)
        for (int64_t b = 0; !rc && b < tile_count(lw, tile); b++) {
            int64_t y = tile_start(lh, tile, a), x = tile_start(lw, tile, b);
            cut(part, in, in_grid, y * in_scale, x * in_scale, th * in_scale, tw * in_scale);
            rc = work(job, part, th * in_scale, tw * in_scale, made, err);
            if (!rc)
                blend(out, weight, made, out_grid, y * out_scale, x * out_scale, th * out_scale,
                      tw * out_scale, tile / 4 * out_scale);
        }
    for (int64_t i = 0; !rc && i < out_grid.h * out_grid.w; i++)
        for (int64_t k = 0; k < out_grid.c; k++) out[i * out_grid.c + k] /= weight[i];
    free(part);
    free(made);
    free(weight);
    return rc;
}

int vae_decode_picture(struct vae *m, struct pass_memory *memory, enum dtype dtype, int tile,
                       const float *latent, int64_t n, int64_t h, int64_t w, float *picture,
                       size_t *peak_bytes, struct error *err)
{
    int64_t c = m->config.latent_channels, f = vae_factor(m);
    struct job job = {m, memory, dtype, peak_bytes};
    float *z = alloc_try((size_t)(h * w * c), sizeof *z);
    if (!z) return error_set(err, ERR_NO_MEMORY, "no memory for a latent");
    int rc = 0;
    for (int64_t i = 0; !rc && i < n; i++) {
        for (int64_t k = 0; k < c; k++)
            for (int64_t at = 0; at < h * w; at++)
                z[at * c + k] = (float)(latent[(i * c + k) * h * w + at] / m->config.scale);
        rc = tiled(&job, decode_one, (struct grid){h, w, c}, z, (struct grid){h * f, w * f, 3},
                   picture + i * h * w * f * f * 3, 1, f, tile, err);
    }
    free(z);
    return rc;
}

int vae_encode_picture(struct vae *m, struct pass_memory *memory, enum dtype dtype, int tile,
                       const float *picture, int64_t n, int64_t h, int64_t w, float *latent,
                       size_t *peak_bytes, struct error *err)
{
    int64_t c = m->config.latent_channels, f = vae_factor(m), lh = h / f, lw = w / f;
    struct job job = {m, memory, dtype, peak_bytes};
    float *z = alloc_try((size_t)(lh * lw * c), sizeof *z);
    if (!z) return error_set(err, ERR_NO_MEMORY, "no memory for a latent");
    int rc = 0;
    for (int64_t i = 0; !rc && i < n; i++) {
        rc = tiled(&job, encode_one, (struct grid){h, w, 3}, picture + i * h * w * 3,
                   (struct grid){lh, lw, c}, z, f, 1, tile, err);
        for (int64_t k = 0; !rc && k < c; k++)
            for (int64_t at = 0; at < lh * lw; at++)
                latent[(i * c + k) * lh * lw + at] = z[at * c + k];
    }
    free(z);
    return rc;
}
