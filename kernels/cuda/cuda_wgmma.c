/* The host side of gemm_wgmma.h: which products it takes, their tensor maps, the launch. */
#include "kernels/cuda/gemm_wgmma.h"

#include "kernels/cuda/cuda.h"

static int64_t images_of(const struct gemm_args *g)
{
    return (g->m + g->source.image_rows - 1) / g->source.image_rows;
}

/* Row m of A is row m of a matrix: one tap, and pixels that follow each other without a gap. */
static bool is_matrix(const struct gemm_args *g)
{
    const struct gemm_source *s = &g->source;
    if (s->taps_h * s->taps_w != 1 || s->step != 1 || s->y_from || s->x_from || g->phases > 1)
        return false;
    return s->row_px == s->source_px && s->limit_w == s->source_px &&
           s->image_rows == s->limit_h * s->limit_w &&
           (images_of(g) == 1 || s->image_pitch == s->image_rows * s->pixel_pitch);
}

/* Elements to bytes; a dimension of one index still wants a pitch. */
static int64_t pitch(int64_t elements, int64_t otherwise)
{
    return 2 * (elements ? elements : otherwise);
}

static struct tensor_pixels pixels_of(const struct gemm_args *g, int rows)
{
    const struct gemm_source *s = &g->source;
    return (struct tensor_pixels){
        .base = s->a,
        .c = s->c,
        .w = s->source_px,
        .h = s->limit_h,
        .n = images_of(g),
        .pixel_pitch = 2 * s->pixel_pitch,
        .line_pitch = 2 * s->source_px * s->pixel_pitch,
        .image_pitch = pitch(s->image_pitch, s->limit_h * s->source_px * s->pixel_pitch),
        .from_y = s->y_from,
        .from_x = s->x_from,
        .rows = s->image_rows / s->row_px,
        .columns = s->row_px,
        .step = s->step,
        .pixels = rows,
    };
}

static bool corner_ok(int corner)
{
    return corner >= -128 && corner <= 127;
}

bool cuda_wgmma_takes(const struct cuda_state *s, const struct gemm_args *g, bool transposed)
{
    const struct gemm_source *a = &g->source;
    if (!s->wgmma || s->half_sums || transposed) return false;
    if (a->circular || a->sign != 1 || a->mask || a->shift) return false;
    if (is_matrix(g)) return true;
    const struct tensor_pixels p = pixels_of(g, 256);
    return a->limit_w == a->source_px && a->image_rows % a->row_px == 0 &&
           g->m % a->image_rows == 0 && p.step <= 8 && a->taps_h <= 128 && a->taps_w <= 128 &&
           corner_ok(p.from_y) && corner_ok(p.from_x) &&
           corner_ok(p.from_y + (p.rows - 1) * p.step - (int)(p.h - 1)) &&
           corner_ok(p.from_x + (p.columns - 1) * p.step - (int)(p.w - 1));
}

static int map_a(struct gemm_wgmma_args *w, int rows)
{
    const struct gemm_args *g = &w->gemm;
    const struct gemm_source *s = &g->source;
    w->pixels = !is_matrix(g);
    if (w->pixels) {
        const struct tensor_pixels p = pixels_of(g, rows);
        return tensor_map_pixels(&w->a, &p);
    }
    const int64_t row = 2 * s->pixel_pitch;
    const struct tensor_tiles t = {
        .base = s->a, .dim = {s->c, g->m, 1, 1}, .pitch = {row, row, row}, .box = {rows, 1, 1}};
    return tensor_map_tiles(&w->a, &t);
}

static int map_b(struct gemm_wgmma_args *w, int columns)
{
    const struct gemm_args *g = &w->gemm;
    const struct gemm_source *s = &g->source;
    const struct tensor_tiles t = {
        .base = g->b,
        .dim = {s->c, (int64_t)s->taps_h * s->taps_w, g->n, g->phases},
        .pitch = {2 * (int64_t)s->c, 2 * g->b_pitch, pitch(g->b_phase, g->b_pitch)},
        .box = {1, columns, 1},
    };
    return tensor_map_tiles(&w->b, &t);
}

int cuda_wgmma_run(const struct cuda_state *s, const struct gemm_args *g, enum dtype dtype,
                   enum gemm_tile tile)
{
    struct gemm_wgmma_args w = {.gemm = *g, .blocks = s->runtime.multiprocessors};
    struct gemm_tile_shape shape = gemm_tile_shape(tile, 0);
    int code = map_a(&w, shape.m);
    if (!code) code = map_b(&w, shape.n);
    if (code) return code;
    return dtype == DTYPE_BF16 ? gemm_wgmma_bf16(tile, &w, s->runtime.stream)
                               : gemm_wgmma_f16(tile, &w, s->runtime.stream);
}
