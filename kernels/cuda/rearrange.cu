/* rearrange.cu - copies, turned, enlarged and packed. Contracts in kernels.h, launchers in pointwise.h. */
#include "kernels/cuda/pointwise_kernel.h"

/* ---- copies ---- */

/* 16 bytes a thread, same dtype; cols and pitches are whole chunks */
template <class T> KERNEL(block_threads, 4) copy_chunks_kernel(const copy_args p)
{
    const int64_t per_row = p.cols / chunk<T>::width, index = item();
    const int64_t row = index / per_row, column = (index - row * per_row) * chunk<T>::width;
    if (row >= p.rows) return;
    global_store((T *)p.y + row * p.ldy + column,
                 global_load<word16>((const T *)p.x + row * p.ldx + column));
}

template <class TY, class TX> KERNEL(block_threads, 4) copy_kernel(const copy_args p)
{
    const int64_t index = item(), row = index / p.cols, column = index - row * p.cols;
    if (row >= p.rows) return;
    TY *y = (TY *)p.y + row * p.ldy + column;
    float v = to_float(global_load<TX>((const TX *)p.x + row * p.ldx + column));
    if (p.accumulate) v += to_float(global_load<TY>(y));
    global_store(y, to_storage<TY>(v));
}

template <class TY> static int copy_to(const struct copy_args *a, void *stream)
{
    dim3 grid = blocks_for(a->rows * a->cols);
    if (a->x_dtype == DTYPE_F32)
        return launch<copy_kernel<TY, float>>("copy", grid, block_threads, 0, stream, *a);
    if (a->x_dtype == DTYPE_F16)
        return launch<copy_kernel<TY, f16>>("copy", grid, block_threads, 0, stream, *a);
    return launch<copy_kernel<TY, bf16>>("copy", grid, block_threads, 0, stream, *a);
}

extern "C" int pointwise_copy(const struct copy_args *a, void *stream)
{
    int64_t width = a->y_dtype == DTYPE_F32 ? 4 : 8;
    if (a->y_dtype == a->x_dtype && !a->accumulate && (a->cols | a->ldx | a->ldy) % width == 0 &&
        (((uintptr_t)a->x | (uintptr_t)a->y) & 15) == 0)
        return BY_DTYPE(a->y_dtype, copy_chunks_kernel, "copy_chunks",
                        blocks_for(a->rows * a->cols / width), stream, *a);
    if (a->y_dtype == DTYPE_F32) return copy_to<float>(a, stream);
    if (a->y_dtype == DTYPE_F16) return copy_to<f16>(a, stream);
    return copy_to<bf16>(a, stream);
}

/* y[n,b,a] = x[n,a,b] through 32 x 32 tiles in shared memory; one column more, so that neither side
 * meets a bank twice. Grid: a tiles, b tiles, n, in
 * x and y as they fit (the longer side in x). */
static constexpr int turn_tile = 32, turn_pitch = (turn_tile + 1) * 4;

template <class T> KERNEL(block_threads, 4) transpose_kernel(const transpose_args p)
{
    const shared_t tile = shared_base();
    const int x = thread_index() % turn_tile, y = thread_index() / turn_tile;
    const bool a_in_x = p.a > p.b;
    const int64_t a0 = (int64_t)(a_in_x ? block_x() : block_y()) * turn_tile;
    const int64_t b0 = (int64_t)(a_in_x ? block_y() : block_x()) * turn_tile;
    const T *from = (const T *)p.x + block_z() * p.a * p.b;
    T *to = (T *)p.y + block_z() * p.a * p.b;
    for (int i = y; i < turn_tile; i += block_threads / turn_tile) {
        if (a0 + i < p.a && b0 + x < p.b)
            shared_store(tile + i * turn_pitch + x * 4,
                         to_float(global_load<T>(from + (a0 + i) * p.b + b0 + x)));
    }
    block_sync();
    for (int i = y; i < turn_tile; i += block_threads / turn_tile) {
        if (a0 + x < p.a && b0 + i < p.b)
            global_store(to + (b0 + i) * p.a + a0 + x,
                         to_storage<T>(shared_load<float>(tile + x * turn_pitch + i * 4)));
    }
}

extern "C" int pointwise_transpose(const struct transpose_args *a, void *stream)
{
    transpose_args part = *a;
    size_t bytes = a->dtype == DTYPE_F32 ? 4 : 2, image = (size_t)(a->a * a->b) * bytes;
    for (int64_t n = 0; n < a->n; n += 65535) {
        part.n = a->n - n < 65535 ? a->n - n : 65535;
        part.x = (const char *)a->x + (size_t)n * image;
        part.y = (char *)a->y + (size_t)n * image;
        int64_t a_tiles = (a->a + turn_tile - 1) / turn_tile,
                b_tiles = (a->b + turn_tile - 1) / turn_tile;
        dim3 grid((unsigned)(a->a > a->b ? a_tiles : b_tiles),
                  (unsigned)(a->a > a->b ? b_tiles : a_tiles), (unsigned)part.n);
        int rc;
        if (a->dtype == DTYPE_F32)
            rc = launch<transpose_kernel<float>>("transpose", grid, block_threads,
                                                 turn_tile * turn_pitch, stream, part);
        else if (a->dtype == DTYPE_F16)
            rc = launch<transpose_kernel<f16>>("transpose", grid, block_threads,
                                               turn_tile * turn_pitch, stream, part);
        else
            rc = launch<transpose_kernel<bf16>>("transpose", grid, block_threads,
                                                turn_tile * turn_pitch, stream, part);
        if (rc) return rc;
    }
    return 0;
}

/* ---- nearest enlargement ---- */

template <class T> KERNEL(block_threads, 4) upsample_kernel(const upsample_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int64_t source = (n * p.h + oy * p.h / p.oh) * p.w + ox * p.w / p.ow;
    const T *x = (const T *)p.x + source * p.c + c;
    T *y = (T *)p.y + pixel * p.c + c;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    chunk<T> v;
    v.load(x, live, p.c % width == 0 && is_aligned(p.x));
    v.store(y, live, p.c % width == 0 && is_aligned(p.y));
}

/* first output line or column that shows input `i`, of `small` -> `large` */
DEVICE int64_t first_shown(int64_t i, int64_t small, int64_t large)
{
    return (i * large + small - 1) / small;
}

template <class T> KERNEL(block_threads, 4) upsample_grad_kernel(const upsample_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.h * p.w) return;
    const int x = (int)(pixel % p.w), y = (int)(pixel / p.w % p.h);
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    const int top = (int)first_shown(y, p.h, p.oh), left = (int)first_shown(x, p.w, p.ow);
    const int rows = (int)first_shown(y + 1, p.h, p.oh) - top;
    const int columns = (int)first_shown(x + 1, p.w, p.ow) - left;
    T *dx = (T *)p.dx + pixel * p.c + c;
    const T *dy = (const T *)p.dy + ((pixel / p.w / p.h * p.oh + top) * p.ow + left) * p.c + c;
    chunk<T> sum, v;
    UNROLL
    for (int i = 0; i < width; i++) sum.v[i] = 0.0f;
    if (p.accumulate) sum.load(dx, live, whole && is_aligned(p.dx));
    for (int row = 0; row < rows; row++, dy += p.ow * p.c) {
        for (int column = 0; column < columns; column++) {
            v.load(dy + column * p.c, live, whole && is_aligned(p.dy));
            UNROLL
            for (int i = 0; i < width; i++) sum.v[i] += v.v[i];
        }
    }
    sum.store(dx, live, whole && is_aligned(p.dx));
}

extern "C" int pointwise_upsample(const struct upsample_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, upsample_kernel, "upsample",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

extern "C" int pointwise_upsample_grad(const struct upsample_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, upsample_grad_kernel, "upsample_grad",
                    blocks_for(a->n * a->h * a->w * chunks_of(a->c, a->dtype)), stream, *a);
}

/* ---- the largest of a window, and the value between pixels ---- */

template <class T> KERNEL(block_threads, 4) max_pool_kernel(const max_pool_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    bool any = false;
    chunk<T> most, v;
    for (int i = 0; i < width; i++) most.v[i] = 0.0f;
    for (int k = 0; k < p.kernel * p.kernel; k++) {
        const int64_t row = oy * p.stride - p.pad + k / p.kernel;
        const int64_t column = ox * p.stride - p.pad + k % p.kernel;
        if (row < 0 || row >= p.h || column < 0 || column >= p.w) continue;
        v.load((const T *)p.x + ((n * p.h + row) * p.w + column) * p.c + c, live,
               whole && is_aligned(p.x));
        for (int i = 0; i < width; i++)
            if (!any || v.v[i] > most.v[i]) most.v[i] = v.v[i];
        any = true;
    }
    most.store((T *)p.y + pixel * p.c + c, live, whole && is_aligned(p.y));
}

extern "C" int pointwise_max_pool(const struct max_pool_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, max_pool_kernel, "max_pool",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

/* the pixel before output i of `to`, and how far behind it lies */
DEVICE int64_t pixel_before(int64_t i, int64_t from, int64_t to, float *part)
{
    float at = ((float)i + 0.5f) * (float)from / (float)to - 0.5f;
    if (at < 0.0f) at = 0.0f;
    int64_t pixel = (int64_t)at;
    if (pixel > from - 1) pixel = from - 1;
    *part = at - (float)pixel;
    return pixel;
}

template <class T> KERNEL(block_threads, 4) bilinear_kernel(const bilinear_args p)
{
    const int width = chunk<T>::width;
    const int64_t per_pixel = (p.c + width - 1) / width, index = item();
    const int64_t pixel = index / per_pixel, c = (index - pixel * per_pixel) * width;
    if (pixel >= p.n * p.oh * p.ow) return;
    const int64_t ox = pixel % p.ow, oy = pixel / p.ow % p.oh, n = pixel / p.ow / p.oh;
    const int live = p.c - c < width ? (int)(p.c - c) : width;
    const bool whole = p.c % width == 0;
    float down, right;
    const int64_t y0 = pixel_before(oy, p.h, p.oh, &down);
    const int64_t x0 = pixel_before(ox, p.w, p.ow, &right);
    const int64_t y1 = y0 + 1 < p.h ? y0 + 1 : y0, x1 = x0 + 1 < p.w ? x0 + 1 : x0;
    chunk<T> sum, v;
    for (int i = 0; i < width; i++) sum.v[i] = 0.0f;
    for (int k = 0; k < 4; k++) {
        const int64_t row = k / 2 ? y1 : y0, column = k % 2 ? x1 : x0;
        const float share = (k / 2 ? down : 1.0f - down) * (k % 2 ? right : 1.0f - right);
        v.load((const T *)p.x + ((n * p.h + row) * p.w + column) * p.c + c, live,
               whole && is_aligned(p.x));
        for (int i = 0; i < width; i++) sum.v[i] += share * v.v[i];
    }
    sum.store((T *)p.y + pixel * p.c + c, live, whole && is_aligned(p.y));
}

extern "C" int pointwise_bilinear(const struct bilinear_args *a, void *stream)
{
    return BY_DTYPE(a->dtype, bilinear_kernel, "bilinear",
                    blocks_for(a->n * a->oh * a->ow * chunks_of(a->c, a->dtype)), stream, *a);
}

/* ---- embeddings ---- */

template <class T> KERNEL(block_threads, 4) embedding_kernel(const struct pointwise_embedding p)
{
    const int64_t index = item(), row = index / p.d, column = index - row * p.d;
    if (row >= p.count) return;
    const int64_t id = global_load<int32_t>(p.id + row);
    global_store((T *)p.y + index, global_load<T>((const T *)p.table + id * p.d + column));
}

/* one thread a column: rows that name the same id add up in order */
template <class T>
KERNEL(block_threads, 4)
embedding_grad_kernel(const struct pointwise_embedding p)
{
    const int64_t column = item();
    if (column >= p.d) return;
    for (int64_t row = 0; row < p.count; row++) {
        float *to = p.dtable + (int64_t)global_load<int32_t>(p.id + row) * p.d + column;
        float v = to_float(global_load<T>((const T *)p.dy + row * p.d + column));
        global_store(to, global_load<float>(to) + v);
    }
}

extern "C" int pointwise_embedding(const struct pointwise_embedding *a, void *stream)
{
    return BY_DTYPE(a->dtype, embedding_kernel, "embedding", blocks_for(a->count * a->d), stream,
                    *a);
}

extern "C" int pointwise_embedding_grad(const struct pointwise_embedding *a, void *stream)
{
    return BY_DTYPE(a->dtype, embedding_grad_kernel, "embedding_grad", blocks_for(a->d), stream,
                    *a);
}

/* ---- packing weights ---- */

DEVICE float pack_source(const struct pointwise_pack &p, int64_t at)
{
    if (p.from_dtype == DTYPE_F32) return global_load<float>((const float *)p.from + at);
    if (p.from_dtype == DTYPE_F16) return to_float(global_load<f16>((const f16 *)p.from + at));
    return to_float(global_load<bf16>((const bf16 *)p.from + at));
}

/* Which of the three taps fall on source line `line` (0 or 1) of phase `phase`: the first and one
 * past the last. Phase 0 reads lines i-1 (tap 0) and i (1, 2), phase 1 lines i (0, 1), i+1 (2). */
DEVICE int phase_first(int phase, int line)
{
    return line == 0 ? 0 : phase == 0 ? 1 : 2;
}
DEVICE int phase_end(int phase, int line)
{
    return line == 1 ? 3 : phase == 0 ? 1 : 2;
}

template <class T> KERNEL(block_threads, 4) pack_kernel(const struct pointwise_pack p)
{
    const int taps = p.phases ? 4 : p.taps;
    const int64_t each = p.out * taps * p.c, index = item();
    if (index >= each * (p.phases ? 4 : 1)) return;
    const int phase = (int)(index / each);
    const int64_t c = index % p.c, tap = index / p.c % taps, to_row = index % each / p.c / taps;
    int64_t o = to_row;
    if (p.geglu) o = to_row / 16 * 8 + to_row % 8 + (to_row % 16 >= 8 ? p.out / 2 : 0);
    const int64_t from = (o * p.c + c) * p.taps;
    float v = 0.0f;
    if (p.phases) {
        const int py = phase >> 1, px = phase & 1, line = (int)tap >> 1, column = (int)tap & 1;
        for (int y = phase_first(py, line); y < phase_end(py, line); y++)
            for (int x = phase_first(px, column); x < phase_end(px, column); x++)
                v += pack_source(p, from + y * 3 + x);
    } else {
        v = pack_source(p, from + tap);
    }
    global_store((T *)p.to + index, to_storage<T>(v));
}

extern "C" int pointwise_pack(const struct pointwise_pack *a, void *stream)
{
    int64_t items = a->out * a->c * (a->phases ? 16 : a->taps);
    return BY_DTYPE(a->to_dtype, pack_kernel, "pack", blocks_for(items), stream, *a);
}
