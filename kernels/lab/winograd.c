/*
 * winograd.c - F(2x2,3x3) (Lavin & Gray 2016) beside the implicit product, on the shapes of a UNet.
 *
 * 2.25 times fewer products, but 16 transformed planes written and read, and in bfloat16 a second
 * rounding of inputs and weights. Built from the table's own linear, so both run the same microkernel.
 *   usage: lab_winograd [f32|bf16]
 * The weight is marked as changing, for which cpu_conv2d keeps to the implicit product.
 * Numbers and verdict: docs/performance.md.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_device.h"

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct shape {
    int64_t n, h, c, out;
};

/* V = B^T d B of each 4x4 neighbourhood, 16 planes of [tiles][c] */
static void transform_input(const float *restrict x, float *restrict v, const struct shape *s)
{
    int64_t half = s->h / 2, tiles = s->n * half * half, c = s->c;
    float *zero = alloc_zero((size_t)c, 4);
    for (int64_t t = 0; t < tiles; t++) {
        int64_t n = t / (half * half), ty = t / half % half, tx = t % half;
        const float *d[4][4];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                int64_t y = 2 * ty + i - 1, xx = 2 * tx + j - 1;
                bool in = y >= 0 && y < s->h && xx >= 0 && xx < s->h;
                d[i][j] = in ? x + ((n * s->h + y) * s->h + xx) * c : zero;
            }
        for (int64_t k0 = 0; k0 < c; k0 += 16) {
            float r[4][4][16];
            for (int j = 0; j < 4; j++)
                for (int k = 0; k < 16; k++) {
                    float a = d[0][j][k0 + k], b = d[1][j][k0 + k], e = d[2][j][k0 + k],
                          f = d[3][j][k0 + k];
                    r[0][j][k] = a - e, r[1][j][k] = b + e, r[2][j][k] = e - b, r[3][j][k] = b - f;
                }
            for (int i = 0; i < 4; i++)
                for (int k = 0; k < 16; k++) {
                    float a = r[i][0][k], b = r[i][1][k], e = r[i][2][k], f = r[i][3][k];
                    v[((i * 4 + 0) * tiles + t) * c + k0 + k] = a - e;
                    v[((i * 4 + 1) * tiles + t) * c + k0 + k] = b + e;
                    v[((i * 4 + 2) * tiles + t) * c + k0 + k] = e - b;
                    v[((i * 4 + 3) * tiles + t) * c + k0 + k] = b - f;
                }
        }
    }
    free(zero);
}

/* U = G g G^T, 16 matrices [out][c] */
static void transform_weight(const float *w, float *u, const struct shape *s)
{
    static const float g[4][3] = {{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}};
    for (int64_t oc = 0; oc < s->out * s->c; oc++)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                float sum = 0;
                for (int a = 0; a < 3; a++)
                    for (int b = 0; b < 3; b++) sum += g[i][a] * g[j][b] * w[oc * 9 + a * 3 + b];
                u[(i * 4 + j) * s->out * s->c + oc] = sum;
            }
}

/* Y = A^T m A */
static void transform_output(const float *restrict m, float *restrict y, const struct shape *s)
{
    int64_t half = s->h / 2, tiles = s->n * half * half, out = s->out;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t n = t / (half * half), ty = t / half % half, tx = t % half;
        float *to = y + ((n * s->h + 2 * ty) * s->h + 2 * tx) * out;
        for (int64_t k0 = 0; k0 < out; k0 += 16) {
            float r[2][4][16];
            for (int j = 0; j < 4; j++)
                for (int k = 0; k < 16; k++) {
                    float a = m[((0 + j) * tiles + t) * out + k0 + k];
                    float b = m[((4 + j) * tiles + t) * out + k0 + k];
                    float c = m[((8 + j) * tiles + t) * out + k0 + k];
                    float d = m[((12 + j) * tiles + t) * out + k0 + k];
                    r[0][j][k] = a + b + c, r[1][j][k] = b - c - d;
                }
            for (int i = 0; i < 2; i++)
                for (int k = 0; k < 16; k++) {
                    to[i * s->h * out + k0 + k] = r[i][0][k] + r[i][1][k] + r[i][2][k];
                    to[i * s->h * out + out + k0 + k] = r[i][1][k] - r[i][2][k] - r[i][3][k];
                }
        }
    }
}

static void convert(void *to, enum dtype dtype, const float *from, int64_t count)
{
    dtype_convert(to, dtype, from, DTYPE_F32, count);
}

/* error of y against a double sum, at some pixels, relative to the size of y */
static double error_of(const float *y, const float *x, const float *w, const struct shape *s)
{
    double off = 0, size = 0;
    for (int64_t p = 0; p < 40; p++) {
        int64_t py = p * 7 % s->h, px = p * 13 % s->h;
        for (int64_t o = 0; o < s->out; o += 5) {
            double sum = 0;
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < 3; j++) {
                    int64_t yy = py + i - 1, xx = px + j - 1;
                    if (yy < 0 || xx < 0 || yy >= s->h || xx >= s->h) continue;
                    for (int64_t k = 0; k < s->c; k++)
                        sum += (double)x[(yy * s->h + xx) * s->c + k] *
                               w[((o * s->c + k) * 3 + i) * 3 + j];
                }
            double d = y[(py * s->h + px) * s->out + o] - sum;
            off += d * d;
            size += sum * sum;
        }
    }
    return sqrt(off / size);
}

int main(int argc, char **argv)
{
    enum dtype dtype = argc > 1 && !strcmp(argv[1], "bf16") ? DTYPE_BF16 : DTYPE_F32;
    static const struct shape shapes[] = {
        {2, 64, 320, 320}, {2, 32, 640, 640}, {2, 16, 1280, 1280}, {2, 64, 640, 320}};
    struct device *d;
    struct error err = {0};
    if (device_open(&d, "cpu:1", &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        const struct shape *s = &shapes[i];
        int64_t pixels = s->n * s->h * s->h, tiles = pixels / 4, cells = s->out * s->c;
        size_t element = dtype_bytes(dtype);
        float *x = alloc_zero((size_t)(pixels * s->c), 4), *w = alloc_zero((size_t)(cells * 9), 4);
        float *y = alloc_zero((size_t)(pixels * s->out), 4);
        float *v = alloc_zero((size_t)(16 * tiles * s->c), 4);
        float *m = alloc_zero((size_t)(16 * tiles * s->out), 4),
              *u = alloc_zero((size_t)(cells * 16), 4);
        void *xs = alloc_zero((size_t)(pixels * s->c), element);
        void *ys = alloc_zero((size_t)(pixels * s->out), element);
        void *vs = alloc_zero((size_t)(16 * tiles * s->c), element);
        void *ms = alloc_zero((size_t)(16 * tiles * s->out), element);
        uint32_t seed = 1;
        for (int64_t k = 0; k < pixels * s->c; k++) {
            seed = seed * 1664525 + 1013904223;
            x[k] = bf16_to_f32(f32_to_bf16((float)(seed >> 8) * 0x1p-24f - 0.4f));
        }
        for (int64_t k = 0; k < cells * 9; k++) {
            seed = seed * 1664525 + 1013904223;
            w[k] = bf16_to_f32(f32_to_bf16(((float)(seed >> 8) * 0x1p-24f - 0.5f) * 0.05f));
        }
        convert(xs, dtype, x, pixels * s->c);
        struct kernel_weight weight = {
            .changes = true, .data = w, .dtype = DTYPE_F32, .rank = 4, .dim = {s->out, s->c, 3, 3}};
        struct conv2d_args a = {.y = ys,
                                .x = xs,
                                .w = &weight,
                                .n = s->n,
                                .h = s->h,
                                .w_px = s->h,
                                .c = s->c,
                                .oh = s->h,
                                .ow = s->h,
                                .out = s->out,
                                .kh = 3,
                                .kw = 3,
                                .stride = 1,
                                .pad_top = 1,
                                .pad_left = 1,
                                .dtype = dtype};
        double direct = 1e9, product = 1e9, in = 1e9, out = 1e9;
        for (int r = 0; r < 5; r++) {
            double t = cpu_seconds();
            d->kernels->conv2d(d, &a, &err);
            t = cpu_seconds() - t;
            if (r && t < direct) direct = t;
        }
        dtype_convert(y, DTYPE_F32, ys, dtype, pixels * s->out);
        double direct_error = error_of(y, x, w, s);
        transform_weight(w, u, s);
        struct kernel_weight plane[16];
        for (int p = 0; p < 16; p++)
            plane[p] = (struct kernel_weight){
                .data = u + p * cells, .dtype = DTYPE_F32, .rank = 2, .dim = {s->out, s->c}};
        for (int r = 0; r < 5; r++) {
            double t0 = cpu_seconds();
            transform_input(x, v, s);
            double t1 = cpu_seconds();
            if (!r) convert(vs, dtype, v, 16 * tiles * s->c);
            double t2 = cpu_seconds();
            for (int p = 0; p < 16; p++) {
                struct linear_args l = {.y = (char *)ms + (size_t)(p * tiles * s->out) * element,
                                        .x = (char *)vs + (size_t)(p * tiles * s->c) * element,
                                        .w = &plane[p],
                                        .m = tiles,
                                        .k = s->c,
                                        .out = s->out,
                                        .ldx = s->c,
                                        .ldy = s->out,
                                        .dtype = dtype};
                d->kernels->linear(d, &l, &err);
            }
            double t3 = cpu_seconds();
            if (!r) dtype_convert(m, DTYPE_F32, ms, dtype, 16 * tiles * s->out);
            double t4 = cpu_seconds();
            transform_output(m, y, s);
            double t5 = cpu_seconds();
            if (r && t1 - t0 < in) in = t1 - t0;
            if (r && t3 - t2 < product) product = t3 - t2;
            if (r && t5 - t4 < out) out = t5 - t4;
        }
        printf("%s %lldx%lld %lld->%lld: direct %.1f ms, error %.2e; winograd %.1f ms = in %.1f + "
               "products %.1f + out %.1f, error %.2e\n",
               dtype_name(dtype), (long long)s->h, (long long)s->h, (long long)s->c,
               (long long)s->out, direct * 1e3, direct_error, (in + product + out) * 1e3, in * 1e3,
               product * 1e3, out * 1e3, error_of(y, x, w, s));
        d->kernels->unpack(d, &weight);
        for (int p = 0; p < 16; p++) d->kernels->unpack(d, &plane[p]);
        void *all[] = {x, w, y, v, m, u, xs, ys, vs, ms};
        for (size_t k = 0; k < COUNT_OF(all); k++) free(all[k]);
    }
    device_close(d);
    return 0;
}
