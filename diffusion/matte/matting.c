#include "diffusion/matte/matting.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define SURELY_FOREGROUND 240
#define SURELY_BACKGROUND 10
#define ERODE_PX 10
#define EPSILON 1e-7
#define RESIDUE 1e-7
#define WINDOW 9   /* pixels of one */
#define REACH 2    /* of two pixels that share a window */
#define ENTRIES 13 /* of a row: itself and what comes after it within reach */
#define UNSURE_MAX 2000000
#define STEPS_MAX 10000
#define WORK_MAX 1e9 /* unsure pixels times steps */

/* ---- trimap ---- */

/* Sliding "and" of ERODE_PX values along one axis; `outside`: what lies beyond the border. */
static void erode_line(uint8_t *to, const uint8_t *from, int n, int64_t step, bool outside)
{
    for (int i = 0; i < n; i++) {
        bool all = true;
        for (int k = -ERODE_PX / 2; all && k < ERODE_PX / 2; k++)
            all = i + k < 0 || i + k >= n ? outside : from[(i + k) * step] != 0;
        to[i] = all;
    }
}

static void erode(uint8_t *x, uint8_t *line, int w, int h, bool outside)
{
    for (int y = 0; y < h; y++) {
        erode_line(line, x + (int64_t)y * w, w, 1, outside);
        memcpy(x + (int64_t)y * w, line, (size_t)w);
    }
    for (int i = 0; i < w; i++) {
        erode_line(line, x + i, h, w, outside);
        for (int y = 0; y < h; y++) x[(int64_t)y * w + i] = line[y];
    }
}

int matting_trimap(uint8_t *trimap, const struct pixels *mask, struct error *err)
{
    int w = mask->width, h = mask->height;
    size_t n = (size_t)w * (size_t)h;
    uint8_t *fore = alloc_try(n, 1), *back = alloc_try(n, 1);
    uint8_t *line = alloc_try((size_t)(w > h ? w : h), 1);
    int rc = fore && back && line ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for a trimap");
    for (size_t i = 0; !rc && i < n; i++) {
        fore[i] = mask->data[i] > SURELY_FOREGROUND;
        back[i] = mask->data[i] < SURELY_BACKGROUND;
    }
    if (!rc) erode(fore, line, w, h, false);
    if (!rc) erode(back, line, w, h, true);
    for (size_t i = 0; !rc && i < n; i++)
        trimap[i] = back[i] ? TRIMAP_BACKGROUND : fore[i] ? TRIMAP_FOREGROUND : TRIMAP_UNSURE;
    free(fore);
    free(back);
    free(line);
    return rc;
}

/* ---- the system: the unsure pixels' part of the matting Laplacian ---- */

struct entry {
    int dy, dx;
};
static const struct entry entries[ENTRIES] = {{0, 0}, {0, 1}, {0, 2}, {1, -2}, {1, -1},
                                              {1, 0}, {1, 1}, {1, 2}, {2, -2}, {2, -1},
                                              {2, 0}, {2, 1}, {2, 2}};

struct unsure {
    int64_t count;
    int32_t *row;   /* of each pixel, with a rim of REACH; -1: sure */
    int32_t *pixel; /* of each row, in row[] */
    double *a;      /* [count,ENTRIES], the upper half */
    double *factor; /* [count,ENTRIES]: of the incomplete Cholesky factorisation, transposed */
    double *b;      /* [count] */
    int width;      /* of row[] */
    int step[ENTRIES];
};

static int entry_of(int dy, int dx)
{
    if (dy < 0 || dy > REACH || dx < -REACH || dx > REACH || (dy == 0 && dx < 0)) return -1;
    return dy == 0 ? dx : 3 + (dy - 1) * 5 + dx + REACH;
}

static int open_system(struct unsure *u, const uint8_t *trimap, int w, int h, struct error *err)
{
    size_t rim = (size_t)(w + 2 * REACH) * (size_t)(h + 2 * REACH);
    *u = (struct unsure){.width = w + 2 * REACH, .row = alloc_try(rim, sizeof *u->row)};
    if (!u->row) return error_set(err, ERR_NO_MEMORY, "no memory for soft edges");
    for (int i = 0; i < ENTRIES; i++) u->step[i] = entries[i].dy * u->width + entries[i].dx;
    for (size_t i = 0; i < rim; i++) u->row[i] = -1;
    for (int64_t i = 0; i < (int64_t)w * h; i++)
        if (trimap[i] == TRIMAP_UNSURE)
            u->row[(i / w + REACH) * u->width + i % w + REACH] = (int32_t)u->count++;
    if (u->count > UNSURE_MAX)
        return error_set(err, ERR_INVALID, "%lld pixels are unsure, more than %d",
                         (long long)u->count, UNSURE_MAX);
    size_t n = (size_t)u->count + 1;
    u->pixel = alloc_try(n, sizeof *u->pixel);
    u->a = alloc_try(n * ENTRIES, sizeof *u->a);
    u->factor = alloc_try(n * ENTRIES, sizeof *u->factor);
    u->b = alloc_try(n, sizeof *u->b);
    if (!u->pixel || !u->a || !u->factor || !u->b)
        return error_set(err, ERR_NO_MEMORY, "no memory for soft edges");
    for (size_t i = 0; i < rim; i++)
        if (u->row[i] >= 0) u->pixel[u->row[i]] = (int32_t)i;
    return 0;
}

static void close_system(struct unsure *u)
{
    free(u->row);
    free(u->pixel);
    free(u->a);
    free(u->factor);
    free(u->b);
}

/* Colours of a window less their mean, and those times the inverse covariance. */
static void window_colours(double c[WINDOW][3], double s[WINDOW][3], const struct pixels *rgb,
                           int x, int y)
{
    double m[3] = {0}, v[6] = {EPSILON, 0, 0, EPSILON, 0, EPSILON};
    for (int i = 0; i < WINDOW; i++) {
        const uint8_t *p =
            rgb->data + ((int64_t)(y + i / 3 - 1) * rgb->width + x + i % 3 - 1) * rgb->channels;
        for (int k = 0; k < 3; k++) m[k] += c[i][k] = p[k] / 255.0;
    }
    for (int i = 0; i < WINDOW; i++) {
        for (int k = 0; k < 3; k++) c[i][k] -= m[k] / WINDOW;
        v[0] += c[i][0] * c[i][0];
        v[1] += c[i][0] * c[i][1];
        v[2] += c[i][0] * c[i][2];
        v[3] += c[i][1] * c[i][1];
        v[4] += c[i][1] * c[i][2];
        v[5] += c[i][2] * c[i][2];
    }
    for (int k = 0; k < 6; k++) v[k] /= WINDOW;
    double det = v[0] * v[4] * v[4] + v[1] * v[1] * v[5] + v[2] * v[2] * v[3] - v[0] * v[3] * v[5] -
                 2 * v[1] * v[2] * v[4];
    const double q[6] = {(v[4] * v[4] - v[3] * v[5]) / det, (v[1] * v[5] - v[2] * v[4]) / det,
                         (v[2] * v[3] - v[1] * v[4]) / det, (v[2] * v[2] - v[0] * v[5]) / det,
                         (v[0] * v[4] - v[1] * v[2]) / det, (v[1] * v[1] - v[0] * v[3]) / det};
    for (int i = 0; i < WINDOW; i++) {
        s[i][0] = q[0] * c[i][0] + q[1] * c[i][1] + q[2] * c[i][2];
        s[i][1] = q[1] * c[i][0] + q[3] * c[i][1] + q[4] * c[i][2];
        s[i][2] = q[2] * c[i][0] + q[4] * c[i][1] + q[5] * c[i][2];
    }
}

static void add_window(struct unsure *u, const struct pixels *rgb, const uint8_t *trimap, int x,
                       int y)
{
    double c[WINDOW][3], s[WINDOW][3];
    int32_t row[WINDOW];
    bool any = false;
    for (int i = 0; i < WINDOW; i++) {
        row[i] = u->row[(int64_t)(y + i / 3 - 1 + REACH) * u->width + x + i % 3 - 1 + REACH];
        any = any || row[i] >= 0;
    }
    if (!any) return;
    window_colours(c, s, rgb, x, y);
    for (int i = 0; i < WINDOW; i++)
        for (int j = 0; row[i] >= 0 && j < WINDOW; j++) {
            double along = s[i][0] * c[j][0] + s[i][1] * c[j][1] + s[i][2] * c[j][2];
            double value = (i == j) - (1 + along) / WINDOW;
            if (row[j] < 0) {
                int64_t at = (int64_t)(y + j / 3 - 1) * rgb->width + x + j % 3 - 1;
                if (trimap[at] == TRIMAP_FOREGROUND) u->b[row[i]] -= value;
            } else if (j >= i) {
                u->a[(int64_t)row[i] * ENTRIES + entry_of(j / 3 - i / 3, j % 3 - i % 3)] += value;
            }
        }
}

/* ---- its solution: conjugate gradients, preconditioned ---- */

/* Cholesky's factorisation where A has entries, `shift` added to the diagonal. */
static bool factorise(struct unsure *u, double shift)
{
    int pair[ENTRIES][ENTRIES];
    for (int i = 0; i < ENTRIES; i++)
        for (int j = 0; j < ENTRIES; j++)
            pair[i][j] = entry_of(entries[j].dy - entries[i].dy, entries[j].dx - entries[i].dx);
    memcpy(u->factor, u->a, (size_t)u->count * ENTRIES * sizeof *u->factor);
    for (int64_t r = 0; r < u->count; r++) {
        double *f = u->factor + r * ENTRIES;
        int32_t other[ENTRIES];
        f[0] += shift;
        if (!(f[0] > 0)) return false;
        f[0] = sqrt(f[0]);
        for (int i = 1; i < ENTRIES; i++) {
            other[i] = u->row[u->pixel[r] + u->step[i]];
            if (other[i] >= 0) f[i] /= f[0];
        }
        for (int i = 1; i < ENTRIES; i++)
            for (int j = i; other[i] >= 0 && j < ENTRIES; j++)
                if (other[j] >= 0 && pair[i][j] >= 0)
                    u->factor[(int64_t)other[i] * ENTRIES + pair[i][j]] -= f[i] * f[j];
    }
    return true;
}

/* z = (U^T U)^-1 r */
static void precondition(double *z, const double *r, const struct unsure *u)
{
    memcpy(z, r, (size_t)u->count * sizeof *z);
    for (int64_t k = 0; k < u->count; k++) {
        const double *f = u->factor + k * ENTRIES;
        z[k] /= f[0];
        for (int i = 1; i < ENTRIES; i++) {
            int32_t other = u->row[u->pixel[k] + u->step[i]];
            if (other >= 0) z[other] -= f[i] * z[k];
        }
    }
    for (int64_t k = u->count - 1; k >= 0; k--) {
        const double *f = u->factor + k * ENTRIES;
        for (int i = 1; i < ENTRIES; i++) {
            int32_t other = u->row[u->pixel[k] + u->step[i]];
            if (other >= 0) z[k] -= f[i] * z[other];
        }
        z[k] /= f[0];
    }
}

static void apply(double *y, const double *x, const struct unsure *u)
{
    memset(y, 0, (size_t)u->count * sizeof *y);
    for (int64_t k = 0; k < u->count; k++) {
        const double *a = u->a + k * ENTRIES;
        double sum = a[0] * x[k];
        for (int i = 1; i < ENTRIES; i++) {
            int32_t other = u->row[u->pixel[k] + u->step[i]];
            if (other < 0) continue;
            sum += a[i] * x[other];
            y[other] += a[i] * x[k];
        }
        y[k] += sum;
    }
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static int solve(double *x, const struct unsure *u, bool (*canceled)(void *context), void *context,
                 struct error *err)
{
    int64_t n = u->count;
    double *memory = alloc_try((size_t)n * 4 + 4, sizeof *memory);
    if (!memory) return error_set(err, ERR_NO_MEMORY, "no memory for soft edges");
    double *r = memory, *z = r + n, *p = z + n, *ap = p + n;
    double least = RESIDUE * sqrt(dot(u->b, u->b, n)), rz = 0;
    int rc = 0, step = 0;
    memset(x, 0, (size_t)n * sizeof *x);
    memcpy(r, u->b, (size_t)n * sizeof *r);
    for (; !rc && sqrt(dot(r, r, n)) > least; step++) {
        double before = rz;
        if (step == STEPS_MAX || (double)n * step > WORK_MAX || !isfinite(before))
            rc = error_set(err, ERR_INVALID, "the edges' equations were not solved in %d steps",
                           step);
        if (!rc && canceled && canceled(context))
            rc = error_set(err, ERR_CANCELED, "stopped on request");
        if (rc) break;
        precondition(z, r, u);
        rz = dot(r, z, n);
        for (int64_t i = 0; i < n; i++) p[i] = z[i] + (step ? rz / before * p[i] : 0);
        apply(ap, p, u);
        double f = rz / dot(p, ap, n);
        for (int64_t i = 0; i < n; i++) {
            x[i] += f * p[i];
            r[i] -= f * ap[i];
        }
    }
    free(memory);
    return rc;
}

/* What can be told before anything is computed. */
static int look(const uint8_t *trimap, int64_t n, struct error *err)
{
    int64_t count[3] = {0};
    for (int64_t i = 0; i < n; i++) count[trimap[i]]++;
    if (count[TRIMAP_FOREGROUND] && count[TRIMAP_BACKGROUND]) return 0;
    return error_set(err, ERR_INVALID, "no pixel is surely %s",
                     count[TRIMAP_FOREGROUND] ? "background" : "foreground");
}

int matting_alpha(double *alpha, const struct pixels *rgb, const uint8_t *trimap,
                  bool (*canceled)(void *context), void *context, struct error *err)
{
    static const double shifts[] = {0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1, 10};
    int w = rgb->width, h = rgb->height;
    int64_t n = (int64_t)w * h;
    struct unsure u;
    int rc = look(trimap, n, err);
    if (rc) return rc;
    rc = open_system(&u, trimap, w, h, err);
    double *x = rc ? NULL : alloc_try((size_t)u.count + 1, sizeof *x);
    if (!rc && !x) rc = error_set(err, ERR_NO_MEMORY, "no memory for soft edges");
    for (int y = 1; !rc && y < h - 1; y++)
        for (int i = 1; i < w - 1; i++) add_window(&u, rgb, trimap, i, y);
    size_t shift = 0;
    while (!rc && shift < COUNT_OF(shifts) && !factorise(&u, shifts[shift])) shift++;
    if (!rc && shift == COUNT_OF(shifts))
        rc = error_set(err, ERR_INVALID, "the edges' equations are not positive");
    if (!rc) rc = solve(x, &u, canceled, context, err);
    for (int64_t i = 0, row = 0; !rc && i < n; i++)
        alpha[i] = trimap[i] == TRIMAP_UNSURE ? fmin(fmax(x[row++], 0), 1)
                                              : trimap[i] == TRIMAP_FOREGROUND;
    free(x);
    close_system(&u);
    return rc;
}
