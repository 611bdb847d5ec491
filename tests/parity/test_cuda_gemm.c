/* Linear, convolution and their gradients: the CUDA kernels in the emulator against plain loops. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/emulator/emulator.h"
#include "tests/parity/cuda_parity.h"

static struct cuda_parity p;

static void force(int tile, int splits)
{
    struct cuda_state *s = cuda_state(p.device[SIDE_CUDA]);
    s->forced_tile = tile;
    s->forced_splits = splits;
}

struct linear_case {
    int64_t m, k, out, pad_x, pad_y, rows_per_image;
    bool bias, row, add;
    enum activation act;
};

static struct epilogue_args epilogue(enum side side, struct operand *bias, struct operand *row,
                                     struct operand *add, int64_t rows_per_image,
                                     enum activation act)
{
    return (struct epilogue_args){.bias = AT(bias),
                                  .bias_dtype = cuda_parity_dtype(bias, side),
                                  .row = AT(row),
                                  .rows_per_image = rows_per_image,
                                  .act = act,
                                  .add = AT(add)};
}

static void run_linear(enum dtype dtype, struct linear_case c)
{
    int64_t ldx = c.k + c.pad_x, ldy = c.out + c.pad_y;
    int64_t images = c.rows_per_image ? (c.m + c.rows_per_image - 1) / c.rows_per_image : 0;
    struct operand *x = cuda_parity_random(&p, dtype, c.m * ldx, 1);
    struct operand *w = cuda_parity_random(&p, dtype, c.out * c.k, 0.2);
    struct operand *bias = c.bias ? cuda_parity_random(&p, DTYPE_F32, c.out, 1) : NULL;
    struct operand *row = c.row ? cuda_parity_random(&p, dtype, images * c.out, 1) : NULL;
    struct operand *y = cuda_parity_constant(&p, dtype, c.m * ldy, 0.5); /* also what `add` reads */
    CUDA_RUN(&p, linear, linear_args,
             {.y = AT(y),
              .x = AT(x),
              .w = cuda_parity_weight(&p, w, side, 2, (int64_t[]){c.out, c.k}),
              .m = c.m,
              .k = c.k,
              .out = c.out,
              .ldx = ldx,
              .ldy = ldy,
              .dtype = cuda_parity_dtype(y, side),
              .epilogue = epilogue(side, bias, row, c.add ? y : NULL, c.rows_per_image, c.act)});
    cuda_parity_compare(&p, y, "y");
}

static void each_tile(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
    for (int tile = 0; tile < GEMM_FIRST_WGMMA; tile++) {
        struct gemm_tile_shape s = gemm_tile_shape(tile, 0);
        for (int i = 0; i < 2; i++) {
            for (int splits = 1; splits <= 4; splits += 3) {
                force(tile, splits);
                cuda_parity_case(&p, "linear, tile %dx%d, %s, %d splits", s.m, s.n,
                                 dtype_name(dtypes[i]), splits);
                /* one row and eight columns more than a tile, K with a tail */
                run_linear(dtypes[i], (struct linear_case){.m = s.m + 1,
                                                           .k = 232,
                                                           .out = s.n + 8,
                                                           .rows_per_image = 50,
                                                           .bias = true,
                                                           .row = true,
                                                           .add = true,
                                                           .act = ACT_SILU});
            }
        }
        force(tile, 1);
        cuda_parity_case(&p, "linear, tile %dx%d exactly", s.m, s.n);
        run_linear(DTYPE_F16, (struct linear_case){.m = s.m, .k = 64, .out = s.n});
    }
    force(-1, 0);
}

static void linear_shapes(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (int i = 0; i < 3; i++) {
        cuda_parity_case(&p, "linear 1x8x1 %s", dtype_name(dtypes[i]));
        run_linear(dtypes[i], (struct linear_case){.m = 1, .k = 8, .out = 1, .bias = true});
        cuda_parity_case(&p, "linear 77x40x13 pitched %s", dtype_name(dtypes[i]));
        run_linear(
            dtypes[i],
            (struct linear_case){
                .m = 77, .k = 40, .out = 13, .pad_x = 8, .pad_y = 3, .bias = true, .add = true});
        cuda_parity_case(&p, "linear 70x33x65 odd k %s", dtype_name(dtypes[i]));
        run_linear(dtypes[i], (struct linear_case){.m = 70,
                                                   .k = 33,
                                                   .out = 65,
                                                   .rows_per_image = 35,
                                                   .bias = true,
                                                   .row = true,
                                                   .add = true,
                                                   .act = ACT_GELU});
        for (enum activation act = 0; act < ACT_COUNT; act++) {
            cuda_parity_case(&p, "linear, activation %d, %s", (int)act, dtype_name(dtypes[i]));
            run_linear(dtypes[i],
                       (struct linear_case){.m = 20, .k = 32, .out = 24, .bias = true, .act = act});
        }
    }
}

struct conv_case {
    int64_t n, h, w, c, out;
    int kernel, stride, pad, upsample;
    bool circular, epilogue;
};

static int64_t out_size(const struct conv_case *c, int64_t size)
{
    if (c->circular) return size * c->upsample / c->stride;
    return (size * c->upsample + 2 * c->pad - c->kernel) / c->stride + 1;
}

static struct conv2d_args conv_args(const struct conv_case *c, enum side side, struct operand *y,
                                    struct operand *x, struct kernel_weight *w, enum dtype dtype)
{
    return (struct conv2d_args){.y = AT(y),
                                .x = AT(x),
                                .w = w,
                                .n = c->n,
                                .h = c->h,
                                .w_px = c->w,
                                .c = c->c,
                                .oh = out_size(c, c->h),
                                .ow = out_size(c, c->w),
                                .out = c->out,
                                .kh = c->kernel,
                                .kw = c->kernel,
                                .stride = c->stride,
                                .pad_top = c->pad,
                                .pad_left = c->pad,
                                .upsample = c->upsample,
                                .circular = c->circular,
                                .dtype = dtype};
}

static void run_conv(enum dtype dtype, struct conv_case c)
{
    int64_t oh = out_size(&c, c.h), ow = out_size(&c, c.w);
    struct operand *x = cuda_parity_random(&p, dtype, c.n * c.h * c.w * c.c, 1);
    struct operand *w = cuda_parity_random(&p, dtype, c.out * c.c * c.kernel * c.kernel, 0.1);
    struct operand *bias = cuda_parity_random(&p, dtype, c.out, 1);
    struct operand *row = c.epilogue ? cuda_parity_random(&p, dtype, c.n * c.out, 1) : NULL;
    struct operand *add =
        c.epilogue ? cuda_parity_random(&p, dtype, c.n * oh * ow * c.out, 1) : NULL;
    struct operand *y = cuda_parity_result(&p, dtype, c.n * oh * ow * c.out);
    struct operand *dx = cuda_parity_random(&p, dtype, c.n * c.h * c.w * c.c, 1);
    struct operand *dw = cuda_parity_random(&p, DTYPE_F32, c.out * c.c * c.kernel * c.kernel, 1);
    int64_t dim[4] = {c.out, c.c, c.kernel, c.kernel};
    CUDA_RUN(&p, conv2d, conv2d_args,
             conv_args(&c, side, y, x, cuda_parity_weight(&p, w, side, 4, dim),
                       cuda_parity_dtype(y, side));
             args.epilogue =
                 epilogue(side, bias, row, add, oh * ow, c.epilogue ? ACT_SILU : ACT_NONE));
    cuda_parity_compare(&p, y, "y");
    /* y serves as dy: every side has its own, so hand out equal numbers first */
    struct operand *dy = cuda_parity_random(&p, dtype, c.n * oh * ow * c.out, 1);
    if (c.stride <= 2) {
        CUDA_RUN(&p, conv2d_dx, conv2d_grad_args,
                 {.conv = conv_args(&c, side, NULL, NULL, cuda_parity_weight(&p, w, side, 4, dim),
                                    cuda_parity_dtype(y, side)),
                  .dx = AT(dx),
                  .dy = AT(dy),
                  .accumulate = c.epilogue});
        cuda_parity_compare(&p, dx, "dx");
    }
    CUDA_RUN(&p, conv2d_dw, conv2d_grad_args,
             {.conv = conv_args(&c, side, NULL, x, NULL, cuda_parity_dtype(y, side)),
              .dy = AT(dy),
              .dw = AT(dw)});
    cuda_parity_compare(&p, dw, "dw");
}

static void convolutions(void **state)
{
    static const struct conv_case cases[] = {
        {.n = 2,
         .h = 8,
         .w = 8,
         .c = 32,
         .out = 40,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 1,
         .epilogue = true},
        {.n = 1,
         .h = 7,
         .w = 9,
         .c = 40,
         .out = 88,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 1},
        {.n = 2,
         .h = 9,
         .w = 5,
         .c = 16,
         .out = 24,
         .kernel = 3,
         .stride = 2,
         .pad = 1,
         .upsample = 1,
         .epilogue = true},
        {.n = 2,
         .h = 8,
         .w = 6,
         .c = 24,
         .out = 16,
         .kernel = 3,
         .stride = 2,
         .pad = 1,
         .upsample = 1},
        {.n = 2,
         .h = 5,
         .w = 4,
         .c = 16,
         .out = 24,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 2,
         .epilogue = true},
        {.n = 1,
         .h = 6,
         .w = 6,
         .c = 8,
         .out = 8,
         .kernel = 1,
         .stride = 1,
         .pad = 0,
         .upsample = 1,
         .epilogue = true},
        {.n = 2,
         .h = 6,
         .w = 4,
         .c = 8,
         .out = 16,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 1,
         .circular = true},
        {.n = 1,
         .h = 4,
         .w = 6,
         .c = 8,
         .out = 16,
         .kernel = 3,
         .stride = 2,
         .pad = 1,
         .upsample = 1,
         .circular = true},
        {.n = 1,
         .h = 4,
         .w = 4,
         .c = 16,
         .out = 16,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 2,
         .circular = true,
         .epilogue = true},
        {.n = 1,
         .h = 6,
         .w = 6,
         .c = 4,
         .out = 16,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 1,
         .epilogue = true},
        {.n = 1,
         .h = 6,
         .w = 6,
         .c = 16,
         .out = 3,
         .kernel = 3,
         .stride = 1,
         .pad = 1,
         .upsample = 1,
         .epilogue = true},
        {.n = 1,
         .h = 12,
         .w = 8,
         .c = 3,
         .out = 16,
         .kernel = 4,
         .stride = 4,
         .pad = 0,
         .upsample = 1},
    };
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < COUNT_OF(cases); j++) {
            cuda_parity_case(&p, "conv2d case %zu %s", j, dtype_name(dtypes[i]));
            run_conv(dtypes[i], cases[j]);
        }
    }
}

/* four phases times splits share the buffer of partial sums */
static void split_phases(void **state)
{
    force(GEMM_64X80, 2);
    cuda_parity_case(&p, "enlarging convolution, 2 splits");
    run_conv(DTYPE_F16, (struct conv_case){.n = 2,
                                           .h = 4,
                                           .w = 5,
                                           .c = 24,
                                           .out = 16,
                                           .kernel = 3,
                                           .stride = 1,
                                           .pad = 1,
                                           .upsample = 2,
                                           .epilogue = true});
    force(-1, 0);
}

static void run_linear_grad(enum dtype dtype, int64_t m, int64_t k, int64_t out, bool accumulate)
{
    struct operand *x = cuda_parity_random(&p, dtype, m * k, 1),
                   *dy = cuda_parity_random(&p, dtype, m * out, 1);
    struct operand *w = cuda_parity_random(&p, dtype, out * k, 0.2),
                   *dx = cuda_parity_random(&p, dtype, m * k, 1);
    struct operand *dw = cuda_parity_random(&p, DTYPE_F32, out * k, 1);
    CUDA_RUN(&p, linear_dx, linear_dx_args,
             {.dx = AT(dx),
              .dy = AT(dy),
              .w = cuda_parity_weight(&p, w, side, 2, (int64_t[]){out, k}),
              .m = m,
              .k = k,
              .out = out,
              .ldx = k,
              .ldy = out,
              .dtype = cuda_parity_dtype(x, side),
              .accumulate = accumulate});
    cuda_parity_compare(&p, dx, "dx");
    CUDA_RUN(&p, linear_dw, linear_dw_args,
             {.dw = AT(dw),
              .dy = AT(dy),
              .x = AT(x),
              .m = m,
              .k = k,
              .out = out,
              .ldx = k,
              .ldy = out,
              .dtype = cuda_parity_dtype(x, side)});
    cuda_parity_compare(&p, dw, "dw");
}

static void linear_gradients(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (int i = 0; i < 3; i++) {
        cuda_parity_case(&p, "linear gradients %s", dtype_name(dtypes[i]));
        run_linear_grad(dtypes[i], 129, 168, 72, true);
        run_linear_grad(dtypes[i], 300, 4, 40, false);
        run_linear_grad(dtypes[i], 65, 77, 5, true);
    }
    for (int tile = 0; tile < GEMM_FIRST_WGMMA; tile++) {
        struct gemm_tile_shape s = gemm_tile_shape(tile, 1);
        force(tile, 2);
        cuda_parity_case(&p, "linear dx, tile %dx%d, 2 splits", s.m, s.n);
        run_linear_grad(DTYPE_F16, s.m + 3, s.n + 8, 88, true);
    }
    force(-1, 0);
}

static void run_geglu(enum dtype dtype, int64_t m, int64_t k, int64_t half)
{
    struct operand *x = cuda_parity_random(&p, dtype, m * k, 1);
    struct operand *w = cuda_parity_random(&p, dtype, 2 * half * k, 0.2);
    struct operand *bias = cuda_parity_random(&p, dtype, 2 * half, 1);
    struct operand *y = cuda_parity_result(&p, dtype, m * half);
    CUDA_RUN(&p, linear_geglu, linear_args,
             {.y = AT(y),
              .x = AT(x),
              .w = cuda_parity_weight(&p, w, side, 2, (int64_t[]){2 * half, k}),
              .m = m,
              .k = k,
              .out = 2 * half,
              .ldx = k,
              .ldy = half,
              .dtype = cuda_parity_dtype(y, side),
              .epilogue = epilogue(side, bias, NULL, NULL, 0, ACT_NONE)});
    cuda_parity_compare(&p, y, "y");
}

static void geglu_epilogue(void **state)
{
    for (int tile = 0; tile < GEMM_FIRST_WGMMA; tile++) {
        if (!gemm_tile_shape(tile, 0).takes_geglu) continue;
        cuda_parity_case(&p, "linear with GEGLU, tile %d", tile);
        force(tile, 1);
        run_geglu(DTYPE_F16, 70, 64, 168);
    }
    force(-1, 0);
    cuda_parity_case(&p, "linear with GEGLU, bf16");
    run_geglu(DTYPE_BF16, 70, 64, 168);
    /* not on tensor cores: composed */
    cuda_parity_case(&p, "linear with GEGLU, f32");
    run_geglu(DTYPE_F32, 33, 20, 24);
    cuda_parity_case(&p, "linear with GEGLU, odd width");
    run_geglu(DTYPE_F16, 33, 24, 21);
}

/* fp16 sums: the gate of gpu-kernels is 3e-3 of the norm; every tile, an odd tail, two splits */
static void half_sums(void **state)
{
    struct cuda_state *s = cuda_state(p.device[SIDE_CUDA]);
    const int64_t m = 70, k = 328;
    s->half_sums = true;
    for (int tile = 0; tile < GEMM_FIRST_WGMMA; tile++) {
        int64_t out = gemm_tile_shape((enum gemm_tile)tile, 0).n + 7;
        cuda_parity_case(&p, "fp16 sums, tile %d", tile);
        force(tile, tile % 2 + 1);
        struct operand *x = cuda_parity_random(&p, DTYPE_F16, m * k, 1);
        struct operand *w = cuda_parity_random(&p, DTYPE_F16, out * k, 0.2);
        struct operand *y = cuda_parity_result(&p, DTYPE_F16, m * out);
        emulator_count_reset();
        CUDA_RUN(&p, linear, linear_args,
                 {.y = AT(y),
                  .x = AT(x),
                  .w = cuda_parity_weight(&p, w, side, 2, (int64_t[]){out, k}),
                  .m = m,
                  .k = k,
                  .out = out,
                  .ldx = k,
                  .ldy = out,
                  .dtype = cuda_parity_dtype(y, side)});
        assert_int_equal(emulator_count().bank_conflicts, 0);
        cuda_parity_compare_relative(&p, y, "y", 3e-3);
    }
    /* 2048 + 1 - 2048 in one slice is 0 in fp16 and 1 in fp32: the mode is really on */
    cuda_parity_case(&p, "fp16 sums lose a one");
    force(GEMM_64X80, 1);
    double row[32] = {[0] = 2048, [4] = 1, [8] = -2048}, ones[8 * 32], sum[2];
    for (int i = 0; i < 8 * 32; i++) ones[i] = 1;
    struct operand *x = cuda_parity_values(&p, DTYPE_F16, 32, row);
    struct operand *w = cuda_parity_values(&p, DTYPE_F16, 8 * 32, ones);
    struct operand *y = cuda_parity_result(&p, DTYPE_F16, 8);
    for (int on = 0; on < 2; on++) {
        struct error err;
        uint16_t bits;
        struct linear_args a = {.y = y->data[SIDE_CUDA],
                                .x = x->data[SIDE_CUDA],
                                .w = cuda_parity_weight(&p, w, SIDE_CUDA, 2, (int64_t[]){8, 32}),
                                .m = 1,
                                .k = 32,
                                .out = 8,
                                .ldx = 32,
                                .ldy = 8,
                                .dtype = DTYPE_F16};
        s->half_sums = on;
        assert_int_equal(cuda_linear(p.device[SIDE_CUDA], &a, &err), 0);
        p.kernels[SIDE_CUDA]->download(p.device[SIDE_CUDA], &bits, a.y, 2, &err);
        sum[on] = dtype_get(&bits, DTYPE_F16, 0);
    }
    s->half_sums = false;
    force(-1, 0);
    assert_true(sum[0] == 1 && sum[1] == 0);
}

/* q, k and v as one product; a second call finds the weights joined, and each is still itself */
static void joined_linears(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_F32};
    const int64_t m = 70, k = 40, out = 56;
    for (int i = 0; i < 2; i++) {
        cuda_parity_case(&p, "joined linears %s", dtype_name(dtypes[i]));
        struct kernel_weight *w[SIDE_COUNT][3];
        struct operand *x = cuda_parity_random(&p, dtypes[i], m * k, 1);
        struct operand *y = cuda_parity_result(&p, dtypes[i], m * 3 * out);
        struct operand *again = cuda_parity_result(&p, dtypes[i], m * out);
        for (int j = 0; j < 3; j++) {
            struct operand *values = cuda_parity_random(&p, dtypes[i], out * k, 0.2);
            for (enum side side = 0; side < SIDE_COUNT; side++)
                w[side][j] = cuda_parity_weight(&p, values, side, 2, (int64_t[]){out, k});
        }
        for (int times = 0; times < 2; times++) {
            CUDA_RUN(&p, linear_join, linear_join_args,
                     {.y = AT(y),
                      .x = AT(x),
                      .w = {w[side][0], w[side][1], w[side][2]},
                      .count = 3,
                      .m = m,
                      .k = k,
                      .out = out,
                      .ldx = k,
                      .ldy = 3 * out,
                      .dtype = cuda_parity_dtype(y, side)});
            cuda_parity_compare(&p, y, "y");
        }
        CUDA_RUN(&p, linear, linear_args,
                 {.y = AT(again),
                  .x = AT(x),
                  .w = w[side][1],
                  .m = m,
                  .k = k,
                  .out = out,
                  .ldx = k,
                  .ldy = out,
                  .dtype = cuda_parity_dtype(y, side)});
        cuda_parity_compare(&p, again, "the second alone");
    }
}

/* The planned amount of work, and no bank conflict. */
static void counts(void **state)
{
    cuda_parity_case(&p, "counts");
    if (cuda_state(p.device[SIDE_CUDA])->runtime.capability < 80)
        return; /* the tile is too large */
    force(GEMM_128X160, 1);
    emulator_count_reset();
    run_linear(DTYPE_F16, (struct linear_case){.m = 256, .k = 320, .out = 320});
    struct emulator_counts n = emulator_count();
    force(-1, 0);
    assert_int_equal(n.mma, 256 * 320 * 320 / (16 * 8 * 16));
    assert_int_equal(n.bank_conflicts, 0);
    /* four blocks read their rows of x and w once, 16 bytes a copy */
    assert_int_equal(n.async_bytes, (256 * 320 * 2) * 2 + (320 * 320 * 2) * 2);
    /* 8 warps, 10 slices, 2 steps: 2 loads of A and 5 of B, 4 blocks */
    assert_int_equal(n.matrix_loads, 4 * 8 * 10 * 2 * 7);
    for (int tile = 0; tile < GEMM_FIRST_WGMMA; tile++) {
        force(tile, 1);
        emulator_count_reset();
        run_linear_grad(DTYPE_F16, 40, 88, 64, false);
        assert_int_equal(emulator_count().bank_conflicts, 0);
    }
    force(-1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_tile),        cmocka_unit_test(linear_shapes),
        cmocka_unit_test(convolutions),     cmocka_unit_test(split_phases),
        cmocka_unit_test(linear_gradients), cmocka_unit_test(geglu_epilogue),
        cmocka_unit_test(joined_linears),   cmocka_unit_test(half_sums),
        cmocka_unit_test(counts),
    };
    return cuda_parity_main("cuda_gemm", tests, COUNT_OF(tests), &p);
}
