#include "tests/gradients/rig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/plain/plain.h"

static uint64_t random_state;

static double uniform(void)
{
    if (!random_state) {
        const char *seed = getenv("KILN_TEST_SEED");
        random_state = seed ? strtoull(seed, NULL, 10) : 20261124;
        if (!random_state) random_state = 1;
        print_message("KILN_TEST_SEED=%llu\n", (unsigned long long)random_state);
    }
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(random_state >> 11) + 0.5) * 0x1p-53;
}

double rig_normal(void)
{
    double radius = sqrt(-2 * log(uniform()));
    return radius * cos(6.283185307179586 * uniform());
}

void rig_init(struct rig *r, const char *name, rig_function run, const void *context)
{
    memset(r, 0, sizeof(*r));
    r->name = name;
    r->run = run;
    r->context = context;
    r->tolerance = 1e-6;
    assert_int_equal(plain_device_open(&r->device, NULL), 0);
    pass_memory_init(&r->memory, r->device, 0);
}

void rig_release(struct rig *r)
{
    for (int i = 0; i < r->input_count; i++) free(r->inputs[i].data);
    for (int i = 0; i < r->weight_count; i++) {
        free((void *)r->weights[i].k.data);
        free(r->weights[i].grad);
    }
    pass_memory_release(&r->memory);
    r->device->close(r->device);
}

static double *normal_numbers(int rank, const int64_t *dim, double scale, double offset)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= dim[i];
    double *data = alloc_zero((size_t)count, sizeof(*data));
    for (int64_t i = 0; i < count; i++) data[i] = scale * rig_normal() + offset;
    return data;
}

int rig_input(struct rig *r, int rank, const int64_t *dim)
{
    struct rig_input *in = &r->inputs[r->input_count];
    in->rank = rank;
    memcpy(in->dim, dim, (size_t)rank * sizeof(dim[0]));
    in->data = normal_numbers(rank, dim, 1, 0);
    return r->input_count++;
}

int rig_weight(struct rig *r, int rank, const int64_t *dim, double scale, double offset)
{
    struct weight *w = &r->weights[r->weight_count];
    *w = (struct weight){.name = "w", .trainable = true};
    w->k = (struct kernel_weight){.dtype = DTYPE_F64, .rank = rank, .changes = true};
    memcpy(w->k.dim, dim, (size_t)rank * sizeof(dim[0]));
    w->k.data = normal_numbers(rank, dim, scale, offset);
    w->grad = alloc_zero((size_t)weight_count(w), sizeof(double));
    return r->weight_count++;
}

enum mode { TOUCHED_FIRST, HOLDING_VALUES, CHECKPOINTED, MODE_COUNT };
static const char *const mode_names[] = {"touched first", "holding values", "checkpointed"};

static struct tensor block(struct pass *p, const void *context, const struct tensor *in, int count)
{
    struct rig *r = *(struct rig *const *)context;
    return r->run(p, r, in);
}

static struct tensor input_tensor(struct pass *p, const struct rig_input *in)
{
    struct tensor t = pass_tensor(p, DTYPE_F64, in->rank, in->dim);
    if (t.data) memcpy(t.data, in->data, tensor_bytes(t));
    return t;
}

/* A smooth loss on y with different weights everywhere; the same numbers at every call. */
static struct tensor loss_of(struct pass *p, struct tensor y, double phase)
{
    struct tensor target = pass_tensor_like(p, y), weight = pass_tensor_like(p, y);
    for (int64_t i = 0; target.data && weight.data && i < tensor_count(y); i++) {
        dtype_set(target.data, DTYPE_F64, i, sin(phase + 1.7 * (double)i));
        dtype_set(weight.data, DTYPE_F64, i, 1.5 + cos(phase + 0.9 * (double)i));
    }
    return op_mse(p, y, target, weight);
}

struct result {
    double loss;
    double *y; /* the case's tensor, for the comparison with and without a tape */
    int64_t count;
    double *grads[RIG_MAX]; /* of inputs */
};

static void result_release(struct result *out)
{
    free(out->y);
    for (int i = 0; i < RIG_MAX; i++) free(out->grads[i]);
}

static void copy_grads(struct rig *r, struct pass *p, const struct tensor *in, struct result *out)
{
    for (int i = 0; i < r->input_count; i++) {
        if (r->inputs[i].fixed) continue;
        struct tensor grad = tape_gradient(p, in[i]);
        out->grads[i] = alloc_zero((size_t)tensor_count(in[i]), sizeof(double));
        if (grad.data) memcpy(out->grads[i], grad.data, tensor_bytes(grad));
    }
}

static void evaluate(struct rig *r, enum mode mode, struct tape *tape, struct result *out)
{
    struct pass p;
    struct tensor in[RIG_MAX];
    memset(out, 0, sizeof(*out));
    pass_start(&p, &r->memory, DTYPE_F64, tape);
    for (int i = 0; i < r->input_count; i++) {
        in[i] = input_tensor(&p, &r->inputs[i]);
        if (!r->inputs[i].fixed) tape_watch(&p, &in[i]);
    }
    struct tensor y = mode == CHECKPOINTED ? tape_checkpoint(&p, block, &r, in, r->input_count)
                                           : r->run(&p, r, in);
    struct tensor loss = loss_of(&p, y, 0.3);
    for (int i = 0; mode == HOLDING_VALUES && i < r->input_count; i++) {
        if (r->inputs[i].fixed) continue;
        loss = op_mix(&p, 1, loss, 0.4, loss_of(&p, in[i], i));
    }
    if (p.failed) fail_msg("%s: %s", r->name, p.error.text);
    out->loss = dtype_get(loss.data, DTYPE_F64, 0);
    out->count = tensor_count(y);
    out->y = alloc_zero((size_t)out->count, sizeof(double));
    memcpy(out->y, y.data, tensor_bytes(y));
    if (tape) {
        double kept = out->loss;
        tape_backward(&p, loss, 1);
        if (mode != HOLDING_VALUES && !p.failed) { /* a sum of losses is no op that is kept */
            assert_true(dtype_get(loss.data, DTYPE_F64, 0) == kept);
        }
        copy_grads(r, &p, in, out);
    }
    if (pass_finish(&p, NULL)) fail_msg("%s: %s", r->name, p.error.text);
    if (tape) tape_clear(tape);
    assert_int_equal(r->memory.used_bytes, 0);
    assert_int_equal(r->memory.block_bytes, 0);
}

static double loss_at(struct rig *r, enum mode mode)
{
    struct result out;
    evaluate(r, mode, NULL, &out);
    double loss = out.loss;
    result_release(&out);
    return loss;
}

static void compare(struct rig *r, enum mode mode, double *data, const double *grad, int64_t count,
                    const char *what, int index)
{
    double largest = 0, step = 1e-5;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(grad[i]));
    for (int64_t i = 0; i < count; i++) {
        /* Every element of small tensors, about forty of large ones. */
        if (count > 64 && i % (count / 40) != 0) continue;
        double old = data[i];
        data[i] = old + step;
        double above = loss_at(r, mode);
        data[i] = old - step;
        double below = loss_at(r, mode);
        data[i] = old;
        double slope = (above - below) / (2 * step);
        r->checked++;
        if (fabs(slope - grad[i]) <= r->tolerance * fmax(largest, 1e-4)) continue;
        fail_msg("%s (%s): %s %d element %lld: backward %.12g, differences %.12g", r->name,
                 mode_names[mode], what, index, (long long)i, grad[i], slope);
    }
}

void rig_check(struct rig *r)
{
    struct tape *tape = tape_new();
    for (enum mode mode = 0; mode < MODE_COUNT; mode++) {
        struct result without, with;
        for (int i = 0; i < r->weight_count; i++) {
            memset(r->weights[i].grad, 0, (size_t)weight_count(&r->weights[i]) * sizeof(double));
        }
        evaluate(r, mode, NULL, &without);
        evaluate(r, mode, tape, &with);
        assert_true(without.loss == with.loss);
        assert_memory_equal(without.y, with.y, (size_t)with.count * sizeof(double));
        for (int i = 0; i < r->input_count; i++) {
            if (r->inputs[i].fixed) continue;
            int64_t count = 1;
            for (int j = 0; j < r->inputs[i].rank; j++) count *= r->inputs[i].dim[j];
            compare(r, mode, r->inputs[i].data, with.grads[i], count, "input", i);
        }
        for (int i = 0; i < r->weight_count; i++) {
            struct weight *w = &r->weights[i];
            if (!w->trainable) continue;
            compare(r, mode, (double *)w->k.data, w->grad, weight_count(w), "weight", i);
        }
        result_release(&without);
        result_release(&with);
    }
    tape_free(tape);
}
