/* Every op, every form of its arguments: backward against central differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gradients/rig.h"

static int total_checked;

static void finish(struct rig *r)
{
    rig_check(r);
    assert_true(r->checked > 0);
    total_checked += r->checked;
    rig_release(r);
}

/* --- the fused end of linear and conv2d ------------------------------------------------------- */

struct fuse_form {
    enum activation act;
    bool bias, row, add, add_is_x, into;
};

/* inputs: 0 x, then row, then add, as far as they are there */
static struct fuse fuse_of(const struct fuse_form *f, const struct tensor *in)
{
    struct fuse fuse = {.act = f->act};
    int next = 1;
    if (f->row) fuse.row = in[next++];
    if (f->add) fuse.add = f->add_is_x ? in[0] : in[next];
    return fuse;
}

static struct tensor run_linear(struct pass *p, struct rig *r, const struct tensor *in)
{
    const struct fuse_form *f = r->context;
    struct fuse fuse = fuse_of(f, in);
    struct weight *w = &r->weights[0], *b = f->bias ? &r->weights[1] : NULL;
    if (!f->into) return op_linear(p, in[0], w, b, &fuse);
    struct tensor y = pass_tensor(p, DTYPE_F64, 3, TENSOR_DIM(2, 3, w->k.dim[0]));
    op_linear_into(p, &y, in[0], w, b, &fuse);
    return y;
}

static void check_linear(const struct fuse_form *f)
{
    char name[80];
    struct rig r;
    int64_t out = f->add_is_x ? 4 : 5;
    snprintf(name, sizeof(name), "linear act %d bias %d row %d add %d into %d", f->act, f->bias,
             f->row, f->add, f->into);
    rig_init(&r, name, run_linear, f);
    rig_input(&r, 3, TENSOR_DIM(2, 3, 4));
    if (f->row) rig_input(&r, 2, TENSOR_DIM(2, out));
    if (f->add && !f->add_is_x) rig_input(&r, 3, TENSOR_DIM(2, 3, out));
    rig_weight(&r, 2, TENSOR_DIM(out, 4), 0.5, 0);
    if (f->bias) rig_weight(&r, 1, TENSOR_DIM(out), 0.5, 0);
    finish(&r);
}

static void linear_in_every_form(void **state)
{
    for (int bits = 0; bits < 8; bits++) {
        for (int act = 0; act < ACT_COUNT; act++) {
            struct fuse_form f = {
                .act = (enum activation)act, .bias = bits & 1, .row = bits & 2, .add = bits & 4};
            check_linear(&f);
        }
    }
    check_linear(&(struct fuse_form){.act = ACT_SILU, .bias = true, .add = true, .add_is_x = true});
    check_linear(&(struct fuse_form){.add = true, .add_is_x = true});
    check_linear(&(struct fuse_form){.bias = true, .row = true, .add = true, .into = true});
}

struct conv_form {
    struct fuse_form fuse;
    struct conv_shape shape;
    int kernel_h, kernel_w;
};

static struct tensor run_conv(struct pass *p, struct rig *r, const struct tensor *in)
{
    const struct conv_form *f = r->context;
    struct fuse fuse = fuse_of(&f->fuse, in);
    struct weight *w = &r->weights[0], *b = f->fuse.bias ? &r->weights[1] : NULL;
    struct tensor y = op_conv2d(p, in[0], w, b, f->shape, &fuse);
    if (!f->fuse.into) return y;
    struct tensor z = pass_tensor_like(p, y);
    op_conv2d_into(p, &z, in[0], w, b, f->shape, &fuse);
    return op_mix(p, 0.5, y, 0.7, z);
}

static void check_conv(const struct conv_form *f)
{
    char name[120];
    struct rig r;
    const struct conv_shape *c = &f->shape;
    int64_t out = f->fuse.add_is_x ? 3 : 2, h = 5, w = 4, up = c->upsample == 2 ? 2 : 1;
    int64_t stride = c->stride ? c->stride : 1;
    int64_t oh = (h * up + c->pad_top + c->pad_bottom - f->kernel_h) / stride + 1;
    int64_t ow = (w * up + c->pad_left + c->pad_right - f->kernel_w) / stride + 1;
    snprintf(name, sizeof(name),
             "conv %dx%d stride %d pad %d %d %d %d up %d circular %d act %d "
             "bias %d row %d add %d",
             f->kernel_h, f->kernel_w, c->stride, c->pad_top, c->pad_left, c->pad_bottom,
             c->pad_right, c->upsample, c->circular, f->fuse.act, f->fuse.bias, f->fuse.row,
             f->fuse.add);
    rig_init(&r, name, run_conv, f);
    rig_input(&r, 4, TENSOR_DIM(2, h, w, 3));
    if (f->fuse.row) rig_input(&r, 2, TENSOR_DIM(2, out));
    if (f->fuse.add && !f->fuse.add_is_x) rig_input(&r, 4, TENSOR_DIM(2, oh, ow, out));
    rig_weight(&r, 4, TENSOR_DIM(out, 3, f->kernel_h, f->kernel_w), 0.3, 0);
    if (f->fuse.bias) rig_weight(&r, 1, TENSOR_DIM(out), 0.5, 0);
    finish(&r);
}

static void conv2d_in_every_shape(void **state)
{
    const struct conv_form forms[] = {
        {.shape = {1, 1, 1, 1, 1, 1, false}, .kernel_h = 3, .kernel_w = 3},
        {.shape = {0, 0, 0, 0, 0, 0, false}, .kernel_h = 1, .kernel_w = 1},
        {.shape = {2, 1, 1, 1, 1, 1, false}, .kernel_h = 3, .kernel_w = 3},
        {.shape = {2, 0, 0, 1, 1, 0, false}, .kernel_h = 3, .kernel_w = 3}, /* the VAE's encoder */
        {.shape = {1, 1, 1, 1, 1, 2, false}, .kernel_h = 3, .kernel_w = 3},
        {.shape = {2, 1, 0, 0, 2, 2, false}, .kernel_h = 3, .kernel_w = 2},
        {.shape = {1, 1, 1, 1, 1, 1, true}, .kernel_h = 3, .kernel_w = 3},
        {.shape = {2, 2, 2, 2, 2, 1, true}, .kernel_h = 5, .kernel_w = 5},
        {.shape = {1, 1, 1, 1, 1, 2, true}, .kernel_h = 3, .kernel_w = 3},
        {.shape = {1, 3, 3, 3, 3, 1, false}, .kernel_h = 7, .kernel_w = 7},
        {.shape = {1, 0, 2, 1, 0, 1, false}, .kernel_h = 2, .kernel_w = 3},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        check_conv(&forms[i]);
        struct conv_form full = forms[i];
        full.fuse = (struct fuse_form){.act = ACT_SILU, .bias = true, .row = true, .add = true};
        check_conv(&full);
    }
}

static void conv2d_in_every_fusion(void **state)
{
    for (int bits = 0; bits < 8; bits++) {
        for (int act = 0; act < ACT_COUNT; act++) {
            struct conv_form f = {.shape = conv_same(3), .kernel_h = 3, .kernel_w = 3};
            f.fuse = (struct fuse_form){
                .act = (enum activation)act, .bias = bits & 1, .row = bits & 2, .add = bits & 4};
            f.fuse.into = act == ACT_LEAKY_RELU;
            check_conv(&f);
        }
    }
    struct conv_form f = {.shape = conv_same(3), .kernel_h = 3, .kernel_w = 3};
    f.fuse = (struct fuse_form){.bias = true, .add = true, .add_is_x = true};
    check_conv(&f);
}

/* --- norms ------------------------------------------------------------------------------------ */

struct norm_form {
    int64_t groups; /* 0: layer norm */
    enum activation act;
    bool gamma, beta, over;
};

static struct tensor run_norm(struct pass *p, struct rig *r, const struct tensor *in)
{
    const struct norm_form *f = r->context;
    struct weight *gamma = f->gamma ? &r->weights[0] : NULL;
    struct weight *beta = f->beta ? &r->weights[f->gamma ? 1 : 0] : NULL;
    /* a tape keeps the values that are asked to be written over */
    if (f->over)
        return op_group_norm_over(p, op_scale(p, in[0], 1), gamma, beta, f->groups, 1e-5, f->act);
    if (f->groups) return op_group_norm(p, in[0], gamma, beta, f->groups, 1e-5, f->act);
    return op_layer_norm(p, in[0], gamma, beta, 1e-5);
}

static void norms_in_every_form(void **state)
{
    const int64_t groups[] = {0, 1, 2, 3, 6};
    for (int i = 0; i < 5; i++) {
        for (int bits = 0; bits < 8; bits++) {
            struct norm_form f = {.groups = groups[i], .gamma = bits & 1, .beta = bits & 2};
            f.over = groups[i] == 6;
            if (bits & 4) f.act = ACT_SILU;
            if (!f.groups && f.act) continue;
            char name[80];
            struct rig r;
            snprintf(name, sizeof(name), "norm groups %d act %d gamma %d beta %d", (int)f.groups,
                     f.act, f.gamma, f.beta);
            rig_init(&r, name, run_norm, &f);
            rig_input(&r, i % 2 ? 4 : 3, i % 2 ? TENSOR_DIM(2, 2, 2, 6) : TENSOR_DIM(2, 3, 6));
            if (f.gamma) rig_weight(&r, 1, TENSOR_DIM(6), 0.3, 1);
            if (f.beta) rig_weight(&r, 1, TENSOR_DIM(6), 0.3, 0);
            finish(&r);
        }
    }
}

/* --- attention -------------------------------------------------------------------------------- */

struct attention_form {
    int64_t heads, d, lq, lk;
    bool causal,
        shared; /* shared: k and v are the same tensor, as are q and k when lengths agree */
};

static struct tensor run_attention(struct pass *p, struct rig *r, const struct tensor *in)
{
    const struct attention_form *f = r->context;
    if (f->shared) return op_attention(p, in[0], in[0], in[0], f->heads, f->causal);
    return op_attention(p, in[0], in[1], in[2], f->heads, f->causal);
}

static void attention_in_every_form(void **state)
{
    const struct attention_form forms[] = {
        {1, 4, 3, 3, false, false}, {2, 3, 4, 1, false, false}, {2, 3, 4, 2, false, false},
        {2, 2, 1, 5, false, false}, {3, 1, 5, 5, true, false},  {2, 4, 4, 4, true, false},
        {2, 3, 3, 5, true, false},  {2, 3, 5, 3, true, false},  {2, 3, 4, 4, false, true},
        {2, 3, 4, 4, true, true},   {1, 5, 2, 7, false, false},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct attention_form *f = &forms[i];
        char name[80];
        struct rig r;
        int64_t width = f->heads * f->d;
        snprintf(name, sizeof(name), "attention heads %d d %d lq %d lk %d causal %d shared %d",
                 (int)f->heads, (int)f->d, (int)f->lq, (int)f->lk, f->causal, f->shared);
        rig_init(&r, name, run_attention, f);
        rig_input(&r, 3, TENSOR_DIM(2, f->lq, width));
        if (!f->shared) rig_input(&r, 3, TENSOR_DIM(2, f->lk, width));
        if (!f->shared) rig_input(&r, 3, TENSOR_DIM(2, f->lk, width));
        finish(&r);
    }
}

static void attention_with_frozen_keys(void **state)
{
    struct attention_form f = {2, 3, 4, 5, false, false};
    for (int frozen = 0; frozen < 3; frozen++) {
        struct rig r;
        rig_init(&r, "attention with a frozen input", run_attention, &f);
        rig_input(&r, 3, TENSOR_DIM(1, f.lq, 6));
        rig_input(&r, 3, TENSOR_DIM(1, f.lk, 6));
        rig_input(&r, 3, TENSOR_DIM(1, f.lk, 6));
        r.inputs[frozen].fixed = true;
        finish(&r);
    }
}

/* --- everything else -------------------------------------------------------------------------- */

static struct tensor run_geglu(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_geglu(p, in[0]);
}

static struct tensor run_activation(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_activation(p, in[0], *(const enum activation *)r->context);
}

static void activations(void **state)
{
    struct rig r;
    for (int i = 0; i < ACT_COUNT; i++) {
        enum activation act = (enum activation)i;
        char name[40];
        snprintf(name, sizeof(name), "activation %d", i);
        rig_init(&r, name, run_activation, &act);
        rig_input(&r, 2, TENSOR_DIM(4, 5));
        finish(&r);
    }
    rig_init(&r, "geglu", run_geglu, NULL);
    rig_input(&r, 3, TENSOR_DIM(2, 3, 8));
    finish(&r);
}

static struct tensor run_add(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_add(p, in[0], in[1]);
}
static struct tensor run_add_self(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_add(p, in[0], in[0]);
}
static struct tensor run_add_into(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct tensor y = op_mul(p, in[0], in[0]);
    struct tensor bent = op_activation(p, y, ACT_TANH); /* its backward needs y's old value */
    op_add_into(p, &y, y, in[1]);
    struct tensor z = pass_tensor_like(p, y);
    op_add_into(p, &z, bent, y);
    return z;
}
static struct tensor run_mix(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mix(p, 0.7, in[0], -1.3, in[1]);
}
static struct tensor run_scale(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_add(p, op_scale(p, in[0], 1.5), op_scale(p, in[1], 1));
}
static struct tensor run_mul(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, in[0], in[1]);
}
static struct tensor run_mul_self(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, in[0], in[0]);
}
static struct tensor run_concat(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_concat(p, in[0], in[1]);
}
static struct tensor run_concat_rows(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_concat_rows(p, op_concat_rows(p, in[0], in[1]), in[0]);
}
static struct tensor run_concat_batch(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_concat_batch(p, in[0], in[1]);
}
static struct tensor run_slice(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, op_slice(p, in[0], 1, 2), op_slice(p, in[0], 2, 2));
}
static struct tensor run_slice_rows(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, op_slice_rows(p, in[0], 0, 2), op_slice_rows(p, in[0], 1, 2));
}
static struct tensor run_slice_batch(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, op_slice_batch(p, in[0], 1, 1), op_slice_batch(p, in[1], 0, 1));
}
static struct tensor run_repeat(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_mul(p, op_repeat_batch(p, in[0], 3), op_repeat_batch(p, in[1], 3));
}
static struct tensor run_upsample(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_upsample(p, in[0], 6, 4);
}
static struct tensor run_upsample_odd(struct pass *p, struct rig *r, const struct tensor *in)
{
    return op_upsample(p, in[0], 5, 7);
}
static struct tensor run_layout(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct tensor first = op_to_channels_first(p, in[0]), square = op_mul(p, first, first);
    return op_to_channels_last(p, square);
}
static struct tensor run_view(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct tensor flat = tensor_view(in[0], 2, TENSOR_DIM(6, 4));
    return op_mul(p, tensor_view(in[0], 2, TENSOR_DIM(6, 4)), op_activation(p, flat, ACT_SIGMOID));
}
static struct tensor run_embedding(struct pass *p, struct rig *r, const struct tensor *in)
{
    int32_t id[6] = {3, 0, 3, 1, 4, 3}; /* gone when the walk back begins */
    struct tensor y = op_embedding(p, &r->weights[0], id, 2, 3);
    for (int i = 0; i < 6; i++) id[i] = -1;
    return op_activation(p, y, ACT_TANH);
}
static struct tensor run_weight(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct tensor w = op_weight(p, &r->weights[0]);
    return op_mul(p, op_mix(p, 1, in[0], 1, w), op_mix(p, 1, in[0], -0.5, w));
}
static struct tensor run_mse_twice(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct tensor none = {0}, target = op_scale(p, in[1], 1);
    target.node = 0;
    struct tensor a = op_mse(p, in[0], target, none), b = op_mse(p, in[0], target, none);
    return op_mix(p, 0.5, a, 1.5, op_mul(p, b, b));
}

static void sums_products_and_moves(void **state)
{
    const struct {
        const char *name;
        rig_function run;
        int rank;
        int64_t first[4], second[4];
    } cases[] = {
        {"add", run_add, 3, {2, 3, 4}, {2, 3, 4}},
        {"add to itself", run_add_self, 3, {2, 3, 4}, {0}},
        {"add into its own memory", run_add_into, 3, {2, 3, 4}, {2, 3, 4}},
        {"mix", run_mix, 3, {2, 3, 4}, {2, 3, 4}},
        {"mix repeated", run_mix, 3, {2, 3, 4}, {1, 3, 4}},
        {"mix repeated rows", run_mix, 3, {2, 3, 4}, {1, 1, 4}},
        {"scale", run_scale, 3, {2, 3, 4}, {2, 3, 4}},
        {"mul", run_mul, 3, {2, 3, 4}, {2, 3, 4}},
        {"square", run_mul_self, 3, {2, 3, 4}, {0}},
        {"concat", run_concat, 4, {2, 2, 2, 3}, {2, 2, 2, 1}},
        {"concat rows", run_concat_rows, 3, {2, 2, 3}, {2, 4, 3}},
        {"concat batch", run_concat_batch, 3, {2, 2, 3}, {1, 2, 3}},
        {"slice", run_slice, 3, {2, 2, 4}, {0}},
        {"slice rows", run_slice_rows, 3, {2, 4, 3}, {0}},
        {"slice batch", run_slice_batch, 3, {2, 2, 3}, {3, 2, 3}},
        {"repeat batch", run_repeat, 3, {2, 2, 3}, {2, 2, 3}},
        {"upsample", run_upsample, 4, {2, 3, 2, 3}, {0}},
        {"upsample odd", run_upsample_odd, 4, {2, 3, 4, 2}, {0}},
        {"layout", run_layout, 4, {2, 3, 2, 4}, {0}},
        {"view", run_view, 3, {2, 3, 4}, {0}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig r;
        rig_init(&r, cases[i].name, cases[i].run, NULL);
        rig_input(&r, cases[i].rank, cases[i].first);
        if (cases[i].second[0]) rig_input(&r, cases[i].rank, cases[i].second);
        finish(&r);
    }
}

static void weights_as_tensors(void **state)
{
    struct rig r;
    rig_init(&r, "embedding", run_embedding, NULL);
    rig_weight(&r, 2, TENSOR_DIM(5, 4), 1, 0);
    finish(&r);
    rig_init(&r, "weight", run_weight, NULL);
    rig_input(&r, 3, TENSOR_DIM(2, 3, 4));
    rig_weight(&r, 2, TENSOR_DIM(3, 4), 1, 0);
    finish(&r);
    rig_init(&r, "mse twice", run_mse_twice, NULL);
    rig_input(&r, 2, TENSOR_DIM(3, 4));
    rig_input(&r, 2, TENSOR_DIM(3, 4));
    r.inputs[1].fixed = true;
    finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_in_every_form),
        cmocka_unit_test(conv2d_in_every_shape),
        cmocka_unit_test(conv2d_in_every_fusion),
        cmocka_unit_test(norms_in_every_form),
        cmocka_unit_test(attention_in_every_form),
        cmocka_unit_test(attention_with_frozen_keys),
        cmocka_unit_test(activations),
        cmocka_unit_test(sums_products_and_moves),
        cmocka_unit_test(weights_as_tensors),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("%d derivatives compared\n", total_checked);
    return failed;
}
