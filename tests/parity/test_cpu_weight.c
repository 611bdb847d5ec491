/* Packed weights: in either form, call by call or kept, of any type, changed by training. Part of test_cpu. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cpu/cpu_packed.h"
#include "tests/parity/test_cpu.h"

/* a weight that training changed is packed again */
void test_repacks_changed_weight(void **unused)
{
    float w[6] = {1, 2, 3, 4, 5, 6}, x[3] = {1, 1, 1}, y[2];
    struct device *d = cpu_opened(NULL);
    struct kernel_weight weight = {
        .data = w, .dtype = DTYPE_F32, .rank = 2, .dim = {2, 3}, .changes = true, .version = 1};
    struct linear_args a = {.y = y,
                            .x = x,
                            .w = &weight,
                            .m = 1,
                            .k = 3,
                            .out = 2,
                            .ldx = 3,
                            .ldy = 2,
                            .dtype = DTYPE_F32};
    struct error err = {0};
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    assert_true(y[0] == 6 && y[1] == 15);
    w[0] = 10;
    weight.version++;
    assert_int_equal(d->kernels->linear(d, &a, &err), 0);
    assert_true(y[0] == 15 && y[1] == 15);
    d->kernels->unpack(d, &weight);
    device_close(d);
}

/* Planes of Winograd's are made in three ways: by the loader's form, of an odd weight at first use, of a
 * file for each call, a range of columns at a time. An engine may have gone any way before a picture: no bit
 * may tell which. */
static void winograd_planes(int64_t side, int64_t channels, int64_t out)
{
    const int64_t inputs = side * side * channels, weights = out * channels * 9;
    float *x = alloc_zero((size_t)inputs, 4), *w = alloc_zero((size_t)weights, 4), *y[3];
    double *wide = alloc_zero((size_t)weights, 8); /* no form that is packed call by call */
    for (int64_t i = 0; i < inputs; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int64_t i = 0; i < weights; i++) wide[i] = w[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_opened("2");
    for (int way = 0; way < 3; way++) {
        struct kernel_weight weight = {.data = way ? (void *)wide : w,
                                       .dtype = way ? DTYPE_F64 : DTYPE_F32,
                                       .rank = 4,
                                       .dim = {out, channels, 3, 3}};
        struct error err = {0};
        if (way == 2) assert_int_equal(d->kernels->pack(d, &weight, DTYPE_F32, &err), 0);
        y[way] = alloc_zero((size_t)(side * side * out), 4);
        struct conv2d_args a = {.y = y[way],
                                .x = x,
                                .w = &weight,
                                .n = 1,
                                .h = side,
                                .w_px = side,
                                .c = channels,
                                .oh = side,
                                .ow = side,
                                .out = out,
                                .kh = 3,
                                .kw = 3,
                                .stride = 1,
                                .pad_top = 1,
                                .pad_left = 1,
                                .dtype = DTYPE_F32};
        assert_int_equal(d->kernels->conv2d(d, &a, &err), 0);
        const struct packed *p = weight.packed;
        assert_true(!!(p && p->form[PACK_WINOGRAD][0]) == (way || channels % 16));
        d->kernels->unpack(d, &weight);
    }
    assert_memory_equal(y[0], y[1], (size_t)(side * side * out) * 4);
    assert_memory_equal(y[0], y[2], (size_t)(side * side * out) * 4);
    device_close(d);
    for (int way = 0; way < 3; way++) free(y[way]);
    free(x);
    free(w);
    free(wide);
}

void test_winograd_from_any_form(void **unused)
{
    winograd_planes(22, 66, 70);    /* odd counts */
    winograd_planes(20, 1024, 150); /* one band, columns in ranges, the last not whole */
    winograd_planes(50, 208, 96);   /* several bands */
}

/* counts that let a weight be packed call by call, see cpu_unpacked.h */
void test_whole_blocks(void **unused)
{
    linear_once(3, 1280, 7000, 0, ACT_NONE, 1); /* more columns than are packed at once */
    linear_grad_once(13, 61, 640, 1, true);
    for (int circular = 0; circular < 2; circular++) { /* whole blocks of K, both ways */
        conv(2, 5, 4, 32, 64, 3, 1, 1, 1, circular, 7);
        conv(1, 6, 8, 96, 32, 3, 2, 1, 1, circular, 1); /* the last slice is one block */
        conv(1, 4, 5, 160, 35, 3, 1, 1, 1, circular, 16);
        conv(1, 4, 5, 35, 96, 3, 1, 1, 1, circular, 1);
        conv(1, 6, 6, 64, 32, 2, 2, 0, 1, circular, 0);
        conv(2, 3, 4, 64, 32, 3, 1, 1, 2, circular, 23);
    }
    conv(1, 9, 8, 32, 16, 4, 1, 1, 1, false, 0);
    struct conv_case v = {.a = {.n = 1,
                                .h = 6,
                                .w_px = 8,
                                .c = 64,
                                .out = 32,
                                .kh = 3,
                                .kw = 1,
                                .stride = 2,
                                .pad_top = 1,
                                .oh = 3,
                                .ow = 4}};
    conv_once(v);
}

/* a weight of a file is packed for each call, then for good: no bit of the result may tell; a derivative
 * between the calls ends the keeping */
void test_kept_after_some_calls(void **unused)
{
    enum { H = 5, C = 64, OUT = 96, CALLS = 12 };
    float x[H * H * C], w[OUT * C * 9];
    for (int i = 0; i < H * H * C; i++) x[i] = (float)parity_uniform() - 0.5f;
    for (int i = 0; i < OUT * C * 9; i++) w[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_opened("2");
    for (int kind = 0; kind < 8; kind++) {
        enum dtype act = kind & 1 ? DTYPE_BF16 : DTYPE_F32;
        int side = kind & 2 ? 3 : 1;
        uint16_t half[OUT * C * 9];
        float in[H * H * C], dx[H * H * C], y[2][H * H * OUT] = {{0}};
        dtype_convert(in, act, x, DTYPE_F32, H * H * C);
        dtype_convert(half, DTYPE_BF16, w, DTYPE_F32, OUT * C * 9);
        struct kernel_weight weight = {
            .data = half, .dtype = DTYPE_BF16, .rank = 4, .dim = {OUT, C, side, side}};
        for (int call = 0; call < CALLS; call++) {
            struct conv2d_args a = {.y = y[call > 0],
                                    .x = in,
                                    .w = &weight,
                                    .n = 1,
                                    .h = H,
                                    .w_px = H,
                                    .c = C,
                                    .oh = H,
                                    .ow = H,
                                    .out = OUT,
                                    .kh = side,
                                    .kw = side,
                                    .stride = 1,
                                    .pad_top = side / 2,
                                    .pad_left = side / 2,
                                    .dtype = act};
            struct conv2d_grad_args grad = {.conv = a, .dx = dx, .dy = y[0]};
            struct error err = {0};
            assert_int_equal(d->kernels->conv2d(d, &a, &err), 0);
            if (call) assert_memory_equal(y[0], y[1], sizeof y[0]);
            if (kind & 4 && call == CALLS - 2)
                assert_int_equal(d->kernels->conv2d_dx(d, &grad, &err), 0);
        }
        /* floats of a bfloat16 file would take twice its room; without its instruction all are floats */
        const struct packed *p = weight.packed;
        bool kept = (kind & 1) && !(kind & 4) && d->default_dtype == DTYPE_BF16;
        assert_true(!!(p && p->form[PACK_FORWARD][kind & 1]) == kept);
        assert_true(!(p && p->form[PACK_BACKWARD][kind & 1]));
        d->kernels->unpack(d, &weight);
    }
    device_close(d);
}

/* every float type that a checkpoint may hold, at an odd address */
void test_weights_of_any_dtype(void **unused)
{
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_F8_E4M3};
    enum { M = 5, K = 38, OUT = 35 };
    float x[M * K], w[OUT * K];
    for (int i = 0; i < M * K; i++) x[i] = (float)parity_uniform() - 0.5f;
    struct device *d = cpu_opened("2");
    for (size_t t = 0; t < COUNT_OF(dtypes); t++) {
        char *memory = alloc_zero(OUT * K * 8 + 1, 1), *data = memory + 1;
        for (int i = 0; i < OUT * K; i++)
            w[i] = (float)parity_between(-3, 3) * 0.25f; /* exact in all */
        dtype_convert(memory, dtypes[t], w, DTYPE_F32, OUT * K);
        memmove(data, memory, OUT * K * dtype_bytes(dtypes[t]));
        for (int half = 0; half < 2; half++) {
            enum dtype act = half ? DTYPE_BF16 : DTYPE_F32;
            float in[M * K], y[2][M * OUT];
            dtype_convert(in, act, x, DTYPE_F32, M * K);
            for (int other = 0; other < 2; other++) {
                struct kernel_weight weight = {.data = other ? (const void *)data : w,
                                               .dtype = other ? dtypes[t] : DTYPE_F32,
                                               .rank = 2,
                                               .dim = {OUT, K}};
                struct linear_args a = {.y = y[other],
                                        .x = in,
                                        .w = &weight,
                                        .m = M,
                                        .k = K,
                                        .out = OUT,
                                        .ldx = K,
                                        .ldy = OUT,
                                        .dtype = act};
                struct error err = {0};
                assert_int_equal(d->kernels->linear(d, &a, &err), 0);
                d->kernels->unpack(d, &weight);
            }
            assert_memory_equal(y[0], y[1], M * OUT * dtype_bytes(act));
        }
        free(memory);
    }
    device_close(d);
}
