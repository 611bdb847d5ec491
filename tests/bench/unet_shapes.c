#include "tests/bench/unet_shapes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define BATCH 2 /* guidance */

const char *const shape_kind_name[SHAPE_KINDS] = {"conv",       "linear", "attention", "group norm",
                                                  "layer norm", "geglu",  "copy"};

#define CONV(n, h, c, out)                                                                         \
    {                                                                                              \
        "conv3x3 " #h "x" #h " " #c "->" #out, SHAPE_CONV, n,                                      \
        {                                                                                          \
            h, h, c, out, 3, 1, 1                                                                  \
        }                                                                                          \
    }
#define DOWN(h, c)                                                                                 \
    {                                                                                              \
        "conv3x3 stride 2 " #h "x" #h " " #c, SHAPE_CONV, 1,                                       \
        {                                                                                          \
            h, h, c, c, 3, 2, 1                                                                    \
        }                                                                                          \
    }
#define UP(h, c)                                                                                   \
    {                                                                                              \
        "enlarge + conv3x3 " #h "x" #h " " #c, SHAPE_CONV, 1,                                      \
        {                                                                                          \
            h, h, c, c, 3, 1, 2                                                                    \
        }                                                                                          \
    }
#define SKIP(n, h, c, out)                                                                         \
    {                                                                                              \
        "conv1x1 " #h "x" #h " " #c "->" #out, SHAPE_CONV, n,                                      \
        {                                                                                          \
            h, h, c, out, 1, 1, 1                                                                  \
        }                                                                                          \
    }
#define LINEAR(n, what, m, k, out)                                                                 \
    {                                                                                              \
        what " " #m "x" #out "x" #k, SHAPE_LINEAR, n,                                              \
        {                                                                                          \
            m, k, out                                                                              \
        }                                                                                          \
    }
#define BLOCKS(n, m, c, c3, c4, c8)                                                                \
    LINEAR(n, "qkv", m, c, c3), LINEAR(5 * n, "linear", m, c, c), LINEAR(n, "ff out", m, c4, c),   \
        {"linear + geglu " #m "x" #c8 "x" #c, SHAPE_GEGLU, n, {m, c, c8}},                         \
    {                                                                                              \
        "layer norm " #m "x" #c, SHAPE_LAYER, 3 * n,                                               \
        {                                                                                          \
            m, c                                                                                   \
        }                                                                                          \
    }
#define ATTENTION(n, lq, lk, d)                                                                    \
    {                                                                                              \
        "attention " #lq "x" #lk " d" #d, SHAPE_ATTENTION, n,                                      \
        {                                                                                          \
            8, lq, lk, d                                                                           \
        }                                                                                          \
    }
#define GROUP(n, rows, c)                                                                          \
    {                                                                                              \
        "group norm " #rows "x" #c, SHAPE_GROUP, n,                                                \
        {                                                                                          \
            rows, c                                                                                \
        }                                                                                          \
    }
#define JOIN(n, rows, c)                                                                           \
    {                                                                                              \
        "concat " #rows "x" #c, SHAPE_COPY, n,                                                     \
        {                                                                                          \
            rows, c                                                                                \
        }                                                                                          \
    }

const struct unet_shape unet_shapes[] = {
    {"conv_in", SHAPE_CONV, 1, {64, 64, 4, 320, 3, 1, 1}},
    CONV(7, 64, 320, 320),
    CONV(2, 64, 640, 320),
    CONV(1, 64, 960, 320),
    CONV(6, 32, 640, 640),
    CONV(1, 32, 320, 640),
    CONV(1, 32, 960, 640),
    CONV(1, 32, 1280, 640),
    CONV(1, 32, 1920, 640),
    CONV(6, 16, 1280, 1280),
    CONV(1, 16, 640, 1280),
    CONV(1, 16, 1920, 1280),
    CONV(2, 16, 2560, 1280),
    CONV(11, 8, 1280, 1280),
    CONV(3, 8, 2560, 1280),
    {"conv_out", SHAPE_CONV, 1, {64, 64, 320, 4, 3, 1, 1}},
    DOWN(64, 320),
    DOWN(32, 640),
    DOWN(16, 1280),
    UP(8, 1280),
    UP(16, 1280),
    UP(32, 640),
    SKIP(2, 64, 640, 320),
    SKIP(1, 64, 960, 320),
    SKIP(1, 32, 320, 640),
    SKIP(1, 32, 960, 640),
    SKIP(1, 32, 1280, 640),
    SKIP(1, 32, 1920, 640),
    SKIP(1, 16, 640, 1280),
    SKIP(1, 16, 1920, 1280),
    SKIP(2, 16, 2560, 1280),
    SKIP(3, 8, 2560, 1280),
    BLOCKS(5, 8192, 320, 960, 1280, 2560),
    BLOCKS(5, 2048, 640, 1920, 2560, 5120),
    BLOCKS(5, 512, 1280, 3840, 5120, 10240),
    BLOCKS(1, 128, 1280, 3840, 5120, 10240),
    LINEAR(5, "text kv", 154, 768, 640),
    LINEAR(5, "text kv", 154, 768, 1280),
    LINEAR(6, "text kv", 154, 768, 2560),
    ATTENTION(5, 4096, 4096, 40),
    ATTENTION(5, 1024, 1024, 80),
    ATTENTION(5, 256, 256, 160),
    ATTENTION(1, 64, 64, 160),
    ATTENTION(5, 4096, 77, 40),
    ATTENTION(5, 1024, 77, 80),
    ATTENTION(5, 256, 77, 160),
    ATTENTION(1, 64, 77, 160),
    GROUP(13, 4096, 320),
    GROUP(2, 4096, 640),
    GROUP(1, 4096, 960),
    GROUP(12, 1024, 640),
    GROUP(4, 1024, 1280),
    GROUP(14, 256, 1280),
    GROUP(3, 256, 1920),
    GROUP(14, 64, 1280),
    GROUP(3, 64, 2560),
    JOIN(2, 8192, 640),
    JOIN(1, 8192, 960),
    JOIN(3, 2048, 1280),
    JOIN(3, 512, 2560),
    JOIN(3, 128, 2560),
};
const size_t unet_shape_count = COUNT_OF(unet_shapes);

/* Useful operations: a convolution of an enlarged picture counts its nine taps. */
double shape_flops(const struct unet_shape *s)
{
    const int64_t *a = s->a;
    double conv_pixels = BATCH * (double)(a[0] * a[6] / (a[5] ? a[5] : 1)) *
                         (double)(a[1] * a[6] / (a[5] ? a[5] : 1));
    switch (s->kind) {
    case SHAPE_CONV: return 2 * conv_pixels * (double)(a[2] * a[3] * a[4] * a[4]);
    case SHAPE_GEGLU:
    case SHAPE_LINEAR: return 2 * (double)a[0] * (double)a[1] * (double)a[2];
    case SHAPE_ATTENTION: return 4.0 * BATCH * (double)(a[0] * a[1]) * (double)(a[2] * a[3]);
    default: return 0;
    }
}

static void *random_memory(struct shape_run *r, int64_t count, enum dtype dtype, double scale,
                           struct error *err)
{
    void *memory;
    if (r->device->kernels->alloc(r->device, &memory, (size_t)count * dtype_bytes(dtype), err))
        return NULL;
    uint32_t state = 12345;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525 + 1013904223;
        float value = ((float)(state >> 8) * 0x1p-24f - 0.5f) * (float)scale;
        if (dtype == DTYPE_F32)
            ((float *)memory)[i] = value;
        else
            ((uint16_t *)memory)[i] = f32_to_bf16(value);
    }
    return memory;
}

int shape_run_init(struct shape_run *r, const struct unet_shape *s, struct device *d,
                   enum dtype dtype, struct error *err)
{
    const int64_t *a = s->a;
    int64_t x = 0, y = 0, w = 0, k = 1;
    *r = (struct shape_run){.shape = s, .device = d, .dtype = dtype};
    switch (s->kind) {
    case SHAPE_CONV:
        x = BATCH * a[0] * a[1] * a[2];
        y = BATCH * a[0] * a[1] * a[3] * a[6] * a[6];
        k = a[2] * a[4] * a[4];
        w = k * a[3];
        r->w = (struct kernel_weight){.rank = 4, .dim = {a[3], a[2], a[4], a[4]}};
        break;
    case SHAPE_GEGLU:
    case SHAPE_LINEAR:
        x = a[0] * a[1];
        y = a[0] * a[2];
        k = a[1];
        w = k * a[2];
        r->w = (struct kernel_weight){.rank = 2, .dim = {a[2], a[1]}};
        break;
    case SHAPE_ATTENTION:
        x = BATCH * a[0] * a[1] * a[3];
        y = x;
        w = BATCH * a[0] * a[2] * a[3] * 2;
        break;
    case SHAPE_GROUP: x = y = BATCH * a[0] * a[1]; break;
    default: x = y = a[0] * a[1]; break;
    }
    r->x = random_memory(r, x, dtype, 4, err);
    r->y = random_memory(r, y, dtype, 1, err);
    r->z = random_memory(r, w ? w : 1, dtype, 4 / sqrt((double)k), err);
    r->bias = random_memory(r, 32768, dtype, 1, err);
    if (!r->x || !r->y || !r->z || !r->bias) return ERR_NO_MEMORY;
    r->w.data = r->z;
    r->w.dtype = dtype;
    return 0;
}

int shape_run_once(struct shape_run *r, struct error *err)
{
    const int64_t *a = r->shape->a;
    const struct kernels *k = r->device->kernels;
    struct epilogue_args epilogue = {.bias = r->bias, .bias_dtype = r->dtype};
    switch (r->shape->kind) {
    case SHAPE_CONV: {
        int64_t stride = a[5], up = a[6], pad = a[4] / 2;
        struct conv2d_args c = {.y = r->y,
                                .x = r->x,
                                .w = &r->w,
                                .n = BATCH,
                                .h = a[0],
                                .w_px = a[1],
                                .c = a[2],
                                .oh = a[0] * up / stride,
                                .ow = a[1] * up / stride,
                                .out = a[3],
                                .kh = (int)a[4],
                                .kw = (int)a[4],
                                .stride = (int)stride,
                                .pad_top = (int)pad,
                                .pad_left = (int)pad,
                                .upsample = (int)up,
                                .dtype = r->dtype,
                                .epilogue = epilogue};
        return k->conv2d(r->device, &c, err);
    }
    case SHAPE_GEGLU:
    case SHAPE_LINEAR: {
        struct linear_args l = {.y = r->y,
                                .x = r->x,
                                .w = &r->w,
                                .m = a[0],
                                .k = a[1],
                                .out = a[2],
                                .ldx = a[1],
                                .ldy = r->shape->kind == SHAPE_GEGLU ? a[2] / 2 : a[2],
                                .dtype = r->dtype,
                                .epilogue = epilogue};
        return r->shape->kind == SHAPE_GEGLU ? k->linear_geglu(r->device, &l, err)
                                             : k->linear(r->device, &l, err);
    }
    case SHAPE_ATTENTION: {
        int64_t ld = a[0] * a[3];
        struct attention_args t = {.y = r->y,
                                   .q = r->x,
                                   .k = r->z,
                                   .v = (char *)r->z +
                                        (size_t)(BATCH * a[2] * ld) * dtype_bytes(r->dtype),
                                   .n = BATCH,
                                   .heads = a[0],
                                   .lq = a[1],
                                   .lk = a[2],
                                   .d = a[3],
                                   .ldq = ld,
                                   .ldk = ld,
                                   .ldv = ld,
                                   .ldy = ld,
                                   .scale = 1 / sqrt((double)a[3]),
                                   .dtype = r->dtype};
        return k->attention(r->device, &t, err);
    }
    case SHAPE_GROUP: {
        struct group_norm_args g = {.y = r->y,
                                    .x = r->x,
                                    .gamma = r->bias,
                                    .beta = r->bias,
                                    .n = BATCH,
                                    .rows = a[0],
                                    .c = a[1],
                                    .groups = 32,
                                    .eps = 1e-5,
                                    .act = ACT_SILU,
                                    .dtype = r->dtype,
                                    .weight_dtype = r->dtype};
        return k->group_norm(r->device, &g, err);
    }
    case SHAPE_LAYER: {
        struct layer_norm_args l = {.y = r->y,
                                    .x = r->x,
                                    .gamma = r->bias,
                                    .beta = r->bias,
                                    .rows = a[0],
                                    .d = a[1],
                                    .eps = 1e-5,
                                    .dtype = r->dtype,
                                    .weight_dtype = r->dtype};
        return k->layer_norm(r->device, &l, err);
    }
    default: {
        /* two halves into one row */
        int64_t half = a[1] / 2;
        struct copy_args c = {.y = r->y,
                              .x = r->x,
                              .rows = a[0],
                              .cols = half,
                              .ldy = a[1],
                              .ldx = half,
                              .y_dtype = r->dtype,
                              .x_dtype = r->dtype};
        int rc = k->copy(r->device, &c, err);
        c.y = (char *)r->y + (size_t)half * dtype_bytes(r->dtype);
        return rc ? rc : k->copy(r->device, &c, err);
    }
    }
}

void shape_run_release(struct shape_run *r)
{
    const struct kernels *k = r->device->kernels;
    k->unpack(r->device, &r->w);
    k->free(r->device, r->x);
    k->free(r->device, r->y);
    k->free(r->device, r->z);
    k->free(r->device, r->bias);
}
