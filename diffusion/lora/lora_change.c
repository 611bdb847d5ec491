/* Differences that depend on the weight they change: GLoRA, (IA)^3, orthogonal turns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "diffusion/lora/lora_delta.h"

static int wrong(const struct lora_module *m, struct error *err)
{
    return error_set(err, ERR_FORMAT, "the shapes of %s do not fit its place", m->base);
}

static int64_t count_of(const struct safetensors_entry *e)
{
    return (int64_t)(e->bytes / dtype_bytes(e->dtype));
}

static float *floats(const struct safetensors_entry *e)
{
    int64_t n = count_of(e);
    float *x = alloc_try((size_t)n + 1, sizeof *x);
    if (x) dtype_convert(x, DTYPE_F32, e->data, e->dtype, n);
    return x;
}

bool lora_depends(const struct lora_module *m)
{
    return m->tensor[LORA_A1] || m->tensor[LORA_A2] || m->tensor[LORA_SCALE] ||
           m->tensor[LORA_IA3] || m->tensor[LORA_BLOCKS];
}

/* ---- GLoRA: W a1 a2 + b1 b2 ---- */

/* delta += W a1 a2, a1 [in,r], a2 [r,in], at each place of the kernel */
static int add_inner(float *delta, const float *base, const struct lora_module *m,
                     struct lora_shape s, int64_t rank, double scale, struct error *err)
{
    float *a1 = floats(m->tensor[LORA_A1]), *a2 = floats(m->tensor[LORA_A2]);
    double *row = alloc_try((size_t)rank + 1, sizeof *row);
    int rc = a1 && a2 && row ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for %s", m->base);
    for (int64_t o = 0; !rc && o < s.out; o++)
        for (int64_t k = 0; k < s.area; k++) {
            const float *w = base + o * s.in * s.area + k;
            memset(row, 0, (size_t)rank * sizeof *row);
            for (int64_t i = 0; i < s.in; i++)
                for (int64_t r = 0; r < rank; r++)
                    row[r] += (double)w[i * s.area] * (double)a1[i * rank + r];
            for (int64_t i = 0; i < s.in; i++) {
                double sum = 0;
                for (int64_t r = 0; r < rank; r++) sum += row[r] * (double)a2[r * s.in + i];
                delta[(o * s.in + i) * s.area + k] += (float)(scale * sum);
            }
        }
    free(a1);
    free(a2);
    free(row);
    return rc;
}

static int general(float **delta, const float *base, const struct lora_module *m,
                   struct lora_shape s, struct error *err)
{
    const struct safetensors_entry *a1 = m->tensor[LORA_A1], *a2 = m->tensor[LORA_A2];
    if (!a1 || !a2 || a1->rank < 2 || a2->rank < 2) return wrong(m, err);
    int64_t rank = a2->dim[0];
    if (rank < 1 || a1->dim[0] != s.in || count_of(a1) != s.in * rank ||
        count_of(a2) != s.in * rank)
        return wrong(m, err);
    /* the second half is a plain pair, with its own core perhaps */
    struct lora_module pair = *m;
    memset(pair.tensor, 0, sizeof pair.tensor);
    pair.tensor[LORA_UP] = m->tensor[LORA_B1];
    pair.tensor[LORA_DOWN] = m->tensor[LORA_B2];
    pair.tensor[LORA_MID] = m->tensor[LORA_BM];
    if (!pair.tensor[LORA_UP] || !pair.tensor[LORA_DOWN]) return wrong(m, err);
    int rc = lora_delta(delta, &pair, s, err);
    if (rc) return rc;
    rc = add_inner(*delta, base, m, s, rank, lora_scale(m, rank), err);
    if (rc) free(*delta);
    return rc;
}

/* ---- (IA)^3: W times a factor of each row or column ---- */

static int scaled(float **delta, const float *base, const struct lora_module *m,
                  struct lora_shape s, struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_SCALE], *on = m->tensor[LORA_ON_INPUT];
    bool peft = !e, by_input;
    if (peft) {
        e = m->tensor[LORA_IA3];
        by_input = e->rank > 1 && e->dim[0] == 1 && e->dim[1] != 1;
    } else {
        by_input = on && on->bytes && dtype_get(on->data, on->dtype, 0) != 0;
    }
    if (count_of(e) != (by_input ? s.in : s.out)) return wrong(m, err);
    float *factor = floats(e), *made = alloc_try((size_t)(s.out * s.in * s.area) + 1, sizeof *made);
    int rc = factor && made ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for %s", m->base);
    for (int64_t i = 0; !rc && i < s.out * s.in * s.area; i++) {
        int64_t at = by_input ? i / s.area % s.in : i / s.area / s.in;
        made[i] = base[i] * (factor[at] - (peft ? 1 : 0)); /* LyCORIS stores what is added to 1 */
    }
    free(factor);
    if (rc)
        free(made);
    else
        *delta = made;
    return rc;
}

/* ---- orthogonal turns ---- */

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
    if (e->rank != 3 && e->rank != 4) return wrong(m, err);
    *t = (struct turn){.stages = e->rank == 4 ? e->dim[0] : 1,
                       .blocks = e->dim[e->rank - 3],
                       .n = e->dim[e->rank - 1],
                       .butterfly = e->rank == 4};
    bool even = !t->butterfly ||
                (t->n % 2 == 0 && t->stages < 32 && s.out % (t->n << (t->stages - 1)) == 0);
    if (t->n < 1 || t->blocks * t->n != s.out || e->dim[e->rank - 2] != t->n || !even)
        return wrong(m, err);
    int64_t count = count_of(e), each = t->n * t->n;
    float *b = floats(e);
    double *work = alloc_try((size_t)(2 * each) + 1, sizeof *work), squares = 0, shrink = 1;
    t->r = alloc_try((size_t)count + 1, sizeof *t->r);
    int rc = b && work && t->r ? 0 : error_set(err, ERR_NO_MEMORY, "no memory for %s", m->base);
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

static int turned(float **delta, const float *base, const struct lora_module *m,
                  struct lora_shape s, double strength, struct error *err)
{
    struct turn t = {0};
    const struct safetensors_entry *scale = m->tensor[LORA_RESCALE];
    if (scale && count_of(scale) != s.out) return wrong(m, err);
    int rc = make_turn(&t, m, s, err);
    if (rc) return rc;
    int64_t width = s.in * s.area, n = s.out * width;
    double *x = alloc_try((size_t)n + 1, sizeof *x), *y = alloc_try((size_t)n + 1, sizeof *y);
    float *made = alloc_try((size_t)n + 1, sizeof *made);
    if (!x || !y || !made) rc = error_set(err, ERR_NO_MEMORY, "no memory for %s", m->base);
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

int lora_change(float **delta, const float *base, const struct lora_module *m,
                struct lora_shape shape, double *strength, struct error *err)
{
    if (m->tensor[LORA_BLOCKS]) {
        int rc = turned(delta, base, m, shape, *strength, err);
        /* a butterfly's strength is in its stages */
        if (!rc && m->tensor[LORA_BLOCKS]->rank == 4) *strength = 1;
        return rc;
    }
    if (m->tensor[LORA_SCALE] || m->tensor[LORA_IA3]) return scaled(delta, base, m, shape, err);
    return general(delta, base, m, shape, err);
}

int lora_scale_bias(float *bias, int64_t n, const struct lora_module *m, double strength,
                    struct error *err)
{
    const struct safetensors_entry *e = m->tensor[LORA_IA3];
    if (count_of(e) != n) return wrong(m, err);
    for (int64_t i = 0; i < n; i++)
        bias[i] += (float)(strength * (dtype_get(e->data, e->dtype, i) - 1) * (double)bias[i]);
    return 0;
}
