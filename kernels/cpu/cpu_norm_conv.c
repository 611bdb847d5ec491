/* A 3x3 convolution of a normalised picture, some rows at a time: what is normalised stays in the last cache
 * until it has been multiplied, and no picture-sized map of it is written. Each element of the result is
 * summed in the same order as without bands, so the bits are the same. */
#include "kernels/cpu/cpu_conv.h"
#include "kernels/cpu/cpu_group_norm.h"
#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/cpu_winograd.h"

struct norm_conv {
    const struct norm_conv2d_args *a;
    const float *scale, *shift, *middle; /* [n,c] */
    int64_t image, row_bytes;            /* of the picture's lines */
    int64_t border, line_bytes;          /* pixels beside a line of the band, its bytes with them */
    int64_t first; /* line of the picture that the band begins with; -1 lies above it */
    int64_t from;  /* lines of the band before this one are there already */
    char *band;
};

/* One line of the band, with zeros or the other side's line where it lies outside the picture. */
static void line_task(void *context, int64_t task, int worker)
{
    const struct norm_conv *n = context;
    const struct conv2d_args *a = &n->a->conv;
    int64_t line = n->first + n->from + task, v = n->image * a->c;
    const int64_t pixel = n->row_bytes / a->w_px, border = n->border * pixel;
    char *to = n->band + (n->from + task) * n->line_bytes + border;
    if (line < 0 || line >= a->h) {
        if (!a->circular) {
            memset(to - border, 0, (size_t)n->line_bytes);
            return;
        }
        line = line < 0 ? a->h - 1 : 0;
    }
    const char *from = (const char *)a->x + (n->image * a->h + line) * n->row_bytes;
    group_norm_apply(to, from, a->w_px, a->c, n->scale + v, n->shift + v, n->middle + v, n->a->act,
                     a->dtype);
    if (!border) return;
    char *end = to + n->row_bytes;
    if (a->circular) {
        memcpy(to - pixel, end - pixel, (size_t)pixel);
        memcpy(end, to, (size_t)pixel);
    } else {
        memset(to - pixel, 0, (size_t)pixel);
        memset(end, 0, (size_t)pixel);
    }
}

/* Pairs of lines, which Winograd's tiles are; bands of nearly equal height. */
static int64_t band_lines(struct device *d, const struct norm_conv *n)
{
    const struct conv2d_args *a = &n->a->conv;
    int64_t most = (int64_t)cpu_state(d)->band_most / n->row_bytes / 2 * 2, bands;
    if (most < 4) most = 4;
    if (a->h <= 2 * most) return a->h;
    bands = (a->h + most - 1) / most;
    return ((a->h + bands - 1) / bands + 1) / 2 * 2;
}

static int run_band(struct device *d, const struct norm_conv *n, int64_t lines,
                    const struct pack_b *b, struct error *err)
{
    struct conv2d_args part = n->a->conv;
    const int64_t element = part.dtype == DTYPE_F32 ? 4 : 2, row = part.ow * part.out * element;
    const int64_t at = (n->image * part.oh + n->first + 1) * row;
    part.x = n->band;
    part.y = (char *)part.y + at;
    part.n = 1;
    part.h = lines + 2;
    part.oh = lines;
    part.pad_top = 0;
    struct epilogue_args *e = &part.epilogue;
    if (e->add) e->add = (const char *)e->add + at;
    if (e->row) e->row = (const char *)e->row + n->image * part.out * element;
    e->rows_per_image = lines * part.ow;
    struct direct direct = {n->band, part.ow, part.c * element};
    return b ? conv2d_with(d, &part, b, n->border ? &direct : NULL, err)
             : winograd_conv2d(d, &part, err);
}

static int run_image(struct device *d, struct norm_conv *n, int64_t most, const struct pack_b *b,
                     struct error *err)
{
    const struct conv2d_args *a = &n->a->conv;
    int rc = 0;
    for (int64_t line = 0; !rc && line < a->h; line += most) {
        int64_t lines = a->h - line < most ? a->h - line : most;
        n->first = line - 1;
        n->from = 0;
        if (line) { /* the last two lines of the band before are the first of this one */
            memmove(n->band, n->band + most * n->line_bytes, (size_t)(2 * n->line_bytes));
            n->from = 2;
        }
        pool_run(cpu_state(d)->pool, lines + 2 - n->from, line_task, n);
        rc = run_band(d, n, lines, b, err);
    }
    return rc;
}

int cpu_norm_conv2d(struct device *d, const struct norm_conv2d_args *args, struct error *err)
{
    const struct conv2d_args *a = &args->conv;
    CPU_CHECK_DTYPE(a->dtype, "norm_conv2d");
    if (a->kh != 3 || a->kw != 3 || a->stride > 1 || a->upsample == 2 || a->pad_top != 1 ||
        a->pad_left != 1 || a->oh != a->h || a->ow != a->w_px)
        return error_set(err, ERR_UNSUPPORTED, "norm_conv2d is for 3x3 with a border of one");
    struct norm_conv n = {.a = args};
    n.row_bytes = a->w_px * a->c * (a->dtype == DTYPE_F32 ? 4 : 2);
    const int64_t most = band_lines(d, &n), vector = (a->n * a->c + 15) / 16 * 16;
    const int64_t pixel = n.row_bytes / a->w_px, line = n.row_bytes + 2 * pixel;
    int rc = cpu_band_reserve(d, (size_t)(vector * 12 + (most + 2) * line + 64), err);
    if (rc) return rc;
    float *scale = (float *)cpu_state(d)->band, *shift = scale + vector, *middle = shift + vector;
    n.band = (char *)(middle + vector);
    n.scale = scale, n.shift = shift, n.middle = middle;
    struct group_norm_args norm = {.x = a->x,
                                   .gamma = args->gamma,
                                   .beta = args->beta,
                                   .n = a->n,
                                   .rows = a->h * a->w_px,
                                   .c = a->c,
                                   .groups = args->groups,
                                   .eps = args->eps,
                                   .dtype = a->dtype,
                                   .weight_dtype = args->weight_dtype};
    rc = group_norm_statistics(d, &norm, scale, shift, middle, err);
    struct pack_b b;
    const bool winograd = winograd_suits(a);
    if (!rc && !winograd)
        rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->c, a->kh, a->kw}, PACK_FORWARD,
                      panel_dtype(a->dtype), err);
    /* a weight that is packed otherwise has another order of K */
    n.border = !rc && !winograd && b.file.taps == 9 && direct_suits(a->c, a->out, a->dtype);
    n.line_bytes = n.row_bytes + 2 * n.border * pixel;
    for (n.image = 0; !rc && n.image < a->n; n.image++)
        rc = run_image(d, &n, most, winograd ? NULL : &b, err);
    return rc;
}
