/* A small UNet-like network: a residual block with time embedding, a transformer block with self and
 * cross attention and GEGLU, a skip connection and an adapter; plain, checkpointed, and nested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/gradients/rig.h"

enum { C = 4, N = 2, H = 4, W = 4, CONTEXT = 3, WIDTH = 6, TIME = 5 };

enum network_weight {
    NORM1_G,
    NORM1_B,
    CONV1_W,
    CONV1_B,
    TIME_W,
    TIME_B,
    NORM2_G,
    NORM2_B,
    CONV2_W,
    CONV2_B,
    LN_G,
    LN_B,
    Q_W,
    K_W,
    V_W,
    OUT_W,
    OUT_B,
    UP_W,
    UP_B,
    DOWN_W,
    LORA_A,
    LORA_B,
    SKIP_W,
    SKIP_B,
};

static struct tensor resblock(struct pass *p, const void *context, const struct tensor *in,
                              int count)
{
    struct weight *w = ((struct rig *)*(struct rig *const *)context)->weights;
    struct tensor x = in[0], y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct tensor t = op_linear(p, op_activation(p, in[1], ACT_SILU), &w[TIME_W], &w[TIME_B], NULL);
    struct tensor h = op_group_norm(p, x, &w[NORM1_G], &w[NORM1_B], 2, 1e-5, ACT_SILU);
    h = op_conv2d(p, h, &w[CONV1_W], &w[CONV1_B], conv_same(3), &(struct fuse){.row = t});
    h = op_group_norm(p, h, &w[NORM2_G], &w[NORM2_B], 2, 1e-5, ACT_SILU);
    op_conv2d_into(p, &y, h, &w[CONV2_W], &w[CONV2_B], conv_same(3), &(struct fuse){.add = x});
    pass_close_scope(p, mark);
    return y;
}

static struct tensor attend(struct pass *p, struct weight *w, struct tensor x, struct tensor keys)
{
    struct tensor q = op_linear(p, x, &w[Q_W], NULL, NULL);
    if (x.data != keys.data) { /* the adapter sits on the cross attention */
        struct tensor low = op_linear(p, x, &w[LORA_A], NULL, NULL);
        q = op_linear(p, low, &w[LORA_B], NULL, &(struct fuse){.add = q});
    }
    struct tensor k = op_linear(p, keys, x.data == keys.data ? &w[Q_W] : &w[K_W], NULL, NULL);
    struct tensor v = op_linear(p, keys, x.data == keys.data ? &w[OUT_W] : &w[V_W], NULL, NULL);
    struct tensor a = op_attention(p, q, k, v, 2, false);
    return op_linear(p, a, &w[OUT_W], &w[OUT_B], &(struct fuse){.add = x});
}

static struct tensor transformer(struct pass *p, const void *context, const struct tensor *in,
                                 int count)
{
    struct weight *w = ((struct rig *)*(struct rig *const *)context)->weights;
    struct tensor x = tensor_view_3d(in[0], N, H * W, C), y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct tensor h = attend(p, w, op_layer_norm(p, x, &w[LN_G], &w[LN_B], 1e-5), x);
    h = op_add(p, h, x);
    struct tensor self = op_layer_norm(p, h, NULL, NULL, 1e-5);
    h = attend(p, w, self, self);
    h = attend(p, w, h, in[1]);
    struct tensor up = op_geglu(p, op_linear(p, h, &w[UP_W], &w[UP_B], NULL));
    op_linear_into(p, &y, up, &w[DOWN_W], NULL, &(struct fuse){.add = h});
    pass_close_scope(p, mark);
    return tensor_view_4d(y, N, H, W, C);
}

/* in: x [N,H,W,C], time [N,TIME], context [N,CONTEXT,C] */
static struct tensor both(struct pass *p, const void *context, const struct tensor *in, int count)
{
    struct tensor h = tape_checkpoint(p, resblock, context, in, 2);
    return tape_checkpoint(p, transformer, context, (struct tensor[]){h, in[2]}, 2);
}

static struct tensor run_network(struct pass *p, struct rig *r, const struct tensor *in)
{
    struct weight *w = r->weights;
    struct rig **context = (struct rig **)r->context;
    struct tensor a = both(p, context, in, 3);
    struct tensor again[3] = {a, in[1], in[2]};
    struct tensor b = tape_checkpoint(p, both, context, again, 3); /* checkpoints in a checkpoint */
    struct tensor joined = op_concat(p, b, a);
    return op_conv2d(p, joined, &w[SKIP_W], &w[SKIP_B], conv_same(1), NULL);
}

static void network(struct rig *r, struct rig **self)
{
    *self = r;
    rig_init(r, "network", run_network, self);
    rig_input(r, 4, TENSOR_DIM(N, H, W, C));
    rig_input(r, 2, TENSOR_DIM(N, TIME));
    rig_input(r, 3, TENSOR_DIM(N, CONTEXT, C));
    const struct {
        int rank;
        int64_t dim[4];
        double offset;
    } shapes[] = {
        [NORM1_G] = {1, {C}, 1},
        [NORM1_B] = {1, {C}, 0},
        [CONV1_W] = {4, {C, C, 3, 3}, 0},
        [CONV1_B] = {1, {C}, 0},
        [TIME_W] = {2, {C, TIME}, 0},
        [TIME_B] = {1, {C}, 0},
        [NORM2_G] = {1, {C}, 1},
        [NORM2_B] = {1, {C}, 0},
        [CONV2_W] = {4, {C, C, 3, 3}, 0},
        [CONV2_B] = {1, {C}, 0},
        [LN_G] = {1, {C}, 1},
        [LN_B] = {1, {C}, 0},
        [Q_W] = {2, {C, C}, 0},
        [K_W] = {2, {C, C}, 0},
        [V_W] = {2, {C, C}, 0},
        [OUT_W] = {2, {C, C}, 0},
        [OUT_B] = {1, {C}, 0},
        [UP_W] = {2, {2 * WIDTH, C}, 0},
        [UP_B] = {1, {2 * WIDTH}, 0},
        [DOWN_W] = {2, {C, WIDTH}, 0},
        [LORA_A] = {2, {2, C}, 0},
        [LORA_B] = {2, {C, 2}, 0},
        [SKIP_W] = {4, {C, 2 * C, 1, 1}, 0},
        [SKIP_B] = {1, {C}, 0},
    };
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        rig_weight(r, shapes[i].rank, shapes[i].dim, 0.3, shapes[i].offset);
    }
}

static void network_against_differences(void **state)
{
    struct rig r, *self;
    network(&r, &self);
    rig_check(&r);
    print_message("%d derivatives of the network compared\n", r.checked);
    rig_release(&r);
}

struct walk {
    double *grads[RIG_MAX];
    size_t peak;
};

/* One step with or without recomputing; gradients of all weights. */
static void walk(struct rig *r, bool recompute, struct walk *out)
{
    struct tape *tape = tape_new();
    struct pass p;
    struct tensor in[3];
    tape_recompute(tape, recompute);
    pass_start(&p, &r->memory, DTYPE_F64, tape);
    for (int i = 0; i < 3; i++) {
        in[i] = pass_tensor(&p, DTYPE_F64, r->inputs[i].rank, r->inputs[i].dim);
        memcpy(in[i].data, r->inputs[i].data, tensor_bytes(in[i]));
    }
    for (int i = 0; i < r->weight_count; i++) {
        memset(r->weights[i].grad, 0, (size_t)weight_count(&r->weights[i]) * sizeof(double));
    }
    struct tensor y = run_network(&p, r, in), target = pass_tensor_like(&p, y);
    memset(target.data, 0, tensor_bytes(target));
    tape_backward(&p, op_mse(&p, y, target, (struct tensor){0}), 1);
    assert_int_equal(pass_finish(&p, NULL), 0);
    for (int i = 0; i < r->weight_count; i++) {
        size_t bytes = (size_t)weight_count(&r->weights[i]) * sizeof(double);
        out->grads[i] = alloc_zero(1, bytes);
        memcpy(out->grads[i], r->weights[i].grad, bytes);
    }
    out->peak = p.peak_bytes;
    tape_free(tape);
}

static void recomputing_changes_memory_and_nothing_else(void **state)
{
    struct rig r, *self;
    struct walk plain, saving;
    network(&r, &self);
    walk(&r, false, &plain);
    walk(&r, true, &saving);
    for (int i = 0; i < r.weight_count; i++) {
        assert_memory_equal(plain.grads[i], saving.grads[i],
                            (size_t)weight_count(&r.weights[i]) * sizeof(double));
        free(plain.grads[i]);
        free(saving.grads[i]);
    }
    print_message("peak %zu bytes, checkpointed %zu\n", plain.peak, saving.peak);
    assert_true(saving.peak < plain.peak * 3 / 4);
    rig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network_against_differences),
        cmocka_unit_test(recomputing_changes_memory_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
