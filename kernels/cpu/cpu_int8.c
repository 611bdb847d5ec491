#include "kernels/cpu/cpu_int8.h"

#include "base/alloc.h"
#include "kernels/cpu/cpu_conv.h"
#include "kernels/cpu/cpu_epilogue.h"
#include "kernels/cpu/cpu_fill.h"

/* ---- the microkernel ---- */

/* Four bytes a lane: c += a . b, a unsigned and b signed, exactly. */
#if VL == 8 && defined(__x86_64__)
#define AVX_VNNI /* an instruction that some processors with AVX2 have; asked at run time */
ALWAYS_INLINE vi step_vnni(vi c, vu a, vu b)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return c;
}
#else
#define step_vnni step_bytes
#endif

#if VL == 16 && defined(__AVX512VNNI__)
ALWAYS_INLINE vi step_bytes(vi c, vu a, vu b)
{
    return (vi)_mm512_dpbusd_epi32((__m512i)c, (__m512i)a, (__m512i)b);
}
#elif VL >= 8
/* Even and odd bytes as halves of 16 bits; pairs of bytes in one go would saturate. */
ALWAYS_INLINE vi pair_sums(vi a, vi b)
{
#if VL == 16
    return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#else
    return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}

ALWAYS_INLINE vi odd_bytes(vu b)
{
#if VL == 16
    return (vi)_mm512_srai_epi16((__m512i)b, 8);
#else
    return (vi)_mm256_srai_epi16((__m256i)b, 8);
#endif
}

ALWAYS_INLINE vi even_bytes(vu b)
{
#if VL == 16
    return odd_bytes((vu)_mm512_slli_epi16((__m512i)b, 8));
#else
    return odd_bytes((vu)_mm256_slli_epi16((__m256i)b, 8));
#endif
}

ALWAYS_INLINE vi step_bytes(vi c, vu a, vu b)
{
    c += pair_sums((vi)(a & 0x00ff00ff), even_bytes(b));
    return c + pair_sums((vi)(a >> 8 & 0x00ff00ff), odd_bytes(b));
}
#else
ALWAYS_INLINE vi step_bytes(vi c, vu a, vu b)
{
    for (int i = 0; i < 4; i++) c += (vi)(a >> (8 * i) & 0xff) * ((vi)(b << (24 - 8 * i)) >> 24);
    return c;
}
#endif

ALWAYS_INLINE vf to_floats(vi x)
{
#if VL == 16
    return (vf)_mm512_cvtepi32_ps((__m512i)x);
#elif VL == 8
    return (vf)_mm256_cvtepi32_ps((__m256i)x);
#else
    return __builtin_convertvector(x, vf);
#endif
}

ALWAYS_INLINE void micro(const int mr, const int nv, float *restrict c, int64_t ldc,
                         const char *restrict a, const char *restrict b, int64_t steps,
                         bool accumulate, const bool vnni)
{
    vi acc[GEMM_MR][2];
    const vi *sums = (const vi *)(b + steps * GEMM_NR * 4);
    const char *row = a + INT8_PART;
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            vi zero = (vi){0} + ((const struct int8_row *)(row + (size_t)i * GEMM_PITCH))->zero;
            acc[i][v] = -zero * sums[v];
        }
#pragma GCC unroll 1
    for (int64_t s = 0; s < steps; s++) {
        vu bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = *(const vu *)(b + (size_t)v * VL * 4);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            vu av = (vu){0} + *(const uint32_t *)(a + (size_t)i * GEMM_PITCH);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++)
                acc[i][v] =
                    vnni ? step_vnni(acc[i][v], av, bv[v]) : step_bytes(acc[i][v], av, bv[v]);
        }
        a += 4;
        b += GEMM_NR * 4;
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
        vf scale = vf_set(((const struct int8_row *)(row + (size_t)i * GEMM_PITCH))->scale);
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            vf *to = (vf *)(c + i * ldc + v * VL), sum = to_floats(acc[i][v]) * scale;
            if (accumulate) sum += *to;
            *to = sum;
        }
    }
}

#define MICRO(mr, nv, name, vnni)                                                                  \
    static void name##_##mr##_##nv(float *c, int64_t ldc, const char *a, const char *b,            \
                                   int64_t steps, bool accumulate)                                 \
    {                                                                                              \
        micro(mr, nv, c, ldc, a, b, steps, accumulate, vnni);                                      \
    }
#define MICRO_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define MICRO_MORE_ROWS(X) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define MICRO_ROW(mr) MICRO(mr, 1, micro, false) MICRO(mr, 2, micro, false)
#define MICRO_ENTRY(mr) {micro_##mr##_1, micro_##mr##_2},
MICRO_ROWS(MICRO_ROW)
#if GEMM_MR > 6
MICRO_MORE_ROWS(MICRO_ROW)
#endif

typedef void (*micro_function)(float *, int64_t, const char *, const char *, int64_t, bool);

static const micro_function micro_table[GEMM_MR][2] = {MICRO_ROWS(MICRO_ENTRY)
#if GEMM_MR > 6
                                                           MICRO_MORE_ROWS(MICRO_ENTRY)
#endif
};

#ifdef AVX_VNNI
#define VNNI_ROW(mr) MICRO(mr, 1, vnni, true) MICRO(mr, 2, vnni, true)
#define VNNI_ENTRY(mr) {vnni_##mr##_1, vnni_##mr##_2},
MICRO_ROWS(VNNI_ROW)

static const micro_function vnni_table[GEMM_MR][2] = {MICRO_ROWS(VNNI_ENTRY)};
#endif

void int8_tile(float *c, int64_t ldc, const void *a, const void *b, int64_t steps, int64_t rows,
               int64_t cols, bool accumulate)
{
#ifdef AVX_VNNI
    if (__builtin_cpu_supports("avxvnni")) {
        vnni_table[rows - 1][cols > VL](c, ldc, a, b, steps, accumulate);
        return;
    }
#endif
    micro_table[rows - 1][cols > VL](c, ldc, a, b, steps, accumulate);
}

/* ---- the weight ---- */

/* How a row of K goes: [tap][part], each `width` elements. */
struct parts {
    int64_t taps, count, width; /* parts of a tap */
};

static struct parts parts_of(struct pack_shape s)
{
    struct parts p = {s.kh * s.kw, 1, s.c};
    while (p.width > INT8_PART || s.c % p.count) p.width = s.c / ++p.count;
    /* four bytes a step: where no count divides so, a part is four elements, which always does */
    while (p.width % 4 || s.c % p.count) p.width = s.c / ++p.count;
    return p;
}

struct form { /* in one block: panels, then a factor a column */
    char *panels;
    float *factor;
    int64_t steps; /* of B, sums included */
};

static size_t form_of(struct form *f, char *memory, struct pack_shape s, struct parts p)
{
    int64_t columns = (s.out + GEMM_NR - 1) / GEMM_NR * GEMM_NR;
    f->steps = p.taps * p.count * (p.width / 4 + 1);
    f->panels = memory;
    size_t panels = (size_t)(columns * f->steps) * 4;
    f->factor = memory ? (float *)(memory + panels) : NULL;
    return panels + (size_t)columns * 4;
}

struct rounding {
    struct device *device;
    const struct kernel_weight *w;
    struct pack_shape shape;
    struct parts parts;
    struct form form;
};

/* The nearest integer, ties to even, of a float that is at most 2^22; as any instruction set does it. */
ALWAYS_INLINE int32_t nearest(float x)
{
    float shifted = x + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    return bits - 0x4b400000;
}

/* Column n of a panel: the words of its row, a step GEMM_NR words apart, and each slice's sum. */
static void round_column(const struct rounding *r, int64_t n, float *row)
{
    const struct pack_shape *s = &r->shape;
    const struct parts *p = &r->parts;
    const int64_t k = s->c * p->taps, element = (int64_t)dtype_bytes(r->w->dtype);
    char *column = r->form.panels + (n / GEMM_NR * GEMM_NR * r->form.steps + n % GEMM_NR) * 4;
    dtype_convert(row, DTYPE_F32, (const char *)r->w->data + n * k * element, r->w->dtype, k);
    float most = 0;
    for (int64_t i = 0; i < k; i++) {
        float size = row[i] < 0 ? -row[i] : row[i];
        most = size > most ? size : most;
    }
    const float inverse = most > 0 ? 127 / most : 0;
    r->form.factor[n] = most / 127;
    for (int64_t slice = 0; slice < p->taps * p->count; slice++) {
        int64_t tap = slice / p->count, first = slice % p->count * p->width;
        int32_t sum = 0;
        for (int64_t i = 0; i < p->width; i += 4, column += GEMM_NR * 4) {
            uint32_t word = 0;
            for (int b = 0; b < 4; b++) {
                int32_t value = nearest(row[(first + i + b) * p->taps + tap] * inverse);
                sum += value;
                word |= (uint32_t)(value & 0xff) << (8 * b);
            }
            memcpy(column, &word, 4);
        }
        memcpy(column, &sum, 4);
        column += GEMM_NR * 4;
    }
}

static void round_task(void *context, int64_t task, int worker)
{
    const struct rounding *r = context;
    float *row = (float *)cpu_worker_memory(r->device, worker);
    for (int64_t n = task * GEMM_NR; n < (task + 1) * GEMM_NR; n++) {
        if (n < r->shape.out) {
            round_column(r, n, row);
            continue;
        }
        r->form.factor[n] = 0;
        char *column = r->form.panels + (n / GEMM_NR * GEMM_NR * r->form.steps + n % GEMM_NR) * 4;
        for (int64_t i = 0; i < r->form.steps; i++) memset(column + i * GEMM_NR * 4, 0, 4);
    }
}

static int rounded(struct rounding *r, struct device *d, struct kernel_weight *w,
                   struct pack_shape shape, struct error *err)
{
    *r = (struct rounding){.device = d, .w = w, .shape = shape, .parts = parts_of(shape)};
    size_t bytes = form_of(&r->form, NULL, shape, r->parts);
    struct packed *packed = w->packed;
    if (!packed) w->packed = packed = alloc_zero(1, sizeof *packed);
    char **form = (char **)&packed->form[PACK_INT8][0];
    bool same = memcmp(&packed->shape[PACK_INT8][0], &shape, sizeof shape) == 0;
    if (*form && same && packed->version[PACK_INT8][0] == w->version) {
        form_of(&r->form, *form, shape, r->parts);
        return 0;
    }
    if (w->dtype > DTYPE_F8_E5M2)
        return error_set(err, ERR_UNSUPPORTED, "a weight of %s cannot be multiplied with",
                         dtype_name(w->dtype));
    KILN_ASSERT((size_t)(shape.c * shape.kh * shape.kw) * 4 <= CPU_WORKER_BYTES, "%lld",
                (long long)shape.c);
    cpu_big_free(*form, packed->bytes[PACK_INT8][0]);
    *form = cpu_big_alloc(bytes);
    if (!*form)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of packed weight", bytes);
    cpu_spread(d, *form, bytes);
    packed->bytes[PACK_INT8][0] = bytes;
    form_of(&r->form, *form, shape, r->parts);
    pool_run(cpu_state(d)->pool, (shape.out + GEMM_NR - 1) / GEMM_NR, round_task, r);
    packed->version[PACK_INT8][0] = w->packed_version = w->version;
    packed->shape[PACK_INT8][0] = shape;
    if (w->mapped)
        cpu_forget_pages(w->data, (size_t)(shape.out * shape.c * shape.kh * shape.kw) *
                                      dtype_bytes(w->dtype));
    return 0;
}

/* ---- the product ---- */

struct product {
    struct window window; /* over the bytes */
    struct epilogue epilogue;
    struct parts parts;
    const float *factor;
    const void *x; /* rows of c, ldx apart */
    int64_t rows, ldx;
    enum dtype dtype;
    uint8_t *bytes;       /* [rows][c] */
    struct int8_row *row; /* [rows][parts.count] */
};

#define ROUND_ROWS 16 /* of a task */

ALWAYS_INLINE struct int8_row round_part(uint8_t *to, const void *x, int64_t at, int64_t count,
                                         const enum dtype t)
{
    vf low = {0}, high = {0};
    FOR_VECTORS(
        i, count,
        {
            vf v = vf_load(x, at + i, t);
            low = vf_min(low, v);
            high = vf_max(high, v);
        },
        {
            vf v = vf_load_n(x, at + i, t, lanes);
            low = vf_min(low, v);
            high = vf_max(high, v);
        });
    float least = -vf_highest(-low), span = vf_highest(high) - least;
    struct int8_row row = {.scale = span / 255};
    float inverse = span > 0 ? 255 / span : 0;
    row.zero = nearest(-least * inverse);
    const vf shift = vf_set(12582912.0f + (float)row.zero), none = vf_set(12582912.0f);
    const vf full = vf_set(12582912.0f + 255);
    typedef uint8_t vb __attribute__((vector_size(VL), aligned(1), may_alias));
    FOR_VECTORS(
        i, count,
        {
            vf v = vf_min(vf_max(vf_load(x, at + i, t) * inverse + shift, none), full);
            *(vb *)(to + i) = __builtin_convertvector((vi)v & 0xff, vb);
        },
        {
            vf v = vf_load_n(x, at + i, t, lanes) * inverse + shift;
            vb bytes = __builtin_convertvector((vi)vf_min(vf_max(v, none), full) & 0xff, vb);
            memcpy(to + i, &bytes, (size_t)lanes);
        });
    return row;
}

ALWAYS_INLINE void round_rows(const struct product *p, int64_t first, const enum dtype t)
{
    const int64_t c = p->window.c;
    for (int64_t r = first; r < first + ROUND_ROWS && r < p->rows; r++)
        for (int64_t i = 0; i < p->parts.count; i++)
            p->row[r * p->parts.count + i] =
                round_part(p->bytes + r * c + i * p->parts.width, p->x,
                           r * p->ldx + i * p->parts.width, p->parts.width, t);
}

static void round_rows_task(void *context, int64_t task, int worker)
{
    const struct product *p = context;
    CPU_BY_DTYPE(p->dtype, round_rows, p, task * ROUND_ROWS);
}

/* One part of one tap of each row, its factor and zero behind it. */
static void fill_bytes(const struct gemm *g, void *panel, int64_t m0, int64_t rows, int64_t k0,
                       int64_t count)
{
    const struct product *p = g->context;
    const struct window *w = &p->window;
    int64_t slice = k0 / p->parts.width, tap = slice / p->parts.count, i = slice % p->parts.count;
    struct pixel pixel[GEMM_MC_MAX];
    locate(w, pixel, m0, rows);
    for (int64_t r = 0; r < rows; r++) {
        char *to = (char *)panel + r * GEMM_PITCH;
        struct int8_row *row = (struct int8_row *)(to + INT8_PART);
        const char *from = tap_at(w, &pixel[r], tap / w->kw, tap % w->kw);
        if (!from) {
            memset(to, 0, (size_t)count);
            *row = (struct int8_row){0};
            continue;
        }
        copy_elements(to, from + i * p->parts.width, count);
        *row = p->row[(from - w->data) / w->c * p->parts.count + i];
    }
}

/* A panel's sums times their columns' factors; pitches in floats. */
ALWAYS_INLINE void scale_panel(float *to, const float *tile, int64_t pitch, int64_t rows,
                               const float *factor)
{
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < GEMM_NR; v += VL)
            *(vf *)(to + r * pitch + v) =
                *(const vf *)(tile + r * pitch + v) * *(const vf *)(factor + v);
}

static void store_scaled(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                         int64_t n0, int64_t cols)
{
    const struct product *p = g->context;
    _Alignas(64) float scaled[GEMM_MR * GEMM_NR];
    scale_panel(scaled, tile, GEMM_NR, rows, p->factor + n0);
    epilogue_store(&p->epilogue, scaled, m0, rows, n0, cols);
}

static void store_geglu(const struct gemm *g, const float *tile, int64_t m0, int64_t rows,
                        int64_t n0, int64_t cols)
{
    const struct product *p = g->context;
    const int64_t pitch = 2 * GEMM_NR;
    _Alignas(64) float scaled[GEMM_MR * 2 * GEMM_NR];
    scale_panel(scaled, tile, pitch, rows, p->factor + n0);
    scale_panel(scaled + GEMM_NR, tile + GEMM_NR, pitch, rows, p->factor + g->partner + n0);
    epilogue_store_geglu(&p->epilogue, g->partner, scaled, m0, rows, n0, cols);
}

/* p has its window, but for the bytes, and what it is over. `partner`: GEGLU's distance, or 0. */
static int run(struct device *d, struct product *p, struct kernel_weight *weight, int64_t m,
               int64_t out, int64_t partner, const struct epilogue_args *e, void *y, int64_t ldy,
               struct error *err)
{
    struct window *w = &p->window;
    struct rounding r;
    int rc = rounded(&r, d, weight, (struct pack_shape){out, w->c, w->kh, w->kw}, err);
    if (rc) return rc;
    p->parts = r.parts;
    p->factor = r.form.factor;
    /* a vector past the end is read where a row's bytes are copied */
    size_t bytes = ((size_t)(p->rows * w->c) + 127) / 64 * 64;
    rc = cpu_band_reserve(d, bytes + (size_t)(p->rows * p->parts.count) * sizeof *p->row, err);
    if (!rc) rc = epilogue_start(&p->epilogue, d, e, out, 0, err);
    if (rc) return rc;
    p->bytes = (uint8_t *)cpu_state(d)->band;
    p->row = (struct int8_row *)(p->bytes + bytes);
    w->data = (const char *)p->bytes;
    w->bytes = 1;
    p->epilogue.y = y;
    p->epilogue.ldy = ldy;
    p->epilogue.dtype = p->dtype;
    pool_run(cpu_state(d)->pool, (p->rows + ROUND_ROWS - 1) / ROUND_ROWS, round_rows_task, p);
    struct gemm g = {.m = m,
                     .n = partner ? partner : out,
                     .k = w->kh * w->kw * w->c,
                     .a_dtype = DTYPE_F32,
                     .eight = true,
                     .slice = p->parts.width / 4,
                     .fill_a = fill_bytes,
                     .b = r.form.panels,
                     .partner = partner,
                     .store = partner ? store_geglu : store_scaled,
                     .context = p};
    gemm_run(d, &g);
    return 0;
}

static int run_linear(struct device *d, const struct linear_args *a, int64_t partner,
                      struct error *err)
{
    struct product p = {.x = a->x, .rows = a->m, .ldx = a->ldx, .dtype = a->dtype};
    p.window = (struct window){.h = 1,
                               .w = a->m,
                               .c = a->k,
                               .oh = 1,
                               .ow = a->m,
                               .kh = 1,
                               .kw = 1,
                               .stride = 1,
                               .divide = 1};
    return run(d, &p, a->w, a->m, a->out, partner, &a->epilogue, a->y, a->ldy, err);
}

int int8_linear(struct device *d, const struct linear_args *a, struct error *err)
{
    return run_linear(d, a, 0, err);
}

int int8_linear_geglu(struct device *d, const struct linear_args *a, struct error *err)
{
    return run_linear(d, a, a->out / 2, err);
}

int int8_conv2d(struct device *d, const struct conv2d_args *a, struct error *err)
{
    struct product p = {.x = a->x, .rows = a->n * a->h * a->w_px, .ldx = a->c, .dtype = a->dtype};
    p.window = window_of(a);
    return run(d, &p, a->w, a->n * a->oh * a->ow, a->out, 0, &a->epilogue, a->y, a->out, err);
}
