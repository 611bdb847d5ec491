/* Convolutions and their gradients. Part of test_cpu. */
#include <math.h>
#include <stdio.h>

#include "tests/parity/test_cpu.h"

static struct conv2d_args conv_args(struct parity_run *run, const struct conv_case *c)
{
    struct conv2d_args a = c->a;
    a.dtype = run->dtype;
    a.w = &run->weight;
    a.epilogue.bias_dtype = run->real;
    return a;
}

static int run_conv2d(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_args a = conv_args(run, c);
    a.x = run->data[0];
    a.y = run->data[2];
    a.epilogue.bias = c->flags & 1 ? run->data[3] : NULL;
    a.epilogue.row = c->flags & 2 ? run->data[4] : NULL;
    a.epilogue.add = c->flags & 8 ? run->data[2] : c->flags & 4 ? run->data[5] : NULL;
    return run->k->conv2d(run->d, &a, err);
}

static int run_conv2d_dx(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_grad_args g = {.conv = conv_args(run, c),
                                 .dy = run->data[2],
                                 .dx = run->data[0],
                                 .accumulate = c->accumulate};
    return run->k->conv2d_dx(run->d, &g, err);
}

static int run_conv2d_dw(struct parity_run *run, const void *args, struct error *err)
{
    const struct conv_case *c = args;
    struct conv2d_grad_args g = {.conv = conv_args(run, c), .dy = run->data[2], .dw = run->data[1]};
    g.conv.x = run->data[0];
    return run->k->conv2d_dw(run->d, &g, err);
}

static void conv_name(struct parity_case *c, const char *what, const struct conv_case *v)
{
    const struct conv2d_args *a = &v->a;
    snprintf(c->name, sizeof c->name,
             "%s n%lld %lldx%lldx%lld -> %lldx%lldx%lld kernel %dx%d stride %d pad %d,%d up %d "
             "circular %d flags %d act %d",
             what, (long long)a->n, (long long)a->h, (long long)a->w_px, (long long)a->c,
             (long long)a->oh, (long long)a->ow, (long long)a->out, a->kh, a->kw, a->stride,
             a->pad_top, a->pad_left, a->upsample, a->circular, v->flags, a->epilogue.act);
}

void conv_once(struct conv_case v)
{
    struct conv2d_args *a = &v.a;
    int64_t in = a->n * a->h * a->w_px * a->c, out = a->n * a->oh * a->ow * a->out;
    int64_t taps = a->c * a->kh * a->kw;
    a->epilogue.rows_per_image = a->oh * a->ow;
    struct parity_case c = {
        .run = run_conv2d, .args = &v, .rank = 4, .dim = {a->out, a->c, a->kh, a->kw}};
    conv_name(&c, "conv2d", &v);
    parity_operand(&c, OPERAND_ACTIVATION, false, in, 1);
    parity_operand(&c, OPERAND_WEIGHT, false, a->out * taps, 1 / sqrt((double)taps));
    parity_operand(&c, OPERAND_ACTIVATION, true, out, 1);
    parity_operand(&c, OPERAND_REAL, false, a->out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, a->n * a->out, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
    c = (struct parity_case){
        .run = run_conv2d_dx, .args = &v, .rank = 4, .dim = {a->out, a->c, a->kh, a->kw}};
    conv_name(&c, "conv2d_dx", &v);
    parity_operand(&c, OPERAND_ACTIVATION, true, in, 1);
    parity_operand(&c, OPERAND_WEIGHT, false, a->out * taps, 1 / sqrt((double)taps));
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
    c = (struct parity_case){.run = run_conv2d_dw, .args = &v};
    conv_name(&c, "conv2d_dw", &v);
    parity_operand(&c, OPERAND_ACTIVATION, false, in, 1);
    parity_operand(&c, OPERAND_REAL, true, a->out * taps, 1);
    parity_operand(&c, OPERAND_ACTIVATION, false, out, 1);
    cpu_check(&c);
}

void conv(int64_t n, int64_t h, int64_t w, int64_t c, int64_t out, int kernel, int stride, int pad,
          int up, bool circular, int flags)
{
    struct conv_case v = {.a = {.n = n,
                                .h = h,
                                .w_px = w,
                                .c = c,
                                .out = out,
                                .kh = kernel,
                                .kw = kernel,
                                .stride = stride,
                                .pad_top = pad,
                                .pad_left = pad,
                                .upsample = up,
                                .circular = circular},
                          .flags = flags,
                          .accumulate = flags & 1};
    v.a.oh = (h * up + 2 * pad - kernel) / stride + 1;
    v.a.ow = (w * up + 2 * pad - kernel) / stride + 1;
    v.a.epilogue.act = flags & 16 ? ACT_SILU : ACT_NONE;
    conv_once(v);
}

void test_conv2d(void **unused)
{
    for (int circular = 0; circular < 2; circular++) {
        conv(2, 6, 5, 20, 33, 3, 1, 1, 1, circular, 7);
        conv(1, 4, 6, 3, 5, 3, 1, 1, 1, circular, 1);
        conv(2, 6, 4, 17, 16, 3, 2, 1, 1, circular, 0);
        conv(2, 5, 3, 18, 35, 3, 1, 1, 2, circular, 23); /* by phases */
        conv(1, 3, 4, 7, 3, 5, 1, 2, 2, circular, 1);    /* enlarged, but no phases */
    }
    for (int flags = 0; flags < 32; flags++) conv(2, 3, 3, 9, 18, 3, 1, 1, 1, false, flags);
    conv(2, 4, 4, 40, 24, 1, 1, 0, 1, false, 3);
    conv(1, 7, 7, 5, 6, 1, 2, 0, 1, false, 0);
    conv(1, 2, 2, 130, 40, 3, 1, 1, 1, false, 0);      /* several slices of K */
    conv(1, 21, 20, 8, 8, 3, 1, 1, 1, false, 8);       /* several tasks of rows */
    conv(1, 14, 14, 3, 10, 14, 14, 0, 1, false, 0);    /* a patch embedding */
    for (int circular = 0; circular < 2; circular++) { /* enough channels and tiles for Winograd */
        conv(2, 14, 14, 64, 64, 3, 1, 1, 1, circular, 7);
        conv(1, 21, 19, 70, 97, 3, 1, 1, 1, circular, 29);
    }
    conv(1, 70, 66, 64, 64, 3, 1, 1, 1, false, 0); /* several bands */
    /* a border on two sides only, as the VAE's encoder has it */
    struct conv_case v = {.a = {.n = 1,
                                .h = 6,
                                .w_px = 8,
                                .c = 12,
                                .out = 14,
                                .kh = 3,
                                .kw = 3,
                                .stride = 2,
                                .oh = 3,
                                .ow = 4,
                                .upsample = 1}};
    conv_once(v);
    v.a.upsample = 0;
    v.a.pad_top = 1;
    v.a.kw = 1;
    conv_once(v);
}
