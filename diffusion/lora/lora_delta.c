#include "diffusion/lora/lora_delta.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct lora_shape lora_shape_of(const struct weight *w)
{
    const struct kernel_weight *k = &w->k;
    struct lora_shape s = {k->rank > 0 ? k->dim[0] : 1, k->rank > 1 ? k->dim[1] : 1, 1};
    for (int i = 2; i < k->rank; i++) s.area *= k->dim[i];
    return s;
}

double lora_scale(const struct lora_module *m, int64_t rank)
{
    double alpha = m->alpha != 0 ? m->alpha : (double)rank;
    if (rank < 1) return 1;
    return m->root_rank ? alpha / sqrt((double)rank) : alpha / (double)rank;
}

int lora_misfit(const struct lora_module *m, struct error *err)
{
    return error_set(err, ERR_FORMAT, "the shapes of %s do not fit its place", m->base);
}

int lora_no_memory(const struct lora_module *m, struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for %s", m->base);
}

int64_t lora_tensor_count(const struct safetensors_entry *e)
{
    return (int64_t)(e->bytes / dtype_bytes(e->dtype));
}

float *lora_tensor_floats(const struct safetensors_entry *e)
{
    int64_t n = lora_tensor_count(e);
    float *x = alloc_try((size_t)n + 1, sizeof *x);
    if (x) dtype_convert(x, DTYPE_F32, e->data, e->dtype, n);
    return x;
}

/* A tensor of the file as floats with the shape of a matrix: first dimension, rest. */
struct matrix {
    float *value;
    int64_t rows, cols;
    int64_t area; /* of cols, what belongs to a kernel */
};

static int read_matrix(struct matrix *x, const struct lora_module *m, enum lora_tensor which,
                       struct error *err)
{
    const struct safetensors_entry *e = m->tensor[which];
    *x = (struct matrix){0};
    if (!e || e->rank < 1 || e->dim[0] < 1) return lora_misfit(m, err);
    x->rows = e->dim[0];
    x->cols = (int64_t)(e->bytes / dtype_bytes(e->dtype)) / x->rows;
    x->area = 1;
    for (int i = 2; i < e->rank; i++) x->area *= e->dim[i];
    x->value = alloc_try((size_t)(x->rows * x->cols) + 1, sizeof *x->value);
    if (!x->value) return lora_no_memory(m, err);
    dtype_convert(x->value, DTYPE_F32, e->data, e->dtype, x->rows * x->cols);
    return 0;
}

/* y [a.rows, b.cols] = a b */
static float *product(const struct matrix *a, const struct matrix *b)
{
    float *y = alloc_try((size_t)(a->rows * b->cols) + 1, sizeof *y);
    for (int64_t i = 0; y && i < a->rows; i++)
        for (int64_t k = 0; k < a->cols; k++) {
            float f = a->value[i * a->cols + k];
            for (int64_t j = 0; j < b->cols; j++)
                y[i * b->cols + j] += f * b->value[k * b->cols + j];
        }
    return y;
}

/* Tucker form: y[p,r,kl] = sum over i, j of t[i,j,kl] b[j,r] a[i,p] */
static float *tucker(const struct matrix *t, const struct matrix *a, const struct matrix *b)
{
    int64_t area = t->area, j_count = t->cols / area;
    struct matrix half = {.rows = t->rows, .cols = b->cols * area};
    half.value = alloc_try((size_t)(half.rows * half.cols) + 1, sizeof *half.value);
    if (!half.value) return NULL;
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < j_count; j++)
            for (int64_t r = 0; r < b->cols; r++)
                for (int64_t k = 0; k < area; k++)
                    half.value[i * half.cols + r * area + k] +=
                        t->value[(i * j_count + j) * area + k] * b->value[j * b->cols + r];
    float *y = alloc_try((size_t)(a->cols * half.cols) + 1, sizeof *y);
    for (int64_t i = 0; y && i < a->rows; i++)
        for (int64_t p = 0; p < a->cols; p++)
            for (int64_t n = 0; n < half.cols; n++)
                y[p * half.cols + n] += a->value[i * a->cols + p] * half.value[i * half.cols + n];
    free(half.value);
    return y;
}

/* One factor of LoHa or LoKr out of a, b and perhaps t. Gives its shape too. */
static int factor(struct matrix *y, const struct lora_module *m, enum lora_tensor wa,
                  enum lora_tensor wb, enum lora_tensor wt, int64_t *rank, struct error *err)
{
    struct matrix a = {0}, b = {0}, t = {0};
    bool core = m->tensor[wt] != NULL;
    int rc = read_matrix(&a, m, wa, err);
    if (!rc) rc = read_matrix(&b, m, wb, err);
    if (!rc && core) rc = read_matrix(&t, m, wt, err);
    if (!rc && core && (t.rows != a.rows || t.cols / t.area != b.rows)) rc = lora_misfit(m, err);
    if (!rc && !core && a.cols != b.rows) rc = lora_misfit(m, err);
    if (!rc) {
        *rank = b.rows;
        *y = core ? (struct matrix){tucker(&t, &a, &b), a.cols, b.cols * t.area, t.area}
                  : (struct matrix){product(&a, &b), a.rows, b.cols, b.area};
        if (!y->value) rc = lora_no_memory(m, err);
    }
    free(a.value);
    free(b.value);
    free(t.value);
    return rc;
}

static int hadamard(float **delta, const struct lora_module *m, struct lora_shape shape,
                    struct error *err)
{
    struct matrix one = {0}, two = {0};
    int64_t rank = 1, count = shape.out * shape.in * shape.area;
    int rc = factor(&one, m, LORA_W1_A, LORA_W1_B, LORA_T1, &rank, err);
    if (!rc) rc = factor(&two, m, LORA_W2_A, LORA_W2_B, LORA_T2, &rank, err);
    if (!rc && (one.rows * one.cols != count || two.rows * two.cols != count))
        rc = lora_misfit(m, err);
    float scale = (float)lora_scale(m, rank);
    for (int64_t i = 0; !rc && i < count; i++) one.value[i] *= two.value[i] * scale;
    free(two.value);
    if (rc) {
        free(one.value);
        return rc;
    }
    *delta = one.value;
    return 0;
}

static int kronecker(float **delta, const struct lora_module *m, struct lora_shape shape,
                     struct error *err)
{
    struct matrix a = {0}, b = {0};
    int64_t rank = 0;
    int rc = m->tensor[LORA_W1] ? read_matrix(&a, m, LORA_W1, err)
                                : factor(&a, m, LORA_W1_A, LORA_W1_B, LORA_T1, &rank, err);
    if (!rc)
        rc = m->tensor[LORA_W2] ? read_matrix(&b, m, LORA_W2, err)
                                : factor(&b, m, LORA_W2_A, LORA_W2_B, LORA_T2, &rank, err);
    /* b may carry the kernel: [o, n, k, k], or [o, n k k] when it came out of factors */
    int64_t area = shape.area, b_in = rc ? 0 : b.cols / area;
    if (!rc && (a.rows * b.rows != shape.out || a.cols * b_in != shape.in || b.cols % area))
        rc = lora_misfit(m, err);
    float *y = rc ? NULL : alloc_try((size_t)(shape.out * shape.in * area) + 1, sizeof *y);
    if (!rc && !y) rc = lora_no_memory(m, err);
    /* LyCORIS scales what has a rank; PEFT all, and says the rank */
    if (!rank) rank = m->said_rank;
    float scale = rank ? (float)lora_scale(m, rank) : 1;
    for (int64_t i = 0; !rc && i < a.rows; i++)
        for (int64_t j = 0; j < a.cols; j++)
            for (int64_t k = 0; k < b.rows; k++)
                for (int64_t l = 0; l < b.cols; l++) {
                    int64_t row = i * b.rows + k, col = j * b.cols + l;
                    y[row * shape.in * area + col] =
                        scale * a.value[i * a.cols + j] * b.value[k * b.cols + l];
                }
    free(a.value);
    free(b.value);
    if (!rc) *delta = y;
    return rc;
}

static int low_rank(float **delta, const struct lora_module *m, struct lora_shape shape,
                    struct error *err)
{
    struct matrix up = {0}, down = {0}, mid = {0};
    int rc = read_matrix(&up, m, LORA_UP, err);
    if (!rc) rc = read_matrix(&down, m, LORA_DOWN, err);
    if (!rc && m->tensor[LORA_MID]) {
        rc = read_matrix(&mid, m, LORA_MID, err);
        if (!rc && (up.cols != mid.rows || mid.cols / mid.area != down.rows))
            rc = lora_misfit(m, err);
        if (!rc) {
            /* up [out,r] plays a transposed: y[p,r,kl] = sum up[p,i] mid[i,j,kl] down[j,r] */
            struct matrix half = {.rows = mid.rows, .cols = down.cols * mid.area};
            struct matrix identity = {.rows = mid.rows, .cols = mid.rows};
            identity.value = alloc_try((size_t)(mid.rows * mid.rows), sizeof *identity.value);
            for (int64_t i = 0; identity.value && i < mid.rows; i++)
                identity.value[i * mid.rows + i] = 1;
            half.value = identity.value ? tucker(&mid, &identity, &down) : NULL;
            free(identity.value);
            free(down.value);
            down = half;
            if (!half.value) rc = lora_no_memory(m, err);
        }
    }
    int64_t rank = up.cols;
    if (!rc && (up.rows != shape.out || up.cols != down.rows || down.cols != shape.in * shape.area))
        rc = lora_misfit(m, err);
    float *y = rc ? NULL : product(&up, &down);
    if (!rc && !y) rc = lora_no_memory(m, err);
    if (!rc) {
        float scale = (float)lora_scale(m, rank);
        for (int64_t i = 0; i < shape.out * shape.in * shape.area; i++) y[i] *= scale;
        *delta = y;
    }
    free(up.value);
    free(down.value);
    free(mid.value);
    return rc;
}

static int full(float **delta, const struct lora_module *m, struct lora_shape shape,
                struct error *err)
{
    struct matrix d;
    int rc = read_matrix(&d, m, LORA_DIFF, err);
    if (!rc && d.rows * d.cols != shape.out * shape.in * shape.area) {
        free(d.value);
        return lora_misfit(m, err);
    }
    if (!rc) *delta = d.value;
    return rc;
}

/* VeRA: d_out B d_rank A, of the projections' first rows and columns. */
static int shared_pair(float **delta, const struct lora_module *m, struct lora_shape shape,
                       struct error *err)
{
    struct matrix a = {0}, b = {0}, out = {0}, rank = {0};
    int rc = read_matrix(&a, m, LORA_VERA_A, err);
    if (!rc) rc = read_matrix(&b, m, LORA_VERA_B, err);
    if (!rc) rc = read_matrix(&out, m, LORA_VERA_OUT, err);
    if (!rc) rc = read_matrix(&rank, m, LORA_VERA_RANK, err);
    int64_t r = rc ? 0 : rank.rows * rank.cols;
    if (!rc && (shape.area != 1 || a.cols < shape.in || b.rows < shape.out || a.rows != r ||
                b.cols != r || out.rows * out.cols != shape.out))
        rc = lora_misfit(m, err);
    float *y = rc ? NULL : alloc_try((size_t)(shape.out * shape.in) + 1, sizeof *y);
    if (!rc && !y) rc = lora_no_memory(m, err);
    for (int64_t o = 0; !rc && o < shape.out; o++)
        for (int64_t k = 0; k < r; k++) {
            float f = out.value[o] * b.value[o * r + k] * rank.value[k];
            for (int64_t i = 0; i < shape.in; i++)
                y[o * shape.in + i] += f * a.value[k * a.cols + i];
        }
    free(a.value);
    free(b.value);
    free(out.value);
    free(rank.value);
    if (!rc) *delta = y;
    return rc;
}

int lora_delta(float **delta, const struct lora_module *m, struct lora_shape shape,
               struct error *err)
{
    if (m->tensor[LORA_DIFF]) return full(delta, m, shape, err);
    if (m->tensor[LORA_VERA_OUT]) return shared_pair(delta, m, shape, err);
    if (m->tensor[LORA_DOWN] || m->tensor[LORA_UP]) return low_rank(delta, m, shape, err);
    if (m->kron) return kronecker(delta, m, shape, err);
    return hadamard(delta, m, shape, err);
}

/* DoRA: the sum keeps its direction and takes the stored length, by row or by input column. */
static int give_length(float *sum, const struct lora_module *m, struct lora_shape s,
                       struct error *err)
{
    struct matrix length;
    int rc = read_matrix(&length, m, LORA_MAGNITUDE, err);
    if (rc) return rc;
    int64_t count = length.rows * length.cols;
    bool by_row = m->row_magnitude || (length.rows == s.out && count == s.out && length.rows != 1);
    if (count != (by_row ? s.out : s.in)) {
        free(length.value);
        return lora_misfit(m, err);
    }
    for (int64_t k = 0; k < count; k++) {
        double squares = 0;
        int64_t others = by_row ? s.in : s.out;
        for (int64_t o = 0; o < others; o++)
            for (int64_t a = 0; a < s.area; a++) {
                double v = (double)(by_row ? sum[(k * s.in + o) * s.area + a]
                                           : sum[(o * s.in + k) * s.area + a]);
                squares += v * v;
            }
        float f = squares > 0 ? (float)((double)length.value[k] / sqrt(squares)) : 0;
        for (int64_t o = 0; o < others; o++)
            for (int64_t a = 0; a < s.area; a++)
                sum[((by_row ? k * s.in + o : o * s.in + k)) * s.area + a] *= f;
    }
    free(length.value);
    return 0;
}

int lora_delta_merge(float *base, const struct lora_module *m, struct lora_shape shape,
                     double strength, struct error *err)
{
    float *delta;
    int rc = lora_depends(m) ? lora_change(&delta, base, m, shape, &strength, err)
                             : lora_delta(&delta, m, shape, err);
    if (rc) return rc;
    int64_t count = shape.out * shape.in * shape.area;
    float s = (float)strength;
    if (m->tensor[LORA_MAGNITUDE]) {
        for (int64_t i = 0; i < count; i++) delta[i] += base[i];
        rc = give_length(delta, m, shape, err);
        for (int64_t i = 0; !rc && i < count; i++) base[i] += s * (delta[i] - base[i]);
    } else {
        for (int64_t i = 0; i < count; i++) base[i] += s * delta[i];
    }
    free(delta);
    return rc;
}
