/*
 * Weights turned by orthogonal blocks: of their rows (LyCORIS' OFT and BOFT) or of what they take in
 * (PEFT's). Source: Qiu et al. 2023 (OFT), Liu et al. 2024 (BOFT), in the forms of
 * KohakuBlueleaf/LyCORIS and huggingface/peft.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/lora/lora_delta.h"

/* ---- LyCORIS ---- */

/* r = (I + q) (I - q)^-1 of a block, q = b - b^T shortened to `constraint`: by elimination. */
static bool cayley(double *r, const float *b, int64_t n, double shrink, double *work)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double q = shrink * (double)(b[i * n + j] - b[j * n + i]);
            /* r (I - q) = I + q; transposed: (I + q) r^T = I - q, since q^T = -q */
            work[i * 2 * n + j] = (i == j) + q;
            work[i * 2 * n + n + j] = (i == j) - q;
        }
    for (int64_t k = 0; k < n; k++) {
        int64_t best = k;
        for (int64_t i = k + 1; i < n; i++)
            if (fabs(work[i * 2 * n + k]) > fabs(work[best * 2 * n + k])) best = i;
        if (work[best * 2 * n + k] == 0) return false;
        for (int64_t j = 0; j < 2 * n; j++) {
            double t = work[k * 2 * n + j];
            work[k * 2 * n + j] = work[best * 2 * n + j];
            work[best * 2 * n + j] = t;
        }
        for (int64_t i = 0; i < n; i++) {
            double f = work[i * 2 * n + k] / work[k * 2 * n + k];
            for (int64_t j = k; i != k && j < 2 * n; j++)
                work[i * 2 * n + j] -= f * work[k * 2 * n + j];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            r[j * n + i] = work[i * 2 * n + n + j] / work[i * 2 * n + i];
    return true;
}

struct turn {
    int64_t stages, blocks, n; /* OFT has one stage; BOFT several, each over other groups of rows */
    bool butterfly;
    double *r; /* [stages,blocks,n,n] */
};

static int make_turn(struct turn *t, const struct lora_module *m, struct lora_shape s,
                     struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_BLOCKS];
    if (e->rank != 3 && e->rank != 4) return lora_misfit(m, err);
    *t = (struct turn){.stages = e->rank == 4 ? e->dim[0] : 1,
                       .blocks = e->dim[e->rank - 3],
                       .n = e->dim[e->rank - 1],
                       .butterfly = e->rank == 4};
    bool even = !t->butterfly ||
                (t->n % 2 == 0 && t->stages < 32 && s.out % (t->n << (t->stages - 1)) == 0);
    if (t->n < 1 || t->blocks * t->n != s.out || e->dim[e->rank - 2] != t->n || !even)
        return lora_misfit(m, err);
    int64_t count = lora_tensor_count(e), each = t->n * t->n;
    float *b = lora_tensor_floats(e);
    double *work = alloc_try((size_t)(2 * each) + 1, sizeof *work), squares = 0, shrink = 1;
    t->r = alloc_try((size_t)count + 1, sizeof *t->r);
    int rc = b && work && t->r ? 0 : lora_no_memory(m, err);
    for (int64_t i = 0; !rc && i < count; i++) {
        int64_t row = i % each / t->n, col = i % t->n;
        double q = (double)(b[i] - b[i - row * t->n - col + col * t->n + row]);
        squares += q * q;
    }
    double most = m->alpha * (double)s.out; /* the file's alpha bounds the turn; 0: no bound */
    if (most > 0 && sqrt(squares) + 1e-8 > most) shrink = most / (sqrt(squares) + 1e-8);
    for (int64_t i = 0; !rc && i < count / each; i++)
        if (!cayley(t->r + i * each, b + i * each, t->n, shrink, work))
            rc = error_set(err, ERR_FORMAT, "%s: a block cannot be inverted", m->base);
    free(b);
    free(work);
    if (rc) {
        free(t->r);
        t->r = NULL;
    }
    return rc;
}

/* Row that stands at place `at` of stage i's order: pairs of halves, 2^i half blocks apart. */
static int64_t butterfly_row(const struct turn *t, int64_t stage, int64_t at)
{
    int64_t k = (t->n / 2) << stage, group = at / (2 * k), within = at % (2 * k);
    return group * 2 * k + within % 2 * k + within / 2;
}

/* One stage: y = blocks of R over x's rows of `width`. OFT turns by R^T as LyCORIS writes it. */
static void turn_rows(double *y, const double *x, const struct turn *t, int64_t stage,
                      int64_t width, double strength)
{
    for (int64_t b = 0; b < t->blocks; b++)
        for (int64_t i = 0; i < t->n; i++) {
            int64_t to = b * t->n + i;
            double *row = y + (t->butterfly ? butterfly_row(t, stage, to) : to) * width;
            memset(row, 0, (size_t)width * sizeof *row);
            for (int64_t j = 0; j < t->n; j++) {
                int64_t from = b * t->n + j;
                const double *r = t->r + (stage * t->blocks + b) * t->n * t->n;
                double f = t->butterfly ? r[i * t->n + j] : r[j * t->n + i];
                if (t->butterfly) f = f * strength + (i == j) * (1 - strength);
                const double *other =
                    x + (t->butterfly ? butterfly_row(t, stage, from) : from) * width;
                for (int64_t k = 0; k < width; k++) row[k] += f * other[k];
            }
        }
}

static int turn_outputs(float **delta, const float *base, const struct lora_module *m,
                        struct lora_shape s, double strength, struct error *err)
{
    struct turn t = {0};
    const struct safetensors_entry *scale = m->tensor[LORA_RESCALE];
    if (scale && lora_tensor_count(scale) != s.out) return lora_misfit(m, err);
    int rc = make_turn(&t, m, s, err);
    if (rc) return rc;
    int64_t width = s.in * s.area, n = s.out * width;
    double *x = alloc_try((size_t)n + 1, sizeof *x), *y = alloc_try((size_t)n + 1, sizeof *y);
    float *made = alloc_try((size_t)n + 1, sizeof *made);
    if (!x || !y || !made) rc = lora_no_memory(m, err);
    for (int64_t i = 0; !rc && i < n; i++) x[i] = (double)base[i];
    for (int64_t stage = 0; !rc && stage < t.stages; stage++) {
        turn_rows(y, x, &t, stage, width, strength);
        double *swap = x;
        x = y;
        y = swap;
    }
    for (int64_t i = 0; !rc && i < n; i++) {
        double f = scale ? dtype_get(scale->data, scale->dtype, i / width) : 1;
        made[i] = (float)(x[i] * f - (double)base[i]);
    }
    free(t.r);
    free(x);
    free(y);
    if (rc)
        free(made);
    else
        *delta = made;
    return rc;
}

/* ---- PEFT ---- */

/* What turns the inputs: width = in * area of them, in blocks of n. */
struct inward {
    int64_t stages, blocks, n, width;
    bool shared;                           /* one block for all */
    double *r;                             /* [stages,blocks,n,n] */
    const struct safetensors_entry *scale; /* of the outputs; NULL: none */
};

/* y = a b, [n,n] each */
static void times(double *y, const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n * n; i++) {
        y[i] = 0;
        for (int64_t k = 0; k < n; k++) y[i] += a[i / n * n + k] * b[k * n + i % n];
    }
}

/* I + 2 q + 2 q^2 + ... + q^last for (I + q) (I - q)^-1, q = b - b^T: as PEFT cuts the series off.
 * work: 3 n n */
static void series(double *r, const float *b, int64_t n, double shrink, int terms, double *work)
{
    double *q = work, *power = q + n * n, *next = power + n * n;
    for (int64_t i = 0; i < n * n; i++) {
        q[i] = shrink * (double)(b[i] - b[i % n * n + i / n]);
        r[i] = (i / n == i % n) + (terms > 1 ? 2 * q[i] : 0);
    }
    if (terms < 3) return;
    times(power, q, q, n);
    for (int64_t i = 0; i < n * n; i++) r[i] += 2 * power[i];
    for (int k = 3; k < (terms > 4 ? terms : 4); k++) {
        bool last = k + 1 >= terms;
        times(next, power, q, n);
        memcpy(power, next, (size_t)(n * n) * sizeof *power);
        for (int64_t i = 0; i < n * n; i++) r[i] += (last ? 1 : 2) * power[i];
    }
}

/* The upper triangle of each block, row after row, as a whole matrix with zeros below. */
static float *triangles(const struct safetensors_entry *e, int64_t n)
{
    int64_t rows = e->dim[0];
    float *b = alloc_try((size_t)(rows * n * n) + 1, sizeof *b);
    for (int64_t at = 0, i = 0; b && i < rows * n * n; i++) {
        b[i] = 0;
        if (i % n <= i / n % n) continue;
        b[i] = (float)dtype_get(e->data, e->dtype, at++);
    }
    return b;
}

/* COFT keeps a block within a bound: what its skew matrix is multiplied by. */
static double bounded(const float *b, int64_t n, double bound)
{
    double squares = 0;
    for (int64_t i = 0; i < n * n; i++) squares += 2 * (double)b[i] * (double)b[i];
    return bound > 0 && sqrt(squares) > bound ? bound / sqrt(squares) : 1;
}

static int make_oft(struct inward *t, const struct lora_module *m, struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_OFT_R];
    if (e->rank != 2 || e->dim[0] < 1 || e->dim[1] < 1) return lora_misfit(m, err);
    int64_t rows = e->dim[0], n = (int64_t)((1 + sqrt(1 + 8 * (double)e->dim[1])) / 2);
    t->shared = rows == 1 && n != t->width;
    t->stages = 1;
    t->n = n;
    t->blocks = n ? t->width / n : 0;
    if (n * (n - 1) / 2 != e->dim[1] || t->blocks * n != t->width ||
        (!t->shared && t->blocks != rows))
        return lora_misfit(m, err);
    int64_t each = n * n;
    float *b = triangles(e, n);
    double *work = alloc_try((size_t)(3 * each) + 1, sizeof *work);
    t->r = alloc_try((size_t)(rows * each) + 1, sizeof *t->r);
    int rc = b && work && t->r ? 0 : lora_no_memory(m, err);
    for (int64_t i = 0; !rc && i < rows; i++) {
        double f = bounded(b + i * each, n, m->turn_bound / sqrt((double)rows));
        if (m->series_terms) /* PEFT's exact form turns the other way than its series */
            series(t->r + i * each, b + i * each, n, f, m->series_terms, work);
        else if (!cayley(t->r + i * each, b + i * each, n, -f, work))
            rc = error_set(err, ERR_FORMAT, "%s: a block cannot be inverted", m->base);
    }
    free(b);
    free(work);
    return rc;
}

static int make_boft(struct inward *t, const struct lora_module *m, struct lora_shape s,
                     struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_BOFT_R];
    t->scale = m->tensor[LORA_BOFT_S];
    if (e->rank != 4 || (t->scale && lora_tensor_count(t->scale) != s.out))
        return lora_misfit(m, err);
    t->stages = e->dim[0];
    t->blocks = e->dim[1];
    t->n = e->dim[2];
    bool even = t->stages == 1 || (t->stages < 32 && t->n % 2 == 0 &&
                                   t->blocks % ((int64_t)1 << (t->stages - 1)) == 0);
    if (t->stages < 1 || t->n < 1 || e->dim[3] != t->n || t->blocks * t->n != t->width || !even)
        return lora_misfit(m, err);
    int64_t each = t->n * t->n, count = lora_tensor_count(e) / each;
    float *b = lora_tensor_floats(e);
    double *work = alloc_try((size_t)(2 * each) + 1, sizeof *work);
    t->r = alloc_try((size_t)(count * each) + 1, sizeof *t->r);
    int rc = b && work && t->r ? 0 : lora_no_memory(m, err);
    for (int64_t i = 0; !rc && i < count; i++)
        if (!cayley(t->r + i * each, b + i * each, t->n, -0.5, work))
            rc = error_set(err, ERR_FORMAT, "%s: a block cannot be inverted", m->base);
    free(b);
    free(work);
    return rc;
}

/* Which input stands at place `at` of a stage: 2^stage blocks' halves, the even ones first. */
static int64_t input_at(const struct inward *t, int64_t stage, int64_t at)
{
    if (t->stages == 1) return at;
    int64_t half = t->n / 2, halves = (int64_t)2 << stage, group = half * halves;
    int64_t chunk = at % group / half, evens = (halves + 1) / 2;
    int64_t from = chunk < evens ? 2 * chunk : 2 * (chunk - evens) + 1;
    return at - at % group + from * half + at % half;
}

/* One stage over the inputs x of one output. work: width */
static void turn_inputs(double *x, double *work, const struct inward *t, int64_t stage)
{
    for (int64_t i = 0; i < t->width; i++) work[input_at(t, stage, i)] = x[i];
    for (int64_t i = 0; i < t->width; i++) {
        int64_t at = input_at(t, stage, i), block = at / t->n;
        const double *r =
            t->r + ((t->shared ? 0 : stage * t->blocks + block) * t->n + at % t->n) * t->n;
        x[i] = 0;
        for (int64_t k = 0; k < t->n; k++) x[i] += r[k] * work[block * t->n + k];
    }
}

static int turn_inward(float **delta, const float *base, const struct lora_module *m,
                       struct lora_shape s, struct error *err)
{
    struct inward t = {.width = s.in * s.area};
    int rc = m->tensor[LORA_OFT_R] ? make_oft(&t, m, err) : make_boft(&t, m, s, err);
    double *x = rc ? NULL : alloc_try((size_t)(2 * t.width) + 1, sizeof *x);
    float *made = rc ? NULL : alloc_try((size_t)(s.out * t.width) + 1, sizeof *made);
    if (!rc && (!x || !made)) rc = lora_no_memory(m, err);
    for (int64_t o = 0; !rc && o < s.out; o++) {
        const float *row = base + o * t.width;
        double f = t.scale ? dtype_get(t.scale->data, t.scale->dtype, o) : 1;
        for (int64_t i = 0; i < t.width; i++) x[i] = (double)row[i];
        for (int64_t stage = 0; stage < t.stages; stage++) turn_inputs(x, x + t.width, &t, stage);
        for (int64_t i = 0; i < t.width; i++)
            made[o * t.width + i] = (float)(x[i] * f - (double)row[i]);
    }
    free(t.r);
    free(x);
    if (rc)
        free(made);
    else
        *delta = made;
    return rc;
}

/* ---- either ---- */

bool lora_turns(const struct lora_module *m)
{
    return m->tensor[LORA_BLOCKS] || m->tensor[LORA_OFT_R] || m->tensor[LORA_BOFT_R];
}

int lora_turn(float **delta, const float *base, const struct lora_module *m,
              struct lora_shape shape, double *strength, struct error *err)
{
    if (!m->tensor[LORA_BLOCKS]) return turn_inward(delta, base, m, shape, err);
    int rc = turn_outputs(delta, base, m, shape, *strength, err);
    /* a butterfly's strength is in its stages */
    if (!rc && m->tensor[LORA_BLOCKS]->rank == 4) *strength = 1;
    return rc;
}
