/* A 3x3 convolution of a normalised picture, some lines at a time: statistics of the whole first, then lines
 * are normalised into the caller's room and multiplied there. Launches only: a recording can hold them. */
#include "kernels/cuda/cuda.h"

struct bands {
    const struct norm_conv2d_args *a;
    struct group_norm_args norm; /* of the whole; y is the band */
    int64_t line;                /* bytes of a line of x */
    int64_t lines;               /* of y in a band */
};

/* Lines `from` and on of an image to line `to` of the band. */
static int normalise(struct device *d, const struct bands *b, int64_t image, int64_t from,
                     int64_t count, int64_t to, struct error *err)
{
    const struct conv2d_args *a = &b->a->conv;
    struct group_norm_args part = b->norm;
    part.n = 1;
    part.rows = count * a->w_px;
    part.x = (const char *)a->x + (image * a->h + from) * b->line;
    part.y = (char *)b->norm.y + to * b->line;
    part.mean = (float *)b->norm.mean + image * b->norm.groups;
    part.rstd = (float *)b->norm.rstd + image * b->norm.groups;
    return cuda_group_apply(d, &part, err);
}

/* The band with its neighbours: zeros lie around the picture, not around the band; a circular picture has the
 * other side's line there. */
static int fill(struct device *d, const struct bands *b, int64_t image, int64_t from, int64_t to,
                struct error *err)
{
    const int64_t h = b->a->conv.h, above = from < 0;
    const int64_t first = above ? 0 : from, end = to > h ? h : to;
    int rc = above ? normalise(d, b, image, h - 1, 1, 0, err) : 0;
    if (!rc) rc = normalise(d, b, image, first, end - first, above, err);
    if (!rc && to > h) rc = normalise(d, b, image, 0, 1, above + end - first, err);
    return rc;
}

static int run_band(struct device *d, const struct bands *b, int64_t image, int64_t first,
                    int64_t lines, struct error *err)
{
    const struct conv2d_args *a = &b->a->conv;
    const bool whole = lines == a->h; /* borders are the convolution's own */
    const int64_t above = !whole && (first > 0 || a->circular);
    const int64_t below = !whole && (first + lines < a->h || a->circular);
    const int64_t element = (int64_t)dtype_bytes(a->dtype), row = a->ow * a->out * element;
    const int64_t at = (image * a->oh + first) * row;
    struct conv2d_args part = *a;
    struct epilogue_args *e = &part.epilogue;
    int rc = fill(d, b, image, first - above, first + lines + below, err);
    if (rc) return rc;
    part.x = b->norm.y;
    part.y = (char *)part.y + at;
    part.n = 1;
    part.h = lines + above + below;
    part.oh = lines;
    part.pad_top = !above;
    if (e->add) e->add = (const char *)e->add + at;
    if (e->row) e->row = (const char *)e->row + image * a->out * element;
    e->rows_per_image = lines * a->ow;
    return cuda_conv2d_part(d, &part, a, err);
}

/* All pictures have room at once. */
static int run_whole(struct device *d, const struct bands *b, struct error *err)
{
    struct conv2d_args part = b->a->conv;
    int rc = cuda_group_apply(d, &b->norm, err);
    part.x = b->norm.y;
    return rc ? rc : cuda_conv2d(d, &part, err);
}

static int run_bands(struct device *d, const struct bands *b, struct error *err)
{
    const struct conv2d_args *a = &b->a->conv;
    int rc = 0;
    for (int64_t image = 0; !rc && image < a->n; image++)
        for (int64_t line = 0; !rc && line < a->h; line += b->lines)
            rc = run_band(d, b, image, line, a->h - line < b->lines ? a->h - line : b->lines, err);
    return rc;
}

int cuda_norm_conv2d(struct device *d, const struct norm_conv2d_args *args, struct error *err)
{
    const struct conv2d_args *a = &args->conv;
    if (!cuda_dtype_ok(a->dtype)) return cuda_dtype_refuse("norm_conv2d", a->dtype, err);
    if (a->kh != 3 || a->kw != 3 || a->stride > 1 || a->upsample == 2 || a->pad_top != 1 ||
        a->pad_left != 1 || a->oh != a->h || a->ow != a->w_px)
        return error_set(err, ERR_UNSUPPORTED, "norm_conv2d is for 3x3 with a border of one");
    if (!a->n || !a->h || !a->w_px || !a->out) return 0;
    if (!args->room || args->room_bytes < norm_conv2d_room(args, 0))
        return error_set(err, ERR_INTERNAL, "norm_conv2d: room of %zu bytes is too small",
                         args->room_bytes);
    const size_t statistics = norm_conv2d_statistics(args);
    struct bands b = {.a = args, .line = a->w_px * a->c * (int64_t)dtype_bytes(a->dtype)};
    const int64_t held = (int64_t)(args->room_bytes - statistics) / b.line;
    b.norm = (struct group_norm_args){.x = a->x,
                                      .y = (char *)args->room + statistics,
                                      .gamma = args->gamma,
                                      .beta = args->beta,
                                      .mean = args->room,
                                      .rstd = (float *)args->room + a->n * args->groups,
                                      .n = a->n,
                                      .rows = a->h * a->w_px,
                                      .c = a->c,
                                      .groups = args->groups,
                                      .eps = args->eps,
                                      .act = args->act,
                                      .dtype = a->dtype,
                                      .weight_dtype = args->weight_dtype};
    int rc = cuda_group_measure(d, &b.norm, err);
    if (rc) return rc;
    if (held >= a->n * a->h) return run_whole(d, &b, err);
    b.lines = held >= a->h ? a->h : held - 2;
    const int64_t count = (a->h + b.lines - 1) / b.lines; /* of bands, of nearly equal height */
    b.lines = (a->h + count - 1) / count;
    return run_bands(d, &b, err);
}
