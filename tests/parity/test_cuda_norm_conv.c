/* A convolution of a normalised picture in bands of lines: the CUDA kernels in the emulator against plain
 * loops, and every bit as the norm and the convolution one after the other. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;

struct banded {
    int64_t n, h, w, c, out, groups;
    bool circular, add, over; /* over: what is added is y */
    enum activation act, after;
    int lines;  /* that the room holds; 0: as few as there can be */
    int splits; /* forced */
    bool wgmma; /* forced where it is */
};

struct operands {
    struct operand *x, *gamma, *beta, *w, *bias, *row, *add, *middle, *y;
};

static struct operands operands_of(const struct banded *c, enum dtype dtype)
{
    const int64_t out = c->n * c->h * c->w * c->out, in = c->n * c->h * c->w * c->c;
    struct operands o = {
        .x = cuda_parity_random(&p, dtype, in, 1),
        .gamma = cuda_parity_random(&p, dtype, c->c, 1),
        .beta = cuda_parity_random(&p, dtype, c->c, 1),
        .w = cuda_parity_random(&p, dtype, c->out * c->c * 9, 0.1),
        .bias = cuda_parity_random(&p, dtype, c->out, 1),
        .row = c->add ? cuda_parity_random(&p, dtype, c->n * c->out, 1) : NULL,
        .add = c->add && !c->over ? cuda_parity_random(&p, dtype, out, 1) : NULL,
        .middle = cuda_parity_result(&p, dtype, in),
    };
    o.y = c->over ? cuda_parity_random(&p, dtype, out, 1) : cuda_parity_result(&p, dtype, out);
    return o;
}

static struct norm_conv2d_args args_of(const struct banded *c, const struct operands *o,
                                       enum side side)
{
    const int64_t dim[4] = {c->out, c->c, 3, 3};
    struct norm_conv2d_args a = {.gamma = AT(o->gamma),
                                 .beta = AT(o->beta),
                                 .weight_dtype = cuda_parity_dtype(o->gamma, side),
                                 .groups = c->groups,
                                 .eps = 1e-6,
                                 .act = c->act};
    a.conv = (struct conv2d_args){.y = AT(o->y),
                                  .x = AT(o->x),
                                  .w = cuda_parity_weight(&p, o->w, side, 4, dim),
                                  .n = c->n,
                                  .h = c->h,
                                  .w_px = c->w,
                                  .c = c->c,
                                  .oh = c->h,
                                  .ow = c->w,
                                  .out = c->out,
                                  .kh = 3,
                                  .kw = 3,
                                  .stride = 1,
                                  .pad_top = 1,
                                  .pad_left = 1,
                                  .upsample = 1,
                                  .circular = c->circular,
                                  .dtype = cuda_parity_dtype(o->y, side)};
    a.conv.epilogue = (struct epilogue_args){.bias = AT(o->bias),
                                             .bias_dtype = cuda_parity_dtype(o->bias, side),
                                             .row = AT(o->row),
                                             .rows_per_image = c->h * c->w,
                                             .act = c->after,
                                             .add = c->over ? AT(o->y) : AT(o->add)};
    return a;
}

static void one_after_the_other(const struct norm_conv2d_args *a, void *middle, enum side side)
{
    struct error err = {0};
    struct group_norm_args norm = {.y = middle,
                                   .x = a->conv.x,
                                   .gamma = a->gamma,
                                   .beta = a->beta,
                                   .n = a->conv.n,
                                   .rows = a->conv.h * a->conv.w_px,
                                   .c = a->conv.c,
                                   .groups = a->groups,
                                   .eps = a->eps,
                                   .act = a->act,
                                   .dtype = a->conv.dtype,
                                   .weight_dtype = a->weight_dtype};
    struct conv2d_args conv = a->conv;
    conv.x = middle;
    assert_int_equal(p.kernels[side]->group_norm(p.device[side], &norm, &err), 0);
    assert_int_equal(p.kernels[side]->conv2d(p.device[side], &conv, &err), 0);
}

static void *bytes_of(const struct operand *o)
{
    struct error err;
    const size_t bytes = (size_t)o->count * dtype_bytes(o->dtype);
    void *copy = alloc_zero(bytes, 1);
    assert_int_equal(
        p.kernels[SIDE_CUDA]->download(p.device[SIDE_CUDA], copy, o->data[SIDE_CUDA], bytes, &err),
        0);
    return copy;
}

/* The room is all that the call may take: the emulator guards what lies beside it. */
static void banded_call(struct norm_conv2d_args *a, int lines)
{
    struct error err = {0};
    struct device *d = p.device[SIDE_CUDA];
    const size_t line = (size_t)(a->conv.w_px * a->conv.c) * dtype_bytes(a->conv.dtype);
    a->room_bytes = norm_conv2d_room(a, (size_t)lines * line);
    assert_int_equal(d->kernels->alloc(d, &a->room, a->room_bytes, &err), 0);
    int rc = d->kernels->norm_conv2d(d, a, &err);
    if (rc) fail_msg("%s: %s", p.label, err.text);
    cuda_parity_finish(&p);
    d->kernels->free(d, a->room);
}

static void check(const struct banded *c, enum dtype dtype)
{
    struct error err = {0};
    struct device *d = p.device[SIDE_CUDA];
    cuda_parity_case(&p, "norm_conv2d n %d %d x %d x %d -> %d circular %d lines %d splits %d %s",
                     (int)c->n, (int)c->h, (int)c->w, (int)c->c, (int)c->out, c->circular, c->lines,
                     c->splits, dtype_name(dtype));
    struct operands o = operands_of(c, dtype);
    const bool wgmma = c->wgmma && cuda_state(d)->wgmma && dtype != DTYPE_F32;
    const uint64_t multiplied = emulator_count().wgmma;
    cuda_state(d)->forced_splits = c->splits;
    cuda_state(d)->forced_tile = wgmma ? GEMM_WGMMA_128X128 : -1;
    for (enum side side = 0; side < SIDE_CUDA; side++) {
        struct norm_conv2d_args a = args_of(c, &o, side);
        one_after_the_other(&a, AT(o.middle), side);
    }
    struct norm_conv2d_args a = args_of(c, &o, SIDE_CUDA);
    const size_t bytes = (size_t)o.y->count * dtype_bytes(dtype);
    void *before = bytes_of(o.y), *pair, *bands;
    one_after_the_other(&a, o.middle->data[SIDE_CUDA], SIDE_CUDA);
    pair = bytes_of(o.y);
    assert_int_equal(d->kernels->upload(d, o.y->data[SIDE_CUDA], before, bytes, &err), 0);
    banded_call(&a, c->lines);
    bands = bytes_of(o.y);
    cuda_state(d)->forced_splits = 0;
    cuda_state(d)->forced_tile = -1;
    assert_true(!wgmma || emulator_count().wgmma > multiplied);
    if (memcmp(pair, bands, bytes) != 0)
        fail_msg("%s: other bits than one after the other", p.label);
    cuda_parity_compare(&p, o.y, "y");
    free(before);
    free(pair);
    free(bands);
}

static void in_bands(void **state)
{
    static const struct banded cases[] = {
        {2, 13, 6, 32, 40, 8, false, true, true, ACT_SILU, ACT_NONE, 0, 0},
        {2, 13, 6, 32, 40, 8, true, false, false, ACT_NONE, ACT_SILU, 5, 0},
        {1, 30, 5, 64, 3, 32, false, false, false, ACT_SILU, ACT_NONE, 9, 0},
        {1, 9, 4, 6, 17, 3, true, true, false, ACT_SILU, ACT_NONE, 4, 0}, /* no tensor cores */
        {1, 2, 3, 8, 8, 2, true, false, false, ACT_SILU, ACT_NONE, 0, 0},
        {1, 1, 1, 8, 8, 2, false, true, false, ACT_SILU, ACT_NONE, 0, 0},
        {3, 1, 5, 16, 9, 4, false, true, false, ACT_SILU, ACT_NONE, 0, 0},
        {2, 7, 31, 40, 33, 8, false, true, true, ACT_SILU, ACT_NONE, 8,
         0}, /* a picture at a time */
        {2, 7, 11, 40, 33, 8, true, true, false, ACT_SILU, ACT_SILU, 14, 0}, /* all at once */
        {1, 19, 17, 128, 24, 32, false, true, true, ACT_SILU, ACT_NONE, 6, 2},
        {2, 19, 17, 64, 24, 32, false, true, true, ACT_SILU, ACT_NONE, 6, 0, true},
    };
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t k = 0; k < COUNT_OF(dtypes); k++) check(&cases[i], dtypes[k]);
}

/* Bands can be kept in a recording, and read what its inputs hold when it is replayed. */
static void recorded(void **state)
{
    static const struct banded c = {1,     13,    6,        32,       40, 8, false,
                                    false, false, ACT_SILU, ACT_NONE, 5,  0};
    struct error err = {0};
    void *recording = NULL;
    struct device *d = p.device[SIDE_CUDA];
    cuda_parity_case(&p, "norm_conv2d in a recording");
    struct operands o = operands_of(&c, DTYPE_F16);
    struct norm_conv2d_args a = args_of(&c, &o, SIDE_CUDA);
    const size_t bytes = (size_t)o.y->count * 2, in = (size_t)o.x->count * 2;
    void *first = bytes_of(o.x), *wanted, *got;
    a.room_bytes = norm_conv2d_room(&a, 5 * 6 * 32 * 2);
    assert_int_equal(d->kernels->alloc(d, &a.room, a.room_bytes, &err), 0);
    assert_int_equal(d->kernels->norm_conv2d(d, &a, &err), 0); /* packs */
    wanted = bytes_of(o.y);
    assert_int_equal(d->kernels->zero(d, o.x->data[SIDE_CUDA], in, &err), 0);
    assert_int_equal(d->kernels->zero(d, o.y->data[SIDE_CUDA], bytes, &err), 0);
    assert_int_equal(d->recorder->begin(d, &err), 0);
    assert_int_equal(d->kernels->norm_conv2d(d, &a, &err), 0);
    assert_int_equal(d->recorder->end(d, &recording, &err), 0);
    assert_int_equal(d->kernels->upload(d, o.x->data[SIDE_CUDA], first, in, &err), 0);
    assert_int_equal(d->recorder->replay(d, recording, &err), 0);
    got = bytes_of(o.y);
    assert_memory_equal(wanted, got, bytes);
    cuda_parity_finish(&p);
    d->recorder->free(d, recording);
    d->kernels->free(d, a.room);
    free(first);
    free(wanted);
    free(got);
}

static void refuses(void **state)
{
    struct banded c = {1, 9, 6, 32, 8, 8, false, false, false, ACT_SILU, ACT_NONE, 0, 0};
    struct error err = {0};
    struct device *d = p.device[SIDE_CUDA];
    cuda_parity_case(&p, "norm_conv2d that is refused");
    struct operands o = operands_of(&c, DTYPE_F16);
    struct norm_conv2d_args a = args_of(&c, &o, SIDE_CUDA), b = a;
    assert_int_equal(d->kernels->norm_conv2d(d, &b, &err), ERR_INTERNAL); /* no room */
    b.room = o.middle->data[SIDE_CUDA];
    b.room_bytes = norm_conv2d_room(&b, 0) - 1;
    assert_int_equal(d->kernels->norm_conv2d(d, &b, &err), ERR_INTERNAL);
    b.room_bytes++;
    b.conv.stride = 2;
    assert_int_equal(d->kernels->norm_conv2d(d, &b, &err), ERR_UNSUPPORTED);
    b.conv.stride = 1;
    b.conv.pad_top = 0;
    assert_int_equal(d->kernels->norm_conv2d(d, &b, &err), ERR_UNSUPPORTED);
    cuda_parity_finish(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_bands), cmocka_unit_test(recorded),
                                       cmocka_unit_test(refuses)};
    static const struct emulator_options runs[] = {
        {.target = 80, .seed = 0, .check_races = true, .check_global = true},
        {.target = 75, .seed = 11, .check_races = true, .check_global = true},
        {.target = 90, .seed = 12, .check_races = true, .check_global = true},
    };
    return cuda_parity_main_on(runs, COUNT_OF(runs), "cuda_norm_conv", tests, COUNT_OF(tests), &p);
}
