/*
 * tiny_net.h - a network of a dozen ops for tests of passes and tapes: convolutions with all fusions,
 * norms, attention, GEGLU, a skip and an embedding, in F32 weights from a fixed generator.
 */
#ifndef TESTS_SUPPORT_TINY_NET_H
#define TESTS_SUPPORT_TINY_NET_H

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

enum { TINY_N = 2, TINY_H = 4, TINY_W = 4, TINY_C = 8, TINY_CONTEXT = 3, TINY_TIME = 5 };

enum tiny_weight {
    TINY_NORM_G,
    TINY_NORM_B,
    TINY_CONV_W,
    TINY_CONV_B,
    TINY_TIME_W,
    TINY_OUT_W,
    TINY_OUT_B,
    TINY_LN_G,
    TINY_Q,
    TINY_K,
    TINY_V,
    TINY_O,
    TINY_UP,
    TINY_DOWN,
    TINY_TABLE,
    TINY_SKIP,
    TINY_WEIGHTS
};

struct tiny_net {
    struct weight w[TINY_WEIGHTS];
    float *x, *time, *target;
};

static inline float tiny_number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int64_t)*state * 0x1p-63);
}

static inline float *tiny_numbers(uint64_t *state, int64_t count, float scale, float offset)
{
    float *data = alloc_zero((size_t)count, sizeof(*data));
    for (int64_t i = 0; i < count; i++) data[i] = scale * tiny_number(state) + offset;
    return data;
}

static inline void tiny_init(struct tiny_net *net, bool trains)
{
    static const struct {
        int rank;
        int64_t dim[4];
        float offset;
    } shapes[TINY_WEIGHTS] = {
        [TINY_NORM_G] = {1, {TINY_C}, 1},
        [TINY_NORM_B] = {1, {TINY_C}, 0},
        [TINY_CONV_W] = {4, {TINY_C, TINY_C, 3, 3}, 0},
        [TINY_CONV_B] = {1, {TINY_C}, 0},
        [TINY_TIME_W] = {2, {TINY_C, TINY_TIME}, 0},
        [TINY_OUT_W] = {4, {TINY_C, TINY_C, 3, 3}, 0},
        [TINY_OUT_B] = {1, {TINY_C}, 0},
        [TINY_LN_G] = {1, {TINY_C}, 1},
        [TINY_Q] = {2, {TINY_C, TINY_C}, 0},
        [TINY_K] = {2, {TINY_C, TINY_C}, 0},
        [TINY_V] = {2, {TINY_C, TINY_C}, 0},
        [TINY_O] = {2, {TINY_C, TINY_C}, 0},
        [TINY_UP] = {2, {16, TINY_C}, 0},
        [TINY_DOWN] = {2, {TINY_C, 8}, 0},
        [TINY_TABLE] = {2, {7, TINY_C}, 0},
        [TINY_SKIP] = {4, {TINY_C, 2 * TINY_C, 1, 1}, 0},
    };
    uint64_t state = 7;
    memset(net, 0, sizeof(*net));
    for (int i = 0; i < TINY_WEIGHTS; i++) {
        struct weight *w = &net->w[i];
        w->name = "tiny";
        w->trainable = trains;
        w->k.dtype = DTYPE_F32;
        w->k.rank = shapes[i].rank;
        w->k.changes = trains;
        memcpy(w->k.dim, shapes[i].dim, sizeof(w->k.dim));
        w->k.data = tiny_numbers(&state, weight_count(w), 0.4f, shapes[i].offset);
        if (trains) w->grad = alloc_zero((size_t)weight_count(w), sizeof(float));
    }
    int64_t count = TINY_N * TINY_H * TINY_W * TINY_C;
    net->x = tiny_numbers(&state, count, 1, 0);
    net->target = tiny_numbers(&state, count, 1, 0);
    net->time = tiny_numbers(&state, TINY_N * TINY_TIME, 1, 0);
}

static inline void tiny_release(struct tiny_net *net, struct device *d)
{
    for (int i = 0; i < TINY_WEIGHTS; i++) {
        weight_release(&net->w[i], d);
        free((void *)net->w[i].k.data);
        free(net->w[i].grad);
    }
    free(net->x);
    free(net->time);
    free(net->target);
}

/* in: x, time */
static inline struct tensor tiny_resblock(struct pass *p, const void *context,
                                          const struct tensor *in, int count)
{
    struct weight *w = ((struct tiny_net *)(uintptr_t)context)->w;
    struct tensor y = pass_tensor_like(p, in[0]);
    size_t mark = pass_open_scope(p);
    struct tensor t = op_linear(p, op_activation(p, in[1], ACT_SILU), &w[TINY_TIME_W], NULL, NULL);
    struct tensor h = op_group_norm(p, in[0], &w[TINY_NORM_G], &w[TINY_NORM_B], 2, 1e-5, ACT_SILU);
    struct fuse rows = {.row = t, .act = ACT_SILU};
    h = op_conv2d(p, h, &w[TINY_CONV_W], &w[TINY_CONV_B], conv_same(3), &rows);
    struct fuse skip = {.add = in[0]};
    op_conv2d_into(p, &y, h, &w[TINY_OUT_W], &w[TINY_OUT_B], conv_same(3), &skip);
    pass_close_scope(p, mark);
    return y;
}

/* in: x, context */
static inline struct tensor tiny_transformer(struct pass *p, const void *context,
                                             const struct tensor *in, int count)
{
    struct weight *w = ((struct tiny_net *)(uintptr_t)context)->w;
    struct tensor x = tensor_view_3d(in[0], TINY_N, TINY_H * TINY_W, TINY_C);
    struct tensor y = pass_tensor_like(p, x);
    size_t mark = pass_open_scope(p);
    struct tensor h = op_layer_norm(p, x, &w[TINY_LN_G], NULL, 1e-5);
    struct tensor q = op_linear(p, h, &w[TINY_Q], NULL, NULL);
    struct tensor k = op_linear(p, in[1], &w[TINY_K], NULL, NULL);
    struct tensor v = op_linear(p, in[1], &w[TINY_V], NULL, NULL);
    struct fuse add = {.add = x};
    h = op_linear(p, op_attention(p, q, k, v, 2, false), &w[TINY_O], NULL, &add);
    struct tensor up = op_geglu(p, op_linear(p, h, &w[TINY_UP], NULL, NULL));
    add.add = h;
    op_linear_into(p, &y, up, &w[TINY_DOWN], NULL, &add);
    pass_close_scope(p, mark);
    return tensor_view_4d(y, TINY_N, TINY_H, TINY_W, TINY_C);
}

static inline struct tensor tiny_forward(struct pass *p, struct tiny_net *net)
{
    static const int32_t id[TINY_N * TINY_CONTEXT] = {0, 6, 2, 3, 3, 5};
    struct tensor x = pass_input(p, net->x, 4, TENSOR_DIM(TINY_N, TINY_H, TINY_W, TINY_C));
    struct tensor time = pass_input(p, net->time, 2, TENSOR_DIM(TINY_N, TINY_TIME));
    struct tensor context = op_embedding(p, &net->w[TINY_TABLE], id, TINY_N, TINY_CONTEXT);
    struct tensor a = tape_checkpoint(p, tiny_resblock, net, (struct tensor[]){x, time}, 2);
    struct tensor b = tape_checkpoint(p, tiny_transformer, net, (struct tensor[]){a, context}, 2);
    return op_conv2d(p, op_concat(p, b, a), &net->w[TINY_SKIP], NULL, conv_same(1), NULL);
}

static inline struct tensor tiny_loss(struct pass *p, struct tiny_net *net, struct tensor y)
{
    struct tensor target = pass_input(p, net->target, y.rank, y.dim);
    return op_mse(p, y, target, (struct tensor){0});
}

#endif
