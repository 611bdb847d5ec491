#include "kernels/cpu/cpu_winograd.h"

#include "kernels/cpu/cpu_epilogue.h"
#include "kernels/cpu/cpu_fill.h"
#include "kernels/cpu/cpu_pack.h"

#define PLANES 16 /* elements of a transformed 4x4 neighbourhood, each a product of its own */
#define BAND_BYTES ((int64_t)8 << 20) /* of transformed tiles: they stay in the last cache */
#define CHUNK_BYTES ((size_t)8 << 20) /* of planes made for a call of one band */
#define TILES_TASK 8

struct winograd {
    struct matrix plane; /* first, for fill_rows: one plane of v */
    const struct conv2d_args *a;
    struct epilogue epilogue;
    int64_t tiles_y, tiles_x;
    int64_t first, count; /* tiles of this band */
    float *v;             /* [PLANES][band][c] */
    float *m;             /* [PLANES][band][out] */
    float *m_plane;
    int64_t band;
    const char *planes; /* the weight's, kept for good; or NULL: made of `file` */
    const struct unpacked *file;
    int64_t columns;   /* whose planes are made at a time; all of them: once a call */
    const float *zero; /* c of them */
};

bool winograd_suits(const struct conv2d_args *a)
{
    /* small pictures and few channels are better off without: the transformed weight is 16/9 as large,
     * and the planes are products of too few rows */
    int64_t tiles = a->n * ((a->oh + 1) / 2) * ((a->ow + 1) / 2);
    return panel_dtype(a->dtype) == DTYPE_F32 && a->kh == 3 && a->kw == 3 && a->stride <= 1 &&
           a->upsample != 2 && a->c >= 64 && a->out >= 64 && tiles >= 96 && !a->w->changes;
}

static int64_t wrap(int64_t i, int64_t size, bool circular)
{
    if (circular) return (i % size + size) % size;
    return i < 0 || i >= size ? -1 : i;
}

/* V = B^T d B with B^T = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1] */
ALWAYS_INLINE void spread_tile(const struct winograd *w, int64_t index, const enum dtype t)
{
    const struct conv2d_args *a = w->a;
    int64_t tile = w->first + index, tx = tile % w->tiles_x, line = tile / w->tiles_x;
    int64_t ty = line % w->tiles_y, image = line / w->tiles_y;
    const char *x = at(a->x, image * a->h * a->w_px * a->c, t), *d[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int64_t y = wrap(2 * ty + i - a->pad_top, a->h, a->circular);
            int64_t xx = wrap(2 * tx + j - a->pad_left, a->w_px, a->circular);
            d[i][j] = y < 0 || xx < 0 ? (const char *)w->zero : at(x, (y * a->w_px + xx) * a->c, t);
        }
    float *to = w->v + index * a->c;
    const int64_t plane = w->band * a->c;
    for (int64_t k = 0; k < a->c; k += VL) {
        int lanes = a->c - k < VL ? (int)(a->c - k) : VL;
        vf r[4][4];
        for (int j = 0; j < 4; j++) {
            vf in[4];
            for (int i = 0; i < 4; i++)
                in[i] = lanes == VL ? vf_load(d[i][j], k, t) : vf_load_n(d[i][j], k, t, lanes);
            r[0][j] = in[0] - in[2];
            r[1][j] = in[1] + in[2];
            r[2][j] = in[2] - in[1];
            r[3][j] = in[1] - in[3];
        }
        for (int i = 0; i < 4; i++) {
            const vf out[4] = {r[i][0] - r[i][2], r[i][1] + r[i][2], r[i][2] - r[i][1],
                               r[i][1] - r[i][3]};
            for (int j = 0; j < 4; j++)
                vf_store_n(to + (i * 4 + j) * plane, k, DTYPE_F32, out[j], lanes);
        }
    }
}

static void spread_task(void *context, int64_t task, int worker)
{
    const struct winograd *w = context;
    for (int64_t i = task * TILES_TASK; i < (task + 1) * TILES_TASK && i < w->count; i++)
        CPU_BY_DTYPE(w->a->dtype, spread_tile, w, i);
}

static void store_plane(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                        int64_t n0, int64_t cols)
{
    const struct winograd *w = g->context;
    for (int64_t r = 0; r < rows; r++)
        copy_elements((char *)(w->m_plane + (m0 + r) * w->a->out + n0),
                      (const char *)(tile + r * GEMM_NR), cols * 4);
}

/* Y = A^T m A with A^T = [1 1 1 0; 0 1 -1 -1], one panel of columns of one tile */
static void gather_panel(const struct winograd *w, int64_t index, int64_t n0, int64_t cols,
                         float pixel[4][GEMM_NR])
{
    const int64_t out = w->a->out, plane = w->band * out;
    const float *from = w->m + index * out + n0;
    for (int64_t k = 0; k < cols; k += VL) {
        int lanes = cols - k < VL ? (int)(cols - k) : VL;
        vf r[2][4];
        for (int j = 0; j < 4; j++) {
            vf in[4];
            for (int i = 0; i < 4; i++)
                in[i] = vf_load_n(from + (i * 4 + j) * plane, k, DTYPE_F32, lanes);
            r[0][j] = in[0] + in[1] + in[2];
            r[1][j] = in[1] - in[2] - in[3];
        }
        for (int i = 0; i < 2; i++) {
            *(vf *)(pixel[2 * i] + k) = r[i][0] + r[i][1] + r[i][2];
            *(vf *)(pixel[2 * i + 1] + k) = r[i][1] - r[i][2] - r[i][3];
        }
    }
}

static void gather_tile(const struct winograd *w, int64_t index)
{
    const struct conv2d_args *a = w->a;
    int64_t tile = w->first + index, tx = tile % w->tiles_x, line = tile / w->tiles_x;
    int64_t ty = line % w->tiles_y, image = line / w->tiles_y;
    int64_t width = a->ow - 2 * tx < 2 ? 1 : 2, height = a->oh - 2 * ty < 2 ? 1 : 2;
    for (int64_t n0 = 0; n0 < a->out; n0 += GEMM_NR) {
        int64_t cols = a->out - n0 < GEMM_NR ? a->out - n0 : GEMM_NR;
        float pixel[4][GEMM_NR];
        gather_panel(w, index, n0, cols, pixel);
        for (int64_t y = 0; y < height; y++)
            epilogue_store(&w->epilogue, pixel[2 * y],
                           (image * a->oh + 2 * ty + y) * a->ow + 2 * tx, width, n0, cols);
    }
}

static void gather_task(void *context, int64_t task, int worker)
{
    const struct winograd *w = context;
    for (int64_t i = task * TILES_TASK; i < (task + 1) * TILES_TASK && i < w->count; i++)
        gather_tile(w, i);
}

/* The products of columns [first, end) of a band. */
static void run_columns(struct device *d, struct winograd *w, const char *planes, int64_t first,
                        int64_t end)
{
    const struct conv2d_args *a = w->a;
    size_t plane_bytes = gemm_packed_bytes(a->c, end - first, DTYPE_F32);
    for (int p = 0; p < PLANES; p++) {
        w->plane = (struct matrix){w->v + p * w->band * a->c, a->c, DTYPE_F32};
        w->m_plane = w->m + p * w->band * a->out + first;
        struct gemm g = {.m = w->count,
                         .n = end - first,
                         .k = a->c,
                         .a_dtype = DTYPE_F32,
                         .fill_a = fill_rows,
                         .b = planes + plane_bytes * (size_t)p,
                         .store = store_plane,
                         .context = w};
        gemm_run(d, &g);
    }
}

static void run_band(struct device *d, struct winograd *w)
{
    const struct conv2d_args *a = w->a;
    struct cpu_state *s = cpu_state(d);
    int64_t tasks = (w->count + TILES_TASK - 1) / TILES_TASK;
    pool_run(s->pool, tasks, spread_task, w);
    for (int64_t first = 0; first < a->out; first += w->columns) {
        int64_t end = first + w->columns < a->out ? first + w->columns : a->out;
        bool made = w->planes || (w->first && w->columns >= a->out);
        if (!made) pack_planes(d, s->panels, w->file, first, end);
        run_columns(d, w, w->planes ? w->planes : s->panels, first, end);
    }
    pool_run(s->pool, tasks, gather_task, w);
}

/* Planes that are used by one band stay in the last cache while they are; for several bands they are
 * made once, whole. Either way the same bits as planes kept for good, at a tenth of their memory. */
static int reserve_planes(struct device *d, struct winograd *w, bool once, struct error *err)
{
    const struct conv2d_args *a = w->a;
    size_t panel = PLANES * gemm_packed_bytes(a->c, GEMM_NR, DTYPE_F32);
    int64_t panels = (a->out + GEMM_NR - 1) / GEMM_NR, most = (int64_t)(CHUNK_BYTES / panel);
    if (once && most < panels) {
        int64_t chunks = (panels + (most ? most : 1) - 1) / (most ? most : 1);
        panels = (panels + chunks - 1) / chunks;
    }
    w->columns = panels * GEMM_NR;
    return cpu_panels_reserve(d, panel * (size_t)panels, err);
}

int winograd_conv2d(struct device *d, const struct conv2d_args *a, struct error *err)
{
    struct winograd w = {.a = a, .tiles_y = (a->oh + 1) / 2, .tiles_x = (a->ow + 1) / 2};
    int64_t tiles = a->n * w.tiles_y * w.tiles_x, tile_bytes = PLANES * (a->c + a->out) * 4;
    int64_t bands = tiles * tile_bytes / BAND_BYTES + 1;
    if (tiles / bands < 128) bands = tiles / 128 > 0 ? tiles / 128 : 1;
    w.band = (tiles + bands - 1) / bands;
    struct pack_b b;
    int rc = pack_get(&b, d, a->w, (struct pack_shape){a->out, a->c, 3, 3}, PACK_WINOGRAD,
                      DTYPE_F32, err);
    size_t v_bytes = (size_t)(PLANES * w.band * a->c) * 4, zero_bytes = (size_t)a->c * 4;
    size_t m_bytes = (size_t)(PLANES * w.band * a->out) * 4;
    w.planes = b.packed;
    w.file = &b.file;
    w.columns = a->out;
    if (!rc && !w.planes) rc = reserve_planes(d, &w, w.band >= tiles, err);
    if (!rc)
        rc = epilogue_start(&w.epilogue, d, &a->epilogue, a->out, v_bytes + m_bytes + zero_bytes,
                            err);
    if (rc) return rc;
    w.epilogue.y = a->y;
    w.epilogue.ldy = a->out;
    w.epilogue.dtype = a->dtype;
    w.v = cpu_scratch_take(d, v_bytes);
    w.m = cpu_scratch_take(d, m_bytes);
    w.zero = memset(cpu_scratch_take(d, zero_bytes), 0, zero_bytes);
    for (w.first = 0; w.first < tiles; w.first += w.band) {
        w.count = tiles - w.first < w.band ? tiles - w.first : w.band;
        run_band(d, &w);
    }
    return 0;
}
