/* The products and the attention of compute capability 9.0 (wgmma, bulk copies) in the emulator against plain loops: every
 * tile, every epilogue, odd and even tails, rings that turn, blocks that take several tiles. */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/selftest_wgmma.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;
static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};

static void force(int tile, int splits)
{
    struct cuda_state *s = cuda_state(p.device[SIDE_CUDA]);
    s->forced_tile = tile;
    s->forced_splits = splits;
    emulator_count_reset();
}

/* The products since `force` ran as they should have, or on mma.sync. */
static void expect_wgmma(bool wanted)
{
    struct emulator_counts n = emulator_count();
    if ((n.wgmma > 0) != wanted || (n.mma > 0) == wanted)
        fail_msg("%s: %llu wgmma, %llu mma", p.label, (unsigned long long)n.wgmma,
                 (unsigned long long)n.mma);
}

struct linear_case {
    int64_t m, k, out, pad_x, pad_y, rows_per_image;
    bool bias, row, add, geglu;
    enum activation act;
};

static void run_linear(enum dtype dtype, struct linear_case c)
{
    int64_t ldx = c.k + c.pad_x, wide = c.geglu ? c.out / 2 : c.out, ldy = wide + c.pad_y;
    int64_t images = c.rows_per_image ? (c.m + c.rows_per_image - 1) / c.rows_per_image : 0;
    struct operand *x = cuda_parity_random(&p, dtype, c.m * ldx, 1);
    struct operand *w = cuda_parity_random(&p, dtype, c.out * c.k, 0.2);
    struct operand *bias = c.bias ? cuda_parity_random(&p, DTYPE_F32, c.out, 1) : NULL;
    struct operand *row = c.row ? cuda_parity_random(&p, dtype, images * c.out, 1) : NULL;
    struct operand *y = cuda_parity_constant(&p, dtype, c.m * ldy, 0.5); /* also what `add` reads */
#define LINEAR                                                                                     \
    {                                                                                              \
        .y = AT(y), .x = AT(x), .w = cuda_parity_weight(&p, w, side, 2, (int64_t[]){c.out, c.k}),  \
        .m = c.m, .k = c.k, .out = c.out, .ldx = ldx, .ldy = ldy,                                  \
        .dtype = cuda_parity_dtype(y, side),                                                       \
        .epilogue = {.bias = AT(bias),                                                             \
                     .bias_dtype = cuda_parity_dtype(bias, side),                                  \
                     .row = AT(row),                                                               \
                     .rows_per_image = c.rows_per_image,                                           \
                     .act = c.act,                                                                 \
                     .add = c.add ? AT(y) : NULL},                                                 \
    }
    if (c.geglu) {
        CUDA_RUN(&p, linear_geglu, linear_args, LINEAR);
    } else {
        CUDA_RUN(&p, linear, linear_args, LINEAR);
    }
#undef LINEAR
    cuda_parity_compare(&p, y, "y");
}

/* one row and eight columns more than a tile, K with a tail of a slice, everything in the epilogue */
static void each_tile(void **state)
{
    for (int tile = GEMM_FIRST_WGMMA; tile < GEMM_TILE_COUNT; tile++) {
        struct gemm_tile_shape s = gemm_tile_shape(tile, 0);
        assert_true(s.wgmma && (size_t)s.shared_bytes <= emulator_shared_limit(90));
        for (int i = 0; i < 2; i++) {
            for (int splits = 1; splits <= 4; splits += 3) {
                force(tile, splits);
                cuda_parity_case(&p, "linear, wgmma tile %dx%d, %s, %d splits", s.m, s.n,
                                 dtype_name(dtypes[i]), splits);
                run_linear(dtypes[i], (struct linear_case){.m = s.m + 1,
                                                           .k = 232,
                                                           .out = s.n + 8,
                                                           .rows_per_image = 50,
                                                           .bias = true,
                                                           .row = true,
                                                           .add = true,
                                                           .act = ACT_SILU});
                expect_wgmma(true);
            }
        }
        force(tile, 1);
        cuda_parity_case(&p, "linear, wgmma tile %dx%d exactly", s.m, s.n);
        run_linear(DTYPE_F16, (struct linear_case){.m = s.m, .k = 64, .out = s.n});
        cuda_parity_case(&p, "linear with GEGLU, wgmma tile %dx%d", s.m, s.n);
        run_linear(dtypes[tile % 2],
                   (struct linear_case){.m = 70, .k = 72, .out = 336, .bias = true, .geglu = true});
        expect_wgmma(true);
    }
    force(-1, 0);
}

/* every activation; odd and pitched results, one row, one column, K of less than a slice */
static void shapes(void **state)
{
    static const struct linear_case cases[] = {
        {.m = 1, .k = 8, .out = 1, .bias = true},
        {.m = 77, .k = 40, .out = 13, .pad_x = 8, .pad_y = 3, .bias = true, .add = true},
        {.m = 131, .k = 968, .out = 161}, /* 16 slices: the ring turns several times */
        {.m = 65, .k = 64, .out = 40, .rows_per_image = 13, .row = true},
    };
    force(GEMM_WGMMA_128X160, 1);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (int t = 0; t < 2; t++) {
            cuda_parity_case(&p, "linear case %zu, wgmma, %s", i, dtype_name(dtypes[t]));
            run_linear(dtypes[t], cases[i]);
        }
    }
    for (enum activation act = 0; act < ACT_COUNT; act++) {
        cuda_parity_case(&p, "linear, wgmma, activation %d", (int)act);
        run_linear(DTYPE_F16,
                   (struct linear_case){.m = 20, .k = 32, .out = 24, .bias = true, .act = act});
    }
    expect_wgmma(true);
    force(-1, 0);
}

/* More tiles than the emulated card's four multiprocessors: each block takes several in turn, and the
 * ring goes on from one to the next in the middle. */
static void tiles_in_turn(void **state)
{
    for (int splits = 1; splits <= 2; splits++) {
        cuda_parity_case(&p, "nine wgmma tiles, %d splits", splits);
        force(GEMM_WGMMA_128X128, splits);
        run_linear(DTYPE_F16, (struct linear_case){.m = 300, .k = 328, .out = 260, .bias = true});
        assert_int_equal(emulator_count().tensor_loads, 9 * 6 * 2); /* splits share the slices */
        expect_wgmma(true);
    }
    cuda_parity_case(&p, "one slice and two splits: the second has none");
    force(GEMM_WGMMA_128X160, 2);
    run_linear(DTYPE_F16, (struct linear_case){.m = 20, .k = 64, .out = 40, .bias = true});
    expect_wgmma(true);
    force(-1, 0);
}

struct conv_case {
    int64_t n, h, w, c, out;
    int kernel, stride, pad, upsample, pad_end; /* pad_end: below and right */
    bool circular, epilogue, simple;            /* simple: no wgmma can do it */
};

static void run_conv(enum dtype dtype, struct conv_case c)
{
    int up = c.upsample ? c.upsample : 1;
    int64_t oh = (c.h * up + c.pad + c.pad_end - c.kernel) / c.stride + 1;
    int64_t ow = (c.w * up + c.pad + c.pad_end - c.kernel) / c.stride + 1;
    if (c.circular) oh = c.h * up / c.stride, ow = c.w * up / c.stride;
    struct operand *x = cuda_parity_random(&p, dtype, c.n * c.h * c.w * c.c, 1);
    struct operand *w = cuda_parity_random(&p, dtype, c.out * c.c * c.kernel * c.kernel, 0.1);
    struct operand *bias = cuda_parity_random(&p, dtype, c.out, 1);
    struct operand *row = c.epilogue ? cuda_parity_random(&p, dtype, c.n * c.out, 1) : NULL;
    struct operand *add =
        c.epilogue ? cuda_parity_random(&p, dtype, c.n * oh * ow * c.out, 1) : NULL;
    struct operand *y = cuda_parity_result(&p, dtype, c.n * oh * ow * c.out);
    int64_t dim[4] = {c.out, c.c, c.kernel, c.kernel};
    CUDA_RUN(&p, conv2d, conv2d_args,
             {.y = AT(y),
              .x = AT(x),
              .w = cuda_parity_weight(&p, w, side, 4, dim),
              .n = c.n,
              .h = c.h,
              .w_px = c.w,
              .c = c.c,
              .oh = oh,
              .ow = ow,
              .out = c.out,
              .kh = c.kernel,
              .kw = c.kernel,
              .stride = c.stride,
              .pad_top = c.pad,
              .pad_left = c.pad,
              .upsample = up,
              .circular = c.circular,
              .dtype = cuda_parity_dtype(y, side),
              .epilogue = {.bias = AT(bias),
                           .bias_dtype = cuda_parity_dtype(bias, side),
                           .row = AT(row),
                           .rows_per_image = oh * ow,
                           .act = c.epilogue ? ACT_SILU : ACT_NONE,
                           .add = AT(add)}});
    cuda_parity_compare(&p, y, "y");
    expect_wgmma(!c.simple);
}

static void convolutions(void **state)
{
    static const struct conv_case cases[] = {
        /* n, h, w, c, out, kernel, stride, pad, upsample, pad_end */
        {2, 8, 8, 64, 40, 3, 1, 1, 1, 1, .epilogue = true},
        {1, 7, 9, 40, 88, 3, 1, 1, 1, 1},
        {3, 10, 11, 8, 24, 3, 1, 1, 1, 1, .epilogue = true}, /* two tiles, one across pictures */
        {2, 9, 5, 72, 24, 3, 2, 1, 1, 1, .epilogue = true},
        {2, 8, 6, 24, 16, 3, 2, 1, 1, 1},
        {1, 9, 8, 16, 16, 3, 2, 0, 1, 1}, /* the VAE's: padded below and right only */
        {1, 40, 37, 8, 8, 3, 2, 1, 1, 1}, /* tiles that begin within a line */
        {2, 5, 4, 16, 24, 3, 1, 1, 2, 1, .epilogue = true},
        {1, 13, 11, 72, 168, 3, 1, 1, 2, 1},
        {1, 6, 6, 8, 8, 1, 1, 0, 1, 0, .epilogue = true},
        {2, 7, 5, 136, 16, 1, 1, 0, 1, 0},
        {2, 7, 5, 16, 16, 1, 2, 0, 1, 0},
        {1, 12, 8, 16, 16, 4, 4, 0, 1, 0},
        {1, 8, 8, 16, 16, 5, 1, 2, 1, 2},
        {1, 300, 2, 8, 8, 3, 1, 1, 1, 1},
        {2, 6, 4, 8, 16, 3, 1, 1, 1, 1, .circular = true, .simple = true},
    };
    for (int i = 0; i < 2; i++) {
        for (size_t j = 0; j < COUNT_OF(cases); j++) {
            cuda_parity_case(&p, "conv2d case %zu, wgmma, %s", j, dtype_name(dtypes[i]));
            const struct conv_case *c = &cases[j];
            int splits = j % 3 == 2 && c->kernel * c->kernel * c->c >= 128 ? 2 : 1;
            force(j % 2 ? GEMM_WGMMA_128X160 : GEMM_WGMMA_256X128, splits);
            run_conv(dtypes[i], *c);
        }
    }
    force(-1, 0);
}

/* The planned amount of work, and the cost model's own choice for a large product. */
static void counts(void **state)
{
    cuda_parity_case(&p, "counts");
    force(GEMM_WGMMA_256X160, 1);
    run_linear(DTYPE_F16, (struct linear_case){.m = 256, .k = 320, .out = 320});
    struct emulator_counts n = emulator_count();
    assert_int_equal(n.wgmma, 256 * 320 * 320 / (64 * 160 * 16));
    assert_int_equal(n.tensor_loads, 2 * 5 * 2); /* two tiles, five slices, A and B */
    assert_int_equal(n.async_bytes, (2 * 256 + 2 * 160) * 320 * 2);
    assert_int_equal(n.matrix_loads, 0);
    cuda_parity_case(&p, "chosen by the cost model");
    force(-1, 0);
    run_linear(DTYPE_F16, (struct linear_case){.m = 512, .k = 128, .out = 320});
    expect_wgmma(true);
}

/* ---- attention ---- */

struct attention_case {
    int64_t n, heads, lq, lk, d;
    int64_t pad; /* elements between the rows of q, k, v, as in a fused QKV */
    bool causal;
};

static void run_attention(enum dtype dtype, struct attention_case c)
{
    int64_t width = c.heads * c.d, ld = width + c.pad;
    cuda_parity_case(&p, "attention by wgmma n %d heads %d lq %d lk %d d %d%s %s", (int)c.n,
                     (int)c.heads, (int)c.lq, (int)c.lk, (int)c.d, c.causal ? " causal" : "",
                     dtype_name(dtype));
    emulator_count_reset();
    struct operand *q = cuda_parity_random(&p, dtype, c.n * c.lq * ld, 1);
    struct operand *k = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    struct operand *v = cuda_parity_random(&p, dtype, c.n * c.lk * ld, 1);
    struct operand *y = cuda_parity_result(&p, dtype, c.n * c.lq * width);
    struct operand *lse = cuda_parity_result(&p, DTYPE_F32, c.n * c.heads * c.lq);
    CUDA_RUN(&p, attention, attention_args,
             {.y = AT(y),
              .q = AT(q),
              .k = AT(k),
              .v = AT(v),
              .lse = AT(lse),
              .n = c.n,
              .heads = c.heads,
              .lq = c.lq,
              .lk = c.lk,
              .d = c.d,
              .ldq = ld,
              .ldk = ld,
              .ldv = ld,
              .ldy = width,
              .scale = 1 / sqrt((double)c.d),
              .causal = c.causal,
              .dtype = cuda_parity_dtype(y, side)});
    cuda_parity_compare(&p, y, "y");
    cuda_parity_compare_absolute(&p, lse, "log-sum-exp", 1e-5);
    expect_wgmma(true);
}

static void attention(void **state)
{
    static const struct attention_case cases[] = {
        {1, 2, 128, 128, 64, 0, false},   {2, 2, 129, 300, 64, 64, false},
        {1, 1, 200, 77, 64, 0, false},    {1, 1, 64, 80, 64, 0, false},
        {1, 2, 65, 81, 64, 0, false},     {1, 1, 70, 1, 64, 0, false},
        {1, 1, 300, 300, 64, 0, true},    {2, 2, 77, 77, 64, 128, true},
        {1, 3, 100, 130, 56, 0, false},   {1, 1, 130, 257, 128, 0, false},
        {1, 2, 140, 140, 128, 384, true}, {2, 1, 64, 77, 128, 0, false},
        {1, 2, 66, 700, 104, 0, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (int t = 0; t < 2; t++) run_attention(dtypes[t], cases[i]);
}

static void turned_off(void **state)
{
    struct cuda_state *s = cuda_state(p.device[SIDE_CUDA]);
    struct error err;
    setenv("KILN_CUDA_WGMMA", "0", 1);
    assert_int_equal(cuda_wgmma_open(p.device[SIDE_CUDA], &err), 0);
    assert_false(s->wgmma);
    cuda_parity_case(&p, "wgmma turned off");
    force(GEMM_WGMMA_128X160, 1); /* another tile does it */
    run_linear(DTYPE_F16, (struct linear_case){.m = 70, .k = 64, .out = 40});
    expect_wgmma(false);
    unsetenv("KILN_CUDA_WGMMA");
    assert_int_equal(cuda_wgmma_open(p.device[SIDE_CUDA], &err), 0);
    assert_true(s->wgmma);
    force(-1, 0);
}

/* The self-test at open names every word that is not what it should be. */
static void selftest_notices(void **state)
{
    struct device *d = p.device[SIDE_CUDA];
    struct error err;
    uint16_t input[SELFTEST_ROWS * SELFTEST_C];
    static uint32_t output[SELFTEST_WGMMA_WORDS];
    void *memory, *out;
    struct selftest_wgmma_params params;
    assert_int_equal(d->kernels->alloc(d, &memory, sizeof input, &err), 0);
    assert_int_equal(d->kernels->alloc(d, &out, sizeof output, &err), 0);
    for (int i = 0; i < 2; i++) {
        selftest_wgmma_input(input, dtypes[i]);
        assert_int_equal(d->kernels->upload(d, memory, input, sizeof input, &err), 0);
        assert_int_equal(selftest_wgmma_maps(&params, memory), 0);
        params.output = out;
        assert_int_equal(selftest_wgmma_run(&params, dtypes[i], NULL), 0);
        cuda_parity_finish(&p);
        assert_int_equal(d->kernels->download(d, output, out, sizeof output, &err), 0);
        assert_null(selftest_wgmma_check(output, dtypes[i]));
        for (int word = SELFTEST_PRODUCT; word < SELFTEST_WGMMA_WORDS; word += 97) {
            output[word] ^= 0x40004000;
            assert_non_null(selftest_wgmma_check(output, dtypes[i]));
            output[word] ^= 0x40004000;
        }
        output[SELFTEST_BUILT] = 0;
        assert_string_equal(selftest_wgmma_check(output, dtypes[i]), "");
    }
    d->kernels->free(d, memory);
    d->kernels->free(d, out);
}

int main(void)
{
    static const struct emulator_options runs[] = {
        {.target = 90, .seed = 0, .check_races = true, .check_global = true},
        {.target = 90, .seed = 21, .check_races = true, .check_global = true},
        {.target = 90, .seed = 22, .check_races = true, .check_global = true},
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selftest_notices), cmocka_unit_test(counts),
        cmocka_unit_test(each_tile),        cmocka_unit_test(shapes),
        cmocka_unit_test(tiles_in_turn),    cmocka_unit_test(convolutions),
        cmocka_unit_test(attention),        cmocka_unit_test(turned_off),
    };
    return cuda_parity_main_on(runs, COUNT_OF(runs), "cuda_wgmma", tests, COUNT_OF(tests), &p);
}
