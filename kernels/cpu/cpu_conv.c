/* Convolution as an implicit matrix product: row m of A is the neighbourhood of output pixel m,
 * gathered tap by tap while a panel is filled; the whole picture is never unfolded. */
#include "kernels/cpu/cpu_conv.h"
#include "kernels/cpu/cpu_epilogue.h"
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_int8.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_winograd.h"

struct conv {
    struct matrix a; /* first, for fill_transposed */
    struct window window;
    struct epilogue epilogue;
    const struct direct *direct;
    float *dw;
};

static void fill_window(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                        int64_t count)
{
    const struct window *w = &((const struct conv *)g->context)->window;
    struct pixel pixel[GEMM_MC_MAX];
    locate(w, pixel, m0, rows);
    int64_t done = 0;
    while (done < count) {
        int64_t tap = (k0 + done) / w->c, channel = (k0 + done) % w->c;
        int64_t part = w->c - channel < count - done ? w->c - channel : count - done;
        int64_t i = tap / w->kw, j = tap % w->kw;
        const int64_t bytes = g->a_dtype == DTYPE_F32 ? 4 : 2;
        char *to = (char *)panel + done * bytes;
        for (int64_t r = 0; r < rows; r++, to += GEMM_PITCH) {
            const char *from = tap_at(w, &pixel[r], i, j);
            if (!from)
                memset(to, 0, (size_t)(part * bytes));
            else if (bytes == w->bytes)
                copy_elements(to, from + channel * bytes, part * bytes);
            else
                widen_elements((float *)to, (const uint16_t *)from + channel, part);
        }
        done += part;
    }
    if (g->a_dtype == DTYPE_BF16 && count % 2)
        for (int64_t r = 0; r < rows; r++)
            ((uint16_t *)((char *)panel + r * GEMM_PITCH))[count] = 0;
}

/* `wide`: the picture is bfloat16, panels are not */
ALWAYS_INLINE void block_rows(const struct window *w, char *panel, int64_t m0, int64_t rows,
                              int64_t k0, int64_t count, const int taps, const bool wide)
{
    static const char zero[UNPACKED_RUN * 4];
    const int64_t run_bytes = UNPACKED_RUN * 4, from_bytes = wide ? run_bytes / 2 : run_bytes;
    const int64_t blocks = count * w->bytes / (from_bytes * taps), first = k0 * w->bytes / taps;
    struct pixel pixel[GEMM_MC_MAX];
    locate(w, pixel, m0, rows);
    for (int t = 0; t < taps; t++) {
        int64_t y = t / w->kw, x = t % w->kw;
        char *to = panel + t * run_bytes;
        for (int64_t r = 0; r < rows; r++, to += GEMM_PITCH) {
            const char *from = tap_at(w, &pixel[r], y, x);
            int64_t step = from ? from_bytes : 0;
            from = from ? from + first : zero;
            for (int64_t b = 0; b < blocks; b++, from += step)
#pragma GCC unroll 4
                for (int v = 0; v < UNPACKED_RUN; v += VL)
                    *(vf *)(to + b * run_bytes * taps + v * 4) =
                        vf_load(from, v, wide ? DTYPE_BF16 : DTYPE_F32);
        }
    }
}

/* A in the order of K that cpu_unpacked.h describes. */
static void fill_blocks(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                        int64_t count)
{
    const struct window *w = &((const struct conv *)g->context)->window;
    const int taps = (int)(w->kh * w->kw);
    const bool wide = g->a_dtype != w->dtype;
    if (taps == 9 && wide)
        block_rows(w, panel, m0, rows, k0, count, 9, true);
    else if (taps == 9)
        block_rows(w, panel, m0, rows, k0, count, 9, false);
    else
        block_rows(w, panel, m0, rows, k0, count, taps, wide);
}

static void store_epilogue(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                           int64_t n0, int64_t cols)
{
    const struct conv *c = g->context;
    epilogue_store(&c->epilogue, tile, m0, rows, n0, cols);
}

/* An enlargement folded into a 3x3 convolution of the same size: four 2x2 ones on the small
 * picture. */
static bool by_phases(const struct conv2d_args *a)
{
    return a->upsample == 2 && a->kh == 3 && a->kw == 3 && a->stride <= 1 && a->pad_top == 1 &&
           a->pad_left == 1 && a->oh == 2 * a->h && a->ow == 2 * a->w_px;
}

static void run_rows(struct device *d, struct conv *c, const struct pack_b *b, int64_t n,
                     int64_t out)
{
    const struct window *w = &c->window;
    bool flat = w->kh == 1 && w->kw == 1 && w->stride == 1 && w->divide == 1 && !w->shift &&
                !w->pad_y && !w->pad_x && w->oh == w->h && w->ow == w->w;
    c->a = (struct matrix){w->data, w->c, w->dtype};
    struct gemm g = {.m = n * w->oh * w->ow,
                     .n = out,
                     .k = w->kh * w->kw * w->c,
                     .a_dtype = panel_dtype(w->dtype),
                     .fill_a = flat ? fill_rows : fill_window,
                     .b = b->packed,
                     .store = store_epilogue,
                     .direct = c->direct,
                     .context = c};
    if (!b->packed) g.file = &b->file;
    if (b->file.data && b->file.taps > 1) {
        g.fill_a = fill_blocks;
        g.slice = GEMM_STEPS / (UNPACKED_RUN * b->file.taps) * (UNPACKED_RUN * b->file.taps);
    }
    gemm_run(d, &g);
}

int conv2d_with(struct device *d, const struct conv2d_args *a, const struct pack_b *b,
                const struct direct *direct, struct error *err)
{
    struct conv c = {.window = window_of(a), .direct = direct};
    int rc = epilogue_start(&c.epilogue, d, &a->epilogue, a->out, 0, err);
    if (rc) return rc;
    c.epilogue.y = a->y;
    c.epilogue.ldy = a->out;
    c.epilogue.dtype = a->dtype;
    run_rows(d, &c, b, a->n, a->out);
    return 0;
}

int cpu_conv2d(struct device *d, const struct conv2d_args *a, struct error *err)
{
    CPU_CHECK_DTYPE(a->dtype, "conv2d");
    if (int8_suits(a->w, a->c) && a->upsample != 2) return int8_conv2d(d, a, err);
    if (winograd_suits(a)) return winograd_conv2d(d, a, err);
    struct pack_b b;
    bool phases = by_phases(a);
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->c, a->kh, a->kw},
                      phases ? PACK_PHASES : PACK_FORWARD, panel_dtype(a->dtype), err);
    if (rc) return rc;
    if (!phases) return conv2d_with(d, a, &b, NULL, err);
    struct conv c = {.window = window_of(a)};
    rc = epilogue_start(&c.epilogue, d, &a->epilogue, a->out, 0, err);
    if (rc) return rc;
    c.epilogue.y = a->y;
    c.epilogue.ldy = a->out;
    c.epilogue.dtype = a->dtype;
    size_t one = gemm_packed_bytes(a->c * 4, a->out, panel_dtype(a->dtype));
    c.window.kh = c.window.kw = 2;
    c.window.oh = c.epilogue.phase_h = a->h;
    c.window.ow = c.epilogue.phase_w = a->w_px;
    c.window.shift = 0;
    /* a row of the time embedding serves rows_per_image enlarged pixels, a quarter of them a phase
     */
    c.epilogue.rows_per_image =
        c.epilogue.rows_per_image / 4 > 0 ? c.epilogue.rows_per_image / 4 : 1;
    for (int phase = 0; phase < 4; phase++) {
        c.epilogue.phase_y = phase / 2;
        c.epilogue.phase_x = phase % 2;
        c.window.pad_y = 1 - phase / 2;
        c.window.pad_x = 1 - phase % 2;
        struct pack_b part = {.packed = (const char *)b.packed + one * (size_t)phase};
        run_rows(d, &c, &part, a->n, a->out);
    }
    return 0;
}

/* Any other convolution of an enlarged picture: its derivative at full size, then sums of four. */
static int dx_enlarged(struct device *d, const struct conv2d_grad_args *grad, struct error *err)
{
    struct conv2d_grad_args full = *grad;
    struct conv2d_args *a = &full.conv;
    a->upsample = 1;
    a->h *= 2;
    a->w_px *= 2;
    full.accumulate = false;
    size_t bytes = (size_t)(a->n * a->h * a->w_px * a->c) * dtype_bytes(a->dtype);
    full.dx = cpu_big_alloc(bytes);
    if (!full.dx) return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", bytes);
    int rc = cpu_conv2d_dx(d, &full, err);
    struct upsample_args sum = {.dx = grad->dx,
                                .dy = full.dx,
                                .n = a->n,
                                .h = a->h / 2,
                                .w = a->w_px / 2,
                                .c = a->c,
                                .oh = a->h,
                                .ow = a->w_px,
                                .dtype = a->dtype,
                                .accumulate = grad->accumulate};
    if (!rc) rc = cpu_upsample_grad(d, &sum, err);
    cpu_big_free(full.dx, bytes);
    return rc;
}

int cpu_conv2d_dx(struct device *d, const struct conv2d_grad_args *grad, struct error *err)
{
    const struct conv2d_args *a = &grad->conv;
    CPU_CHECK_DTYPE(a->dtype, "conv2d_dx");
    bool phases = by_phases(a);
    if (a->upsample == 2 && !phases) return dx_enlarged(d, grad, err);
    struct conv c = {.window = window_of(a)};
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->c, a->kh, a->kw},
                      phases ? PACK_PHASES_BACKWARD : PACK_BACKWARD, panel_dtype(a->dtype), err);
    if (!rc) rc = epilogue_start(&c.epilogue, d, &(struct epilogue_args){0}, a->c, 0, err);
    if (rc) return rc;
    c.epilogue.y = grad->dx;
    c.epilogue.ldy = a->c;
    c.epilogue.dtype = a->dtype;
    c.epilogue.accumulate = grad->accumulate;
    struct window *w = &c.window;
    w->data = grad->dy;
    w->h = a->oh, w->w = a->ow, w->c = a->out;
    w->oh = a->h, w->ow = a->w_px;
    w->shift = 0;
    if (phases) {
        w->kh = w->kw = 4;
        w->stride = 2;
        w->pad_y = w->pad_x = 1;
    } else {
        w->pad_y = a->kh - 1 - a->pad_top;
        w->pad_x = a->kw - 1 - a->pad_left;
        w->divide = w->stride;
        w->stride = 1;
    }
    run_rows(d, &c, &b, a->n, a->c);
    return 0;
}

/* dw as [out] x [tap, channel]: rows of B are neighbourhoods, A is dy turned round. */
ALWAYS_INLINE void window_panels(const struct window *w, float *panels, int64_t k0, int64_t count,
                                 int64_t n0, int64_t cols, const enum dtype t)
{
    for (int64_t k = 0; k < count; k++) {
        struct pixel pixel;
        locate(w, &pixel, k0 + k, 1);
        const char *from = NULL;
        int64_t tap = n0 / w->c, channel = n0 % w->c;
        from = tap_at(w, &pixel, tap / w->kw, tap % w->kw);
        for (int64_t n = 0; n < cols; n += GEMM_NR) {
            float *to = panels + n * count + k * GEMM_NR;
            if (channel + GEMM_NR <= w->c && n + GEMM_NR <= cols) {
                vf zero = {0};
                *(vf *)to = from ? vf_load(from, channel, t) : zero;
                *(vf *)(to + VL) = from ? vf_load(from, channel + VL, t) : zero;
                channel += GEMM_NR;
            } else {
                for (int64_t i = 0; i < GEMM_NR; i++) {
                    if (channel == w->c) {
                        channel = 0;
                        tap++;
                        from = n + i < cols ? tap_at(w, &pixel, tap / w->kw, tap % w->kw) : NULL;
                    }
                    to[i] = from && n + i < cols ? f_load(from, channel, t) : 0;
                    channel++;
                }
            }
            if (channel == w->c && n + GEMM_NR < cols) {
                channel = 0;
                tap++;
                from = tap_at(w, &pixel, tap / w->kw, tap % w->kw);
            }
        }
    }
}

static void fill_window_panels(const struct gemm *g, float *panels, int64_t k0, int64_t count,
                               int64_t n0, int64_t cols)
{
    const struct window *w = &((const struct conv *)g->context)->window;
    CPU_BY_DTYPE(w->dtype, window_panels, w, panels, k0, count, n0, cols);
}

static void store_dw(const struct gemm *g, const float *tile, int64_t m0, int64_t rows, int64_t n0,
                     int64_t cols)
{
    const struct conv *c = g->context;
    int64_t channels = c->window.c, taps = c->window.kh * c->window.kw;
    for (int64_t r = 0; r < rows; r++) {
        int64_t tap = n0 / channels, channel = n0 % channels;
        for (int64_t i = 0; i < cols; i++) {
            c->dw[((m0 + r) * channels + channel) * taps + tap] += tile[r * GEMM_NR + i];
            if (++channel == channels) channel = 0, tap++;
        }
    }
}

int cpu_conv2d_dw(struct device *d, const struct conv2d_grad_args *grad, struct error *err)
{
    const struct conv2d_args *a = &grad->conv;
    CPU_CHECK_DTYPE(a->dtype, "conv2d_dw");
    struct conv c = {.a = {grad->dy, a->out, a->dtype}, .window = window_of(a), .dw = grad->dw};
    struct gemm g = {.m = a->out,
                     .n = a->kh * a->kw * a->c,
                     .k = a->n * a->oh * a->ow,
                     .a_dtype = DTYPE_F32,
                     .fill_a = fill_transposed,
                     .fill_b = fill_window_panels,
                     .store = store_dw,
                     .context = &c};
    gemm_run(d, &g);
    return 0;
}
