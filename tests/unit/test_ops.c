/* tensor/ops: shapes that are refused, fused against composed, views, storage types. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/plain/plain.h"
#include "tests/support/tiny_net.h"

struct bench {
    struct device *device;
    struct pass_memory memory;
    struct pass pass;
    struct weight w23, w24, conv, conv1x1, vector2, vector3, vector4, absent, gamma16;
    uint64_t random;
};

static struct weight weight_new(struct bench *b, const char *name, int rank, const int64_t *dim)
{
    struct weight w = {.name = name, .k = {.dtype = DTYPE_F32, .rank = rank}};
    memcpy(w.k.dim, dim, (size_t)rank * sizeof(dim[0]));
    w.k.data = tiny_numbers(&b->random, weight_count(&w), 0.5f, 0);
    return w;
}

static int setup(void **state)
{
    struct bench *b = alloc_zero(1, sizeof(*b));
    assert_int_equal(plain_device_open(&b->device, NULL), 0);
    pass_memory_init(&b->memory, b->device, 0);
    b->random = 3;
    b->w23 = weight_new(b, "blocks.0.w23", 2, TENSOR_DIM(2, 3));
    b->w24 = weight_new(b, "blocks.0.w24", 4, TENSOR_DIM(2, 4, 1, 1));
    b->conv = weight_new(b, "blocks.0.conv", 4, TENSOR_DIM(2, 4, 3, 3));
    b->vector2 = weight_new(b, "blocks.0.bias", 1, TENSOR_DIM(2));
    b->vector3 = weight_new(b, "blocks.0.three", 1, TENSOR_DIM(3));
    b->vector4 = weight_new(b, "blocks.0.four", 1, TENSOR_DIM(4));
    b->gamma16 = weight_new(b, "blocks.0.gamma16", 1, TENSOR_DIM(4));
    pass_start(&b->pass, &b->memory, DTYPE_F32, NULL);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    struct weight *all[] = {&b->w23,     &b->w24,     &b->conv,   &b->vector2,
                            &b->vector3, &b->vector4, &b->gamma16};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        weight_release(all[i], b->device);
        free((void *)all[i]->k.data);
    }
    pass_memory_release(&b->memory);
    device_close(b->device);
    free(b);
    return 0;
}

static struct tensor filled_as(struct bench *b, enum dtype dtype, int rank, const int64_t *dim)
{
    struct tensor t = pass_tensor(&b->pass, dtype, rank, dim);
    for (int64_t i = 0; i < tensor_count(t); i++)
        dtype_set(t.data, dtype, i, tiny_number(&b->random));
    return t;
}

static struct tensor filled(struct bench *b, int rank, const int64_t *dim)
{
    return filled_as(b, b->pass.dtype, rank, dim);
}

/* The pass must have failed with a sentence that has both parts; it is then started anew. */
static void refused_with(struct bench *b, struct tensor y, int code, const char *first,
                         const char *second)
{
    struct error err;
    assert_null(y.data);
    int rc = pass_finish(&b->pass, &err);
    if (rc != code || !strstr(err.text, first) || !strstr(err.text, second)) {
        fail_msg("wanted \"%s\" and \"%s\", got %d: %s", first, second, rc, rc ? err.text : "");
    }
    pass_start(&b->pass, &b->memory, DTYPE_F32, NULL);
}
#define refused(b, y, first, second) refused_with(b, y, ERR_INVALID, first, second)
#define DIM TENSOR_DIM

static void wrong_shapes_are_named(void **state)
{
    struct bench *b = *state;
    struct pass *p = &b->pass;
    struct conv_shape same = conv_same(3);
    struct tensor none = {0};
#define X(...) filled(b, (int)(sizeof(DIM(__VA_ARGS__)) / sizeof(int64_t)), DIM(__VA_ARGS__))
    refused(b, op_linear(p, X(5, 4), &b->w23, NULL, NULL), "x [5,4] F32", "blocks.0.w23 [2,3] F32");
    refused(b, op_linear(p, X(5, 4), &b->conv, NULL, NULL), "x [5,4]", "blocks.0.conv [2,4,3,3]");
    refused(b, op_linear(p, X(5, 3), &b->w23, &b->vector3, NULL), "blocks.0.three [3]",
            "2 elements");
    refused(b, op_linear(p, X(5, 3), &b->absent, NULL, NULL), "linear", "absent");
    refused(b, op_linear(p, X(5, 3), NULL, NULL, NULL), "linear", "absent");
    refused(b, op_linear(p, X(5, 3), &b->w23, NULL, &(struct fuse){.row = X(2, 2)}), "[2,2]",
            "[5,2]");
    refused(b, op_linear(p, X(5, 3), &b->w23, NULL, &(struct fuse){.row = X(5, 3)}), "[5,3]",
            "[5,2]");
    refused(b, op_linear(p, X(5, 3), &b->w23, NULL, &(struct fuse){.add = X(5, 3)}), "[5,3]",
            "[5,2]");
    struct tensor y = X(5, 4);
    op_linear_into(p, &y, X(5, 3), &b->w23, NULL, NULL);
    refused(b, y, "[5,2]", "[5,4]");
    refused(b, op_conv2d(p, X(1, 5, 5, 3), &b->conv, NULL, same, NULL), "[1,5,5,3]",
            "conv [2,4,3,3]");
    refused(b, op_conv2d(p, X(5, 5, 4), &b->conv, NULL, same, NULL), "[5,5,4]", "conv [2,4,3,3]");
    refused(b, op_conv2d(p, X(1, 5, 5, 4), &b->w23, NULL, same, NULL), "[1,5,5,4]", "w23 [2,3]");
    refused(b, op_conv2d(p, X(1, 2, 5, 4), &b->conv, NULL, (struct conv_shape){0}, NULL),
            "[1,2,5,4]", "smaller than the kernel");
    refused(b, op_group_norm(p, X(1, 5, 4), NULL, NULL, 3, 1e-5, ACT_NONE), "[1,5,4]", "3 groups");
    refused(b, op_group_norm(p, X(1, 5, 4), NULL, NULL, 0, 1e-5, ACT_NONE), "[1,5,4]", "0 groups");
    refused(b, op_group_norm(p, X(1, 5, 4), &b->vector3, NULL, 2, 1e-5, ACT_NONE), "three [3]",
            "4 el");
    refused_with(b, op_group_norm(p, X(1, 5, 4), NULL, NULL, 2, 1e-5, ACT_TANH), ERR_UNSUPPORTED,
                 "group_norm", "SiLU");
    refused(b, op_layer_norm(p, X(5, 4), NULL, &b->vector3, 1e-5), "three [3]", "4 elements");
    refused(b, op_attention(p, X(1, 5, 4), X(1, 3, 6), X(1, 3, 6), 2, false), "[1,5,4]", "[1,3,6]");
    refused(b, op_attention(p, X(2, 5, 4), X(1, 3, 4), X(1, 3, 4), 2, false), "[2,5,4]", "[1,3,4]");
    refused(b, op_attention(p, X(1, 5, 4), X(1, 3, 4), X(1, 2, 4), 2, false), "[1,3,4]", "[1,2,4]");
    refused(b, op_attention(p, X(1, 5, 4), X(1, 3, 4), X(1, 3, 4), 3, false), "[1,5,4]", "3 heads");
    refused(b, op_attention(p, X(5, 4), X(3, 4), X(3, 4), 2, false), "[5,4]", "[3,4]");
    refused(b, op_geglu(p, X(5, 3)), "[5,3]", "even");
    refused(b, op_add(p, X(5, 3), X(3, 5)), "[5,3]", "[3,5]");
    refused(b, op_mul(p, X(5, 3), X(15)), "[5,3]", "[15]");
    refused(b, op_mix(p, 1, X(5, 3), 1, X(4)), "[5,3]", "[4]");
    refused(b, op_add(p, X(2), filled_as(b, DTYPE_F16, 1, DIM(2))), "[2] F32", "[2] F16");
    refused(b, op_concat(p, X(2, 3), X(3, 3)), "[2,3]", "[3,3]");
    refused(b, op_concat_rows(p, X(2, 3, 4), X(2, 3, 5)), "[2,3,4]", "[2,3,5]");
    refused(b, op_concat_batch(p, X(2, 3), X(2, 3, 4)), "[2,3]", "[2,3,4]");
    refused(b, op_concat_rows(p, X(3), X(3)), "[3]", "[3]");
    refused(b, op_slice(p, X(2, 3), 2, 2), "[2,3]", "no 2 elements from 2");
    refused(b, op_slice_rows(p, X(2, 3, 4), -1, 2), "[2,3,4]", "from -1");
    refused(b, op_slice_batch(p, X(2, 3), 0, 0), "[2,3]", "no 0 elements");
    refused(b, op_slice(p, X(2, 3), 1, INT64_MAX), "[2,3]", "slice");
    refused(b, op_repeat_batch(p, X(2, 3), 0), "[2,3]", "0 times");
    refused(b, op_upsample(p, X(2, 3, 4), 6, 8), "[2,3,4]", "upsample");
    refused(b, op_upsample(p, X(1, 2, 3, 4), 0, 8), "[1,2,3,4]", "[1,0,8,4]");
    refused(b, op_to_channels_last(p, X(2, 3, 4)), "[2,3,4]", "to_channels_last");
    refused(b, op_embedding(p, &b->w23, (int32_t[]){0, 2}, 1, 2), "w23 [2,3]", "no row 2");
    refused(b, op_embedding(p, &b->w23, (int32_t[]){-1}, 1, 1), "w23 [2,3]", "no row -1");
    refused(b, op_embedding(p, &b->vector2, (int32_t[]){0}, 1, 1), "bias [2]", "no table");
    refused(b, op_weight(p, &b->absent), "weight", "absent");
    refused(b, op_mse(p, X(2, 3), X(3, 2), none), "[2,3]", "[3,2]");
    refused(b, op_mse(p, X(2, 3), X(2, 3), X(5)), "[5]", "[2,3]");
    refused(b, pass_tensor(p, DTYPE_F32, 2, DIM(3, 0)), "[3,0]", "no shape");
    refused(b, pass_tensor(p, DTYPE_F32, 2, DIM(-3, 1)), "[-3,1]", "no shape");
    refused(b, pass_tensor(p, DTYPE_F32, 4, DIM(1 << 30, 1 << 30, 1 << 30, 8)), "[1073741824",
            "no shape");
#undef X
}

static void same_bits(struct bench *b, struct tensor a, struct tensor c)
{
    if (b->pass.failed) fail_msg("%s", b->pass.error.text);
    assert_true(tensor_same_shape(a, c));
    assert_memory_equal(a.data, c.data, tensor_bytes(a));
}

/* bias, then row, then activation, then add: each as an op of its own */
static struct tensor composed(struct bench *b, struct tensor z, struct weight *bias, struct fuse f)
{
    struct pass *p = &b->pass;
    int64_t images = f.row.rank ? f.row.dim[0] : 1, out = tensor_last(z), n = tensor_count(z);
    if (bias) z = op_mix(p, 1, z, 1, op_weight(p, bias));
    struct tensor rows =
        op_to_channels_first(p, tensor_view_4d(z, images, n / images / out, 1, out));
    rows = op_to_channels_last(p, rows);
    for (int64_t i = 0; f.row.rank && i < images; i++) {
        struct tensor part = op_slice_batch(p, rows, i, 1);
        part = op_mix(p, 1, part, 1, op_slice_batch(p, f.row, i, 1));
        memcpy((char *)rows.data + i * (int64_t)tensor_bytes(part), part.data, tensor_bytes(part));
    }
    z = tensor_view(rows, z.rank, z.dim);
    if (f.act) z = op_activation(p, z, f.act);
    return f.add.rank ? op_add(p, z, f.add) : z;
}

static void fused_is_composed(void **state)
{
    struct bench *b = *state;
    struct pass *p = &b->pass;
    for (int act = 0; act < ACT_COUNT; act++) {
        struct fuse f = {.act = (enum activation)act};
        struct tensor x = filled(b, 4, DIM(2, 5, 3, 4));
        struct tensor tokens = tensor_view_3d(x, 2, 15, 4);
        f.row = filled(b, 2, DIM(2, 2));
        f.add = filled(b, 4, DIM(2, 5, 3, 2));
        struct tensor z = op_conv2d(p, x, &b->conv, NULL, conv_same(3), NULL);
        struct tensor y = op_conv2d(p, x, &b->conv, &b->vector2, conv_same(3), &f);
        same_bits(b, y, composed(b, z, &b->vector2, f));
        f.add = tensor_view_3d(f.add, 2, 15, 2);
        z = op_linear(p, tokens, &b->w24, NULL, NULL);
        y = op_linear(p, tokens, &b->w24, &b->vector2, &f);
        same_bits(b, y, composed(b, z, &b->vector2, f));
        op_linear_into(p, &f.add, tokens, &b->w24, &b->vector2, &f); /* onto what is added */
        same_bits(b, y, f.add);
    }
    struct tensor x = filled(b, 4, DIM(2, 5, 3, 4));
    struct conv_shape folded = conv_same(3);
    folded.upsample = 2;
    struct tensor large =
        op_conv2d(p, op_upsample(p, x, 10, 6), &b->conv, NULL, conv_same(3), NULL);
    same_bits(b, op_conv2d(p, x, &b->conv, NULL, folded, NULL), large);
    struct tensor norm = op_group_norm(p, x, &b->vector4, &b->gamma16, 2, 1e-5, ACT_NONE);
    struct tensor copy = op_scale(p, x, 1);
    struct tensor over = op_group_norm_over(p, copy, &b->vector4, &b->gamma16, 2, 1e-5, ACT_NONE);
    assert_true(over.data == copy.data);
    same_bits(b, over, norm);
    same_bits(b, op_group_norm(p, x, &b->vector4, &b->gamma16, 2, 1e-5, ACT_SILU),
              op_activation(p, norm, ACT_SILU));
    struct tensor flat = tensor_view_3d(x, 2, 15, 4); /* a 1x1 convolution is a linear layer */
    struct tensor point = op_conv2d(p, x, &b->w24, NULL, conv_same(1), NULL);
    same_bits(b, tensor_view_3d(point, 2, 15, 2), op_linear(p, flat, &b->w24, NULL, NULL));
    assert_int_equal(pass_finish(p, NULL), 0);
    pass_start(p, &b->memory, DTYPE_F32, NULL);
}

static void a_missing_kernel_is_named_or_composed(void **state)
{
    struct bench *b = *state;
    struct kernels table = plain_kernels;
    struct pass *p = &b->pass;
    table.name = "bare";
    table.attention = NULL;
    struct tensor x = filled(b, 3, DIM(1, 5, 8)), fused = op_geglu(p, x);
    p->kernels = &table;
    table.geglu = NULL;
    same_bits(b, op_geglu(p, x), fused);
    struct tensor y = op_attention(p, x, x, x, 2, false);
    refused_with(b, y, ERR_UNSUPPORTED, "attention", "the bare back end has no such kernel");
}

static void weights_of_any_float_type(void **state)
{
    struct bench *b = *state;
    struct pass *p = &b->pass;
    const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_F8_E4M3, DTYPE_F8_E5M2};
    struct tensor x = filled(b, 3, DIM(2, 3, 4)), image = tensor_view_4d(x, 1, 2, 3, 4);
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        struct weight narrow = b->conv, wide = b->conv, gamma = b->gamma16;
        int64_t count = weight_count(&narrow);
        char *data = alloc_zero((size_t)count + 1, 8); /* off by a byte, as a mapped file may be */
        float *values = alloc_zero((size_t)count, 4);
        dtype_convert(data + 1, dtypes[i], b->conv.k.data, DTYPE_F32, count);
        dtype_convert(values, DTYPE_F32, data + 1, dtypes[i], count);
        narrow.k.data = data + 1;
        narrow.k.dtype = dtypes[i];
        wide.k.data = values;
        same_bits(b, op_conv2d(p, image, &narrow, NULL, conv_same(3), NULL),
                  op_conv2d(p, image, &wide, NULL, conv_same(3), NULL));
        same_bits(b, op_weight(p, &narrow), op_weight(p, &wide));
        /* gamma in one type and beta in another: beta takes gamma's */
        gamma.k.data = data + 1;
        gamma.k.dtype = dtypes[i];
        struct tensor y = op_layer_norm(p, x, &gamma, &b->vector4, 1e-5);
        struct tensor unit = op_layer_norm(p, x, NULL, NULL, 1e-5);
        for (int64_t j = 0; j < tensor_count(y); j++) {
            float beta = ((const float *)b->vector4.k.data)[j % 4];
            float expected = values[j % 4] * ((float *)unit.data)[j] + beta;
            assert_true(fabsf(((float *)y.data)[j] - expected) <=
                        0.06f); /* beta in 8 bits, at worst */
        }
        free(data);
        free(values);
    }
}

static void views_share_memory(void **state)
{
    struct bench *b = *state;
    struct tensor x = filled(b, 4, DIM(2, 3, 4, 5));
    x.node = 9;
    struct tensor v = tensor_view_3d(x, 2, 12, 5);
    assert_ptr_equal(v.data, x.data);
    assert_int_equal(v.node, 9);
    assert_int_equal(tensor_rows(v), 24);
    assert_int_equal(tensor_last(v), 5);
    assert_int_equal(tensor_bytes(v), 480);
    assert_false(tensor_same_shape(x, v));
    char text[64];
    assert_string_equal(tensor_describe(v, text), "[2,12,5] F32");
    struct tensor scalar = {.dtype = DTYPE_BF16};
    assert_string_equal(tensor_describe(scalar, text), "[] BF16");
    assert_int_equal(tensor_count(scalar), 1);
    v.dim[0] = v.dim[1] = v.dim[2] = INT64_MIN; /* whatever a message is asked to show */
    assert_true(strlen(tensor_describe(v, text)) < 64);
}

static void joins_and_slices_undo_each_other(void **state)
{
    struct bench *b = *state;
    struct pass *p = &b->pass;
    struct tensor x = filled(b, 4, DIM(2, 2, 3, 4));
    struct tensor head = op_slice(p, x, 0, 1), tail = op_slice(p, x, 1, 3);
    same_bits(b, op_concat(p, head, tail), x);
    struct tensor tokens = tensor_view_3d(x, 2, 6, 4);
    struct tensor top = op_slice_rows(p, tokens, 0, 2), rest = op_slice_rows(p, tokens, 2, 4);
    same_bits(b, op_concat_rows(p, top, rest), tokens);
    struct tensor one = op_slice_batch(p, x, 0, 1), two = op_slice_batch(p, x, 1, 1);
    same_bits(b, op_concat_batch(p, one, two), x);
    same_bits(b, op_concat_batch(p, one, one), op_repeat_batch(p, one, 2));
    same_bits(b, op_to_channels_last(p, op_to_channels_first(p, x)), x);
    struct tensor y = op_scale(p, x, 1);
    op_add_into(p, &y, y, x);
    same_bits(b, y, op_scale(p, x, 2));
}

static void input_and_output_convert(void **state)
{
    struct bench *b = *state;
    const float in[5] = {1, 0.1f, -65504, 1e-7f, 3.0009765f};
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        float out[5], expected[5];
        uint16_t narrow[5];
        struct pass p;
        pass_start(&p, &b->memory, dtypes[i], NULL);
        pass_output(&p, out, pass_input(&p, in, 1, DIM(5)));
        assert_int_equal(pass_finish(&p, NULL), 0);
        memcpy(expected, in, sizeof(in));
        for (int j = 0; i && j < 5; j++) {
            narrow[j] = i == 1 ? f32_to_f16(in[j]) : f32_to_bf16(in[j]);
            expected[j] = i == 1 ? f16_to_f32(narrow[j]) : bf16_to_f32(narrow[j]);
        }
        assert_memory_equal(out, expected, sizeof(out));
    }
}

static void devices_have_names(void **state)
{
    struct device *d;
    struct error err;
    assert_int_equal(device_open(&d, "plain", &err), 0);
    assert_string_equal(d->kernels->name, "plain");
    device_close(d);
    assert_int_equal(device_open(&d, NULL, &err), 0);
    device_close(d);
    device_close(NULL);
    const char *const wrong[] = {"gpu", "", "plain:2", "cuda:x", "cuda:-1", "cuda:", "cpus", "pl"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        if (device_open(&d, wrong[i], &err) == ERR_INVALID && strstr(err.text, "device")) continue;
        fail_msg("\"%s\": %s", wrong[i], err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_shapes_are_named),
        cmocka_unit_test(fused_is_composed),
        cmocka_unit_test(a_missing_kernel_is_named_or_composed),
        cmocka_unit_test(weights_of_any_float_type),
        cmocka_unit_test(views_share_memory),
        cmocka_unit_test(joins_and_slices_undo_each_other),
        cmocka_unit_test(input_and_output_convert),
        cmocka_unit_test(devices_have_names),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
