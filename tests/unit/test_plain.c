/* kernels/plain: forward against the definition, storage types, NaN, the optimiser. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/plain/plain.h"

static uint64_t random_state = 1;

static double number(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)random_state * 0x1p-63;
}

/* An array in a storage dtype, with the values that it really holds beside it. */
struct array {
    void *data;
    double *value;
    enum dtype dtype;
    int64_t count;
};

static struct array array_new(enum dtype dtype, int64_t count)
{
    struct array a = {.dtype = dtype, .count = count};
    a.data = alloc_zero((size_t)count, dtype_bytes(dtype));
    a.value = alloc_zero((size_t)count, sizeof(double));
    for (int64_t i = 0; i < count; i++) {
        dtype_set(a.data, dtype, i, number());
        a.value[i] = dtype_get(a.data, dtype, i);
    }
    return a;
}

static void array_release(struct array *a)
{
    free(a->data);
    free(a->value);
}

/* One rounding to the storage type, and float sums of up to a hundred terms of size one. */
static void assert_close(const struct array *y, int64_t index, double expected)
{
    double unit = y->dtype == DTYPE_BF16 ? 0x1p-8 : y->dtype == DTYPE_F16 ? 0x1p-11 : 0;
    double got = dtype_get(y->data, y->dtype, index);
    if (fabs(got - expected) <= unit * fabs(expected) + 2e-5) return;
    fail_msg("%s element %lld: %.9g, by definition %.9g", dtype_name(y->dtype), (long long)index,
             got, expected);
}

static struct kernel_weight matrix(const struct array *w, int rank, const int64_t *dim)
{
    struct kernel_weight k = {.data = w->data, .dtype = w->dtype, .rank = rank};
    memcpy(k.dim, dim, (size_t)rank * sizeof(dim[0]));
    return k;
}

static const enum dtype storages[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void linear_is_its_definition(void **state)
{
    enum { M = 6, K = 7, OUT = 5, LDX = 9, LDY = 8 };
    for (int storage = 0; storage < 3; storage++) {
        enum dtype dtype = storages[storage], wtype = storages[(storage + 1) % 3];
        struct array x = array_new(dtype, M * LDX), w = array_new(wtype, OUT * K);
        struct array y = array_new(dtype, M * LDY), b = array_new(DTYPE_F32, OUT);
        struct array row = array_new(dtype, 2 * OUT), old = y;
        old.value = alloc_zero((size_t)y.count, sizeof(double));
        memcpy(old.value, y.value, (size_t)y.count * sizeof(double));
        struct kernel_weight k = matrix(&w, 2, (int64_t[]){OUT, K});
        struct linear_args a = {.y = y.data,
                                .x = x.data,
                                .w = &k,
                                .m = M,
                                .k = K,
                                .out = OUT,
                                .ldx = LDX,
                                .ldy = LDY,
                                .dtype = dtype};
        a.epilogue = (struct epilogue_args){.bias = b.data,
                                            .bias_dtype = DTYPE_F32,
                                            .row = row.data,
                                            .rows_per_image = 3,
                                            .act = ACT_SILU,
                                            .add = y.data};
        assert_int_equal(plain_linear(NULL, &a, NULL), 0);
        for (int m = 0; m < M; m++) {
            for (int o = 0; o < OUT; o++) {
                double z = b.value[o] + row.value[m / 3 * OUT + o];
                for (int i = 0; i < K; i++) z += x.value[m * LDX + i] * w.value[o * K + i];
                assert_close(&y, m * LDY + o, z * sigmoid(z) + old.value[m * LDY + o]);
            }
            for (int o = OUT; o < LDY; o++) assert_close(&y, m * LDY + o, old.value[m * LDY + o]);
        }
        free(old.value);
        array_release(&x), array_release(&w), array_release(&y), array_release(&b),
            array_release(&row);
    }
}

/* The enlarged, padded or wrapped picture written out first, then a convolution without any of it. */
static void convolution_is_its_definition(void **state)
{
    const struct {
        int kh, kw, stride, top, left, bottom, right, up;
        bool circular;
    } forms[] = {
        {3, 3, 1, 1, 1, 1, 1, 1, false}, {3, 3, 2, 0, 0, 1, 1, 1, false},
        {1, 1, 1, 0, 0, 0, 0, 1, false}, {3, 3, 1, 1, 1, 1, 1, 2, false},
        {3, 3, 1, 1, 1, 1, 1, 1, true},  {5, 3, 2, 2, 1, 2, 1, 2, true},
    };
    enum { N = 2, H = 5, W = 4, C = 3, OUT = 2 };
    for (size_t f = 0; f < COUNT_OF(forms); f++) {
        for (int storage = 0; storage < 3; storage++) {
            int up = forms[f].up, kh = forms[f].kh, kw = forms[f].kw;
            int ph = H * up + forms[f].top + forms[f].bottom;
            int pw = W * up + forms[f].left + forms[f].right;
            int oh = (ph - kh) / forms[f].stride + 1, ow = (pw - kw) / forms[f].stride + 1;
            struct array x = array_new(storages[storage], N * H * W * C);
            struct array w = array_new(DTYPE_F16, OUT * C * kh * kw);
            struct array y = array_new(storages[storage], N * oh * ow * OUT);
            double *picture = alloc_zero((size_t)(N * ph * pw * C), sizeof(double));
            for (int i = 0; i < N * ph * pw * C; i++) {
                int c = i % C, px = i / C % pw - forms[f].left, n = i / C / pw / ph;
                int py = i / C / pw % ph - forms[f].top;
                bool inside = px >= 0 && py >= 0 && px < W * up && py < H * up;
                if (!inside && !forms[f].circular) continue;
                px = (px + W * up) % (W * up);
                py = (py + H * up) % (H * up);
                picture[i] = x.value[((n * H + py / up) * W + px / up) * C + c];
            }
            struct kernel_weight k = matrix(&w, 4, (int64_t[]){OUT, C, kh, kw});
            struct conv2d_args a = {.y = y.data,
                                    .x = x.data,
                                    .w = &k,
                                    .n = N,
                                    .h = H,
                                    .w_px = W,
                                    .c = C,
                                    .oh = oh,
                                    .ow = ow,
                                    .out = OUT,
                                    .kh = kh,
                                    .kw = kw,
                                    .stride = forms[f].stride,
                                    .pad_top = forms[f].top,
                                    .pad_left = forms[f].left,
                                    .upsample = up,
                                    .circular = forms[f].circular,
                                    .dtype = storages[storage]};
            assert_int_equal(plain_conv2d(NULL, &a, NULL), 0);
            for (int i = 0; i < N * oh * ow * OUT; i++) {
                int o = i % OUT, ox = i / OUT % ow, oy = i / OUT / ow % oh, n = i / OUT / ow / oh;
                double sum = 0;
                for (int j = 0; j < C * kh * kw; j++) {
                    int kx = j % kw, ky = j / kw % kh, c = j / kw / kh;
                    int at = (n * ph + oy * forms[f].stride + ky) * pw + ox * forms[f].stride + kx;
                    sum += picture[at * C + c] * w.value[o * C * kh * kw + j];
                }
                assert_close(&y, i, sum);
            }
            free(picture);
            array_release(&x), array_release(&w), array_release(&y);
        }
    }
}

static void norms_are_their_definition(void **state)
{
    enum { N = 2, ROWS = 5, C = 6, GROUPS = 2, WIDTH = C / GROUPS };
    for (int storage = 0; storage < 3; storage++) {
        enum dtype dtype = storages[storage];
        struct array x = array_new(dtype, N * ROWS * C), y = array_new(dtype, N * ROWS * C);
        struct array g = array_new(DTYPE_F16, C), b = array_new(DTYPE_F16, C);
        struct group_norm_args a = {.y = y.data,
                                    .x = x.data,
                                    .gamma = g.data,
                                    .beta = b.data,
                                    .n = N,
                                    .rows = ROWS,
                                    .c = C,
                                    .groups = GROUPS,
                                    .eps = 1e-5,
                                    .act = ACT_SILU,
                                    .dtype = dtype,
                                    .weight_dtype = DTYPE_F16};
        assert_int_equal(plain_group_norm(NULL, &a, NULL), 0);
        for (int n = 0; n < N; n++) {
            for (int c = 0; c < C; c++) {
                double mean = 0, square = 0, first = c / WIDTH * WIDTH;
                for (int i = 0; i < ROWS * WIDTH; i++) {
                    double value = x.value[(n * ROWS + i / WIDTH) * C + (int)first + i % WIDTH];
                    mean += value / (ROWS * WIDTH);
                    square += value * value / (ROWS * WIDTH);
                }
                for (int r = 0; r < ROWS; r++) {
                    int at = (n * ROWS + r) * C + c;
                    double z = (x.value[at] - mean) / sqrt(square - mean * mean + 1e-5);
                    z = z * g.value[c] + b.value[c];
                    assert_close(&y, at, z * sigmoid(z));
                }
            }
        }
        struct layer_norm_args l = {
            .y = y.data, .x = x.data, .rows = N * ROWS, .d = C, .eps = 0.1, .dtype = dtype};
        assert_int_equal(plain_layer_norm(NULL, &l, NULL), 0);
        for (int r = 0; r < N * ROWS; r++) {
            double mean = 0, square = 0;
            for (int c = 0; c < C; c++) mean += x.value[r * C + c] / C;
            for (int c = 0; c < C; c++) square += x.value[r * C + c] * x.value[r * C + c] / C;
            for (int c = 0; c < C; c++) {
                double unit = (x.value[r * C + c] - mean) / sqrt(square - mean * mean + 0.1);
                assert_close(&y, r * C + c, unit);
            }
        }
        array_release(&x), array_release(&y), array_release(&g), array_release(&b);
    }
}

/* q, k and v lie in one [N,L,3*A*D] result, as a fused projection leaves them. */
static void attention_is_its_definition(void **state)
{
    enum { N = 2, L = 5, A = 2, D = 3, WIDE = 3 * A * D };
    for (int form = 0; form < 6; form++) {
        enum dtype dtype = storages[form % 3];
        bool causal = form >= 3;
        struct array x = array_new(dtype, N * L * WIDE), y = array_new(dtype, N * L * A * D);
        float lse[N * A * L];
        char *base = x.data;
        struct attention_args a = {.y = y.data,
                                   .q = base,
                                   .k = base + A * D * dtype_bytes(dtype),
                                   .v = base + 2 * A * D * dtype_bytes(dtype),
                                   .lse = lse,
                                   .n = N,
                                   .heads = A,
                                   .lq = L,
                                   .lk = L,
                                   .d = D,
                                   .ldq = WIDE,
                                   .ldk = WIDE,
                                   .ldv = WIDE,
                                   .ldy = A * D,
                                   .scale = 0.7,
                                   .causal = causal,
                                   .dtype = dtype};
        assert_int_equal(plain_attention(NULL, &a, NULL), 0);
        for (int at = 0; at < N * A * L; at++) {
            int i = at % L, h = at / L % A, n = at / L / A;
            double sum = 0, out[D] = {0};
            for (int j = 0; j < (causal ? i + 1 : L); j++) {
                double dot = 0;
                const double *q = x.value + (n * L + i) * WIDE + h * D;
                const double *k = x.value + (n * L + j) * WIDE + A * D + h * D;
                for (int e = 0; e < D; e++) dot += q[e] * k[e];
                sum += exp(0.7 * dot);
                for (int e = 0; e < D; e++) out[e] += exp(0.7 * dot) * k[A * D + e];
            }
            for (int e = 0; e < D; e++)
                assert_close(&y, (n * L + i) * A * D + h * D + e, out[e] / sum);
            assert_true(fabs(lse[at] - log(sum)) < 1e-5);
        }
        array_release(&x), array_release(&y);
    }
}

static void activations_are_their_definition(void **state)
{
    for (double x = -12; x <= 12; x += 0.37) {
        double gauss = (1 + erf(x / sqrt(2))) / 2;
        const double expected[ACT_COUNT] = {
            [ACT_NONE] = x,          [ACT_SILU] = x / (1 + exp(-x)),
            [ACT_GELU] = x * gauss,  [ACT_QUICK_GELU] = x / (1 + exp(-1.702 * x)),
            [ACT_RELU] = fmax(x, 0), [ACT_LEAKY_RELU] = x < 0 ? 0.2 * x : x,
            [ACT_TANH] = tanh(x),    [ACT_SIGMOID] = sigmoid(x),
        };
        for (int act = 0; act < ACT_COUNT; act++) {
            assert_true(fabs(plain_act((enum activation)act, (float)x) - expected[act]) < 3e-6);
        }
        float in[2] = {1.5f, (float)x}, out;
        struct geglu_args a = {.y = &out, .x = in, .rows = 1, .d = 1, .dtype = DTYPE_F32};
        assert_int_equal(plain_geglu(NULL, &a, NULL), 0);
        assert_true(fabs(out - 1.5 * x * gauss) < 5e-6);
    }
    assert_true(plain_act(ACT_SILU, -1000) == 0 && plain_act(ACT_SILU, 1000) == 1000);
}

/* A NaN reaches what depends on it and nothing else. */
static void nan_is_carried_and_contained(void **state)
{
    float x[32], y[32], w[9 * 4];
    for (int act = 0; act < ACT_COUNT; act++)
        assert_true(isnan(plain_act((enum activation)act, NAN)));
    for (int i = 0; i < 36; i++) w[i] = 0.1f;
    for (int i = 0; i < 32; i++) x[i] = (float)i / 7;
    x[5] = NAN;
    struct kernel_weight k = {.data = w, .dtype = DTYPE_F32, .rank = 2, .dim = {4, 4}};
    struct linear_args l = {
        .y = y, .x = x, .w = &k, .m = 8, .k = 4, .out = 4, .ldx = 4, .ldy = 4, .dtype = DTYPE_F32};
    assert_int_equal(plain_linear(NULL, &l, NULL), 0);
    for (int i = 0; i < 32; i++) assert_int_equal(isnan(y[i]) != 0, i / 4 == 1);

    struct kernel_weight tap = {.data = w, .dtype = DTYPE_F32, .rank = 4, .dim = {1, 1, 3, 3}};
    struct conv2d_args c = {.y = y,
                            .x = x,
                            .w = &tap,
                            .n = 1,
                            .h = 4,
                            .w_px = 8,
                            .c = 1,
                            .oh = 4,
                            .ow = 8,
                            .out = 1,
                            .kh = 3,
                            .kw = 3,
                            .stride = 1,
                            .pad_top = 1,
                            .pad_left = 1,
                            .dtype = DTYPE_F32};
    assert_int_equal(plain_conv2d(NULL, &c, NULL), 0);
    for (int i = 0; i < 32; i++) {
        bool near = i / 8 <= 1 && i % 8 >= 4 && i % 8 <= 6;
        assert_int_equal(isnan(y[i]) != 0, near);
    }
    struct group_norm_args g = {
        .y = y, .x = x, .n = 2, .rows = 4, .c = 4, .groups = 2, .eps = 1e-5, .dtype = DTYPE_F32};
    assert_int_equal(plain_group_norm(NULL, &g, NULL), 0);
    for (int i = 0; i < 32; i++) assert_int_equal(isnan(y[i]) != 0, i < 16 && i % 4 < 2);

    struct attention_args a = {.y = y,
                               .q = x,
                               .k = w,
                               .v = w,
                               .n = 1,
                               .heads = 2,
                               .lq = 8,
                               .lk = 4,
                               .d = 2,
                               .ldq = 4,
                               .ldk = 4,
                               .ldv = 4,
                               .ldy = 4,
                               .scale = 1,
                               .dtype = DTYPE_F32};
    assert_int_equal(plain_attention(NULL, &a, NULL), 0);
    for (int i = 0; i < 32; i++) assert_int_equal(isnan(y[i]) != 0, i / 2 == 2);
    w[1] = INFINITY; /* a key: one score is infinite, exp(inf - inf) is NaN, and it must be seen */
    x[5] = 1;
    assert_int_equal(plain_attention(NULL, &a, NULL), 0);
    assert_true(isnan(y[4]));
}

/* Three steps against the equations, written out once more. */
static void adamw_is_its_equations(void **state)
{
    float param[3] = {1, -2, 0.5f}, m[3] = {0}, v[3] = {0};
    double p[3] = {1, -2, 0.5}, first[3] = {0}, second[3] = {0};
    for (int step = 1; step <= 3; step++) {
        float grad[3] = {0.3f * (float)step, -4, 0};
        struct adamw_args a = {.param = param,
                               .m = m,
                               .v = v,
                               .grad = grad,
                               .count = 3,
                               .step = step,
                               .lr = 0.01,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.1,
                               .grad_scale = 0.5};
        assert_int_equal(plain_adamw(NULL, &a, NULL), 0);
        for (int i = 0; i < 3; i++) {
            double g = grad[i] * 0.5;
            first[i] = 0.9 * first[i] + 0.1 * g;
            second[i] = 0.999 * second[i] + 0.001 * g * g;
            double mean = first[i] / (1 - pow(0.9, step)),
                   square = second[i] / (1 - pow(0.999, step));
            p[i] -= 0.01 * (mean / (sqrt(square) + 1e-8) + 0.1 * p[i]);
            assert_true(fabs(param[i] - p[i]) < 1e-6);
            assert_true(fabs(m[i] - first[i]) < 1e-6 && fabs(v[i] - second[i]) < 1e-6);
        }
        /* The first step moves by the learning rate, whatever the size of the gradient. */
        if (step == 1) assert_true(fabs(param[0] - (1 - 0.01 - 0.001)) < 1e-6);
    }
    assert_true(fabs(param[2] - 0.5 * pow(1 - 0.001, 3)) < 1e-6); /* no gradient: decay alone */
}

static void sums_and_losses(void **state)
{
    float x[4] = {3, -4, 12, 0}, target[4] = {1, -4, 10, 2}, weight[4] = {1, 5, 0.5f, 0}, loss,
          dy[4];
    double squares;
    struct norm_args n = {.x = x, .count = 4, .dtype = DTYPE_F32, .sum_of_squares = &squares};
    assert_int_equal(plain_norm(NULL, &n, NULL), 0);
    assert_true(squares == 169);
    struct mse_args a = {.loss = &loss,
                         .y = x,
                         .target = target,
                         .dy = dy,
                         .count = 4,
                         .scale = 3,
                         .dtype = DTYPE_F32};
    assert_int_equal(plain_mse(NULL, &a, NULL), 0);
    assert_true(loss == 3);
    a.weight = weight;
    assert_int_equal(plain_mse(NULL, &a, NULL), 0);
    assert_true(loss == 1.5f);
    assert_int_equal(plain_mse_grad(NULL, &a, NULL), 0);
    assert_true(dy[0] == 3 && dy[1] == 0 && dy[2] == 1.5f && dy[3] == 0);
}

static void moves(void **state)
{
    uint16_t half[6];
    float wide[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, out[12] = {0};
    struct copy_args c = {.y = half,
                          .x = wide + 1,
                          .rows = 2,
                          .cols = 3,
                          .ldy = 3,
                          .ldx = 6,
                          .y_dtype = DTYPE_F16,
                          .x_dtype = DTYPE_F32};
    assert_int_equal(plain_copy(NULL, &c, NULL), 0);
    assert_true(f16_to_f32(half[2]) == 3 && f16_to_f32(half[3]) == 7);
    c = (struct copy_args){.y = out,
                           .x = half,
                           .rows = 2,
                           .cols = 3,
                           .ldy = 4,
                           .ldx = 3,
                           .y_dtype = DTYPE_F32,
                           .x_dtype = DTYPE_F16,
                           .accumulate = true};
    out[4] = 100;
    assert_int_equal(plain_copy(NULL, &c, NULL), 0);
    assert_true(out[0] == 1 && out[3] == 0 && out[4] == 107 && out[6] == 9);
    struct transpose_args t = {out, wide, 2, 2, 3, DTYPE_F32};
    assert_int_equal(plain_transpose(NULL, &t, NULL), 0);
    const float turned[12] = {0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11};
    assert_memory_equal(out, turned, sizeof(turned));
    struct upsample_args u = {
        .y = out, .x = wide, .n = 1, .h = 2, .w = 3, .c = 1, .oh = 3, .ow = 4, .dtype = DTYPE_F32};
    assert_int_equal(plain_upsample(NULL, &u, NULL), 0);
    const float larger[12] = {0, 0, 1, 2, 0, 0, 1, 2, 3, 3, 4, 5};
    assert_memory_equal(out, larger, sizeof(larger));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_its_definition),
        cmocka_unit_test(convolution_is_its_definition),
        cmocka_unit_test(norms_are_their_definition),
        cmocka_unit_test(attention_is_its_definition),
        cmocka_unit_test(activations_are_their_definition),
        cmocka_unit_test(nan_is_carried_and_contained),
        cmocka_unit_test(adamw_is_its_equations),
        cmocka_unit_test(sums_and_losses),
        cmocka_unit_test(moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
