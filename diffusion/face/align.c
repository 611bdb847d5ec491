#include "diffusion/face/align.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* Where the points are in a face of 512 pixels. */
static const double ffhq[5][2] = {{192.98138, 239.94708},
                                  {318.90277, 240.1936},
                                  {256.63416, 314.01935},
                                  {201.26117, 371.41043},
                                  {313.08905, 371.15118}};

struct similarity similarity_inverse(struct similarity s)
{
    double d = s.a * s.a + s.b * s.b;
    struct similarity r = {.a = s.a / d, .b = -s.b / d};
    r.dx = -(r.a * s.dx - r.b * s.dy);
    r.dy = -(r.b * s.dx + r.a * s.dy);
    return r;
}

/* ---- the similarity ---- */

/* The best one for the points that count; false when they are one point. */
static bool fit(struct similarity *s, float point[5][2], double want[5][2], const bool counts[5])
{
    double n = 0, px = 0, py = 0, wx = 0, wy = 0, spread = 0, dot = 0, cross = 0;
    for (int i = 0; i < 5; i++) {
        if (!counts[i]) continue;
        n++;
        px += point[i][0];
        py += point[i][1];
        wx += want[i][0];
        wy += want[i][1];
    }
    px /= n, py /= n, wx /= n, wy /= n;
    for (int i = 0; i < 5; i++) {
        if (!counts[i]) continue;
        double x = point[i][0] - px, y = point[i][1] - py, u = want[i][0] - wx, v = want[i][1] - wy;
        spread += x * x + y * y;
        dot += x * u + y * v;
        cross += x * v - y * u;
    }
    if (!(spread > 1e-9)) return false;
    s->a = dot / spread;
    s->b = cross / spread;
    s->dx = wx - (s->a * px - s->b * py);
    s->dy = wy - (s->b * px + s->a * py);
    return isfinite(s->a + s->b + s->dx + s->dy) && s->a * s->a + s->b * s->b > 1e-12;
}

static double error_of(struct similarity s, const float from[2], const double to[2])
{
    double x = s.a * from[0] - s.b * from[1] + s.dx - to[0];
    double y = s.b * from[0] + s.a * from[1] + s.dy - to[1];
    return x * x + y * y;
}

static int smaller(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The pair whose similarity has the least median error, then the best for all that agree with it. */
bool align_find(struct similarity *s, float point[5][2], int size)
{
    double want[5][2], least = INFINITY;
    struct similarity best = {0};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 2; k++) want[i][k] = ffhq[i][k] * size / 512;
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5; j++) {
            struct similarity now;
            bool pair[5] = {0};
            double errors[5];
            pair[i] = pair[j] = true;
            if (!fit(&now, point, want, pair)) continue;
            for (int k = 0; k < 5; k++) errors[k] = error_of(now, point[k], want[k]);
            qsort(errors, 5, sizeof errors[0], smaller);
            if (errors[2] >= least) continue;
            least = errors[2];
            best = now;
        }
    if (!isfinite(least)) return false;
    double sigma = 2.5 * 1.4826 * (1 + 5.0 / (5 - 2)) * sqrt(least);
    sigma = fmax(sigma, 0.001);
    bool agrees[5];
    int count = 0;
    for (int k = 0; k < 5; k++)
        count += agrees[k] = error_of(best, point[k], want[k]) <= sigma * sigma;
    if (count < 2 || !fit(s, point, want, agrees)) *s = best;
    return true;
}

/* ---- pixels between pixels ---- */

/* Four weights around (x, y); false when all lie outside. */
struct around {
    int x, y;
    float right, below;
};

static struct around around(double x, double y)
{
    double fx = floor(x), fy = floor(y);
    return (struct around){(int)fx, (int)fy, (float)(x - fx), (float)(y - fy)};
}

/* Outside the picture stands `other`. */
static float sample(const struct pixels *p, struct around a, int channel, float other)
{
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        int x = a.x + k % 2, y = a.y + k / 2;
        float share = (k % 2 ? a.right : 1 - a.right) * (k / 2 ? a.below : 1 - a.below);
        bool in = x >= 0 && y >= 0 && x < p->width && y < p->height;
        size_t at = ((size_t)y * (size_t)p->width + (size_t)x) * (size_t)p->channels;
        sum += share * (in ? (float)p->data[at + (size_t)channel] : other);
    }
    return sum;
}

static uint8_t rounded(float v)
{
    return (uint8_t)lrintf(fminf(fmaxf(v, 0), 255));
}

int align_cut(struct pixels *face, const struct pixels *picture, struct similarity s, int size,
              struct error *err)
{
    static const float grey[] = {132, 133, 135};
    struct similarity back = similarity_inverse(s);
    int rc = pixels_new(face, size, size, 3, err);
    for (int i = 0; !rc && i < size * size; i++) {
        double u = i % size, v = i / (double)size;
        v = floor(v);
        double x = back.a * u - back.b * v + back.dx, y = back.b * u + back.a * v + back.dy;
        x = fmin(fmax(x, -4), picture->width + 4);
        y = fmin(fmax(y, -4), picture->height + 4);
        struct around a = around(x, y);
        for (int c = 0; c < 3; c++)
            face->data[i * 3 + c] =
                rounded(sample(picture, a, picture->channels < 3 ? 0 : c, grey[c]));
    }
    return rc;
}

/* ---- the soft edge ---- */

/* A part of the picture, with one value a pixel. */
struct patch {
    int left, top, width, height;
    float *value, *scratch;
};

/* The smallest of `n` neighbours, first of them `before` to the left, along one line. */
static void least_line(float *to, const float *from, int count, int step, int n, int before)
{
    /* van Herk would be faster; windows are a tenth of a face */
    for (int i = 0; i < count; i++) {
        float least = INFINITY;
        int first = i - before < 0 ? 0 : i - before, end = i - before + n;
        for (int k = first; k < end && k < count; k++) least = fminf(least, from[k * step]);
        to[i * step] = least;
    }
}

static void erode(struct patch *p, int n)
{
    if (n < 2) return;
    for (int y = 0; y < p->height; y++)
        least_line(p->scratch + y * p->width, p->value + y * p->width, p->width, 1, n, n / 2);
    for (int x = 0; x < p->width; x++)
        least_line(p->value + x, p->scratch + x, p->height, p->width, n, n / 2);
}

static int reflected(int i, int n)
{
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
    return n == 1 ? 0 : i;
}

static void blur_line(float *to, const float *from, int count, int step, const float *kernel,
                      int radius)
{
    for (int i = 0; i < count; i++) {
        float sum = 0;
        for (int k = -radius; k <= radius; k++)
            sum += kernel[k + radius] * from[(count > 1 ? reflected(i + k, count) : 0) * step];
        to[i * step] = sum;
    }
}

/* Gaussian of 2 radius + 1 taps, mirrored at the edges without repeating them. */
static int blur(float *value, float *scratch, int width, int height, int radius, double sigma,
                struct error *err)
{
    if (radius < 1) return 0;
    float *kernel = alloc_try((size_t)(2 * radius + 1), sizeof *kernel);
    if (!kernel) return error_set(err, ERR_NO_MEMORY, "no memory for a soft edge");
    double sum = 0;
    for (int k = -radius; k <= radius; k++) sum += exp(-k * k / (2 * sigma * sigma));
    for (int k = -radius; k <= radius; k++)
        kernel[k + radius] = (float)(exp(-k * k / (2 * sigma * sigma)) / sum);
    for (int y = 0; y < height; y++)
        blur_line(scratch + y * width, value + y * width, width, 1, kernel, radius);
    for (int x = 0; x < width; x++)
        blur_line(value + x, scratch + x, height, width, kernel, radius);
    free(kernel);
    return 0;
}

int align_soften(struct pixels *mask, struct error *err)
{
    int w = mask->width, h = mask->height, n = w * h;
    float *value = alloc_try((size_t)n * 2, sizeof *value);
    if (!value) return error_set(err, ERR_NO_MEMORY, "no memory for a soft edge");
    for (int i = 0; i < n; i++) value[i] = mask->data[i];
    int rc = blur(value, value + n, w, h, 50, 11, err);
    if (!rc) rc = blur(value, value + n, w, h, 50, 11, err);
    for (int i = 0; i < n && !rc; i++) {
        int x = i % w, y = i / w;
        bool edge = x < 10 || y < 10 || x >= w - 10 || y >= h - 10;
        mask->data[i] = edge ? 0 : rounded(value[i]);
    }
    free(value);
    return rc;
}

/* The rectangle of the picture that the square of `size` falls on. */
static bool bounds(struct patch *p, const struct pixels *picture, struct similarity back, int size)
{
    double left = INFINITY, top = INFINITY, right = -INFINITY, bottom = -INFINITY;
    for (int i = 0; i < 4; i++) {
        double u = i % 2 ? size : -1, v = i / 2 ? size : -1;
        double x = back.a * u - back.b * v + back.dx, y = back.b * u + back.a * v + back.dy;
        left = fmin(left, x), right = fmax(right, x);
        top = fmin(top, y), bottom = fmax(bottom, y);
    }
    left = fmax(floor(left), 0), top = fmax(floor(top), 0);
    right = fmin(ceil(right), picture->width - 1), bottom = fmin(ceil(bottom), picture->height - 1);
    if (!(right >= left && bottom >= top)) return false;
    p->left = (int)left, p->top = (int)top;
    p->width = (int)(right - left) + 1, p->height = (int)(bottom - top) + 1;
    return true;
}

static struct around place(const struct patch *p, struct similarity s, int i, int size)
{
    double x = p->left + i % p->width, y = p->top + i / p->width;
    double u = s.a * x - s.b * y + s.dx, v = s.b * x + s.a * y + s.dy;
    return around(fmin(fmax(u, -4), size + 4), fmin(fmax(v, -4), size + 4));
}

/* How much of a pixel the square covers. */
static float covered(struct around a, int size)
{
    float x = a.x < -1 || a.x >= size ? 0 : a.x < 0 ? a.right : a.x == size - 1 ? 1 - a.right : 1;
    float y = a.y < -1 || a.y >= size ? 0 : a.y < 0 ? a.below : a.y == size - 1 ? 1 - a.below : 1;
    return x * y;
}

/* value: how much of the face shows; whole: what of a pixel is inside the square, shrunk by two. */
static int soft_edge(struct patch *p, float *whole, struct similarity s, int size,
                     struct error *err)
{
    int n = p->width * p->height;
    double area = 0;
    for (int i = 0; i < n; i++) p->value[i] = covered(place(p, s, i, size), size);
    erode(p, 2);
    for (int i = 0; i < n; i++) area += whole[i] = p->value[i];
    int edge = (int)sqrt(area) / 20;
    erode(p, 2 * edge);
    double sigma = 0.3 * ((2 * edge + 1 - 1) * 0.5 - 1) + 0.8;
    return blur(p->value, p->scratch, p->width, p->height, edge, sigma, err);
}

static void lay(struct pixels *picture, const struct patch *p, const float *whole,
                const struct pixels *face, const struct pixels *mask, struct similarity s,
                double share)
{
    int channels = picture->channels;
    for (int i = 0; i < p->width * p->height; i++) {
        struct around a = place(p, s, i, face->width);
        float shown = p->value[i];
        if (mask) shown = fminf(shown, sample(mask, a, 0, 0) / 255);
        if (shown <= 0) continue;
        uint8_t *to = picture->data + ((size_t)(p->top + i / p->width) * (size_t)picture->width +
                                       (size_t)(p->left + i % p->width)) *
                                          (size_t)channels;
        for (int c = 0; c < 3; c++) {
            float laid = shown * whole[i] * sample(face, a, c, 0) + (1 - shown) * to[c];
            to[c] = rounded(to[c] + (float)share * (floorf(laid + 1e-3f) - to[c]));
        }
    }
}

int align_paste(struct pixels *picture, const struct pixels *face, struct similarity s,
                const struct pixels *mask, double share, struct error *err)
{
    struct patch p;
    if (!bounds(&p, picture, similarity_inverse(s), face->width)) return 0;
    size_t n = (size_t)p.width * (size_t)p.height;
    p.value = alloc_try(3 * n, sizeof *p.value);
    if (!p.value) return error_set(err, ERR_NO_MEMORY, "no memory to lay a face");
    p.scratch = p.value + n;
    float *whole = p.scratch + n;
    int rc = soft_edge(&p, whole, s, face->width, err);
    if (!rc) lay(picture, &p, whole, face, mask, s, share);
    free(p.value);
    return rc;
}
