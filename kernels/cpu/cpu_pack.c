#include "kernels/cpu/cpu_pack.h"

#include "base/alloc.h"
#include "kernels/cpu/cpu_int8.h"
#include "kernels/cpu/cpu_transpose.h"

#define BLOCK 256 /* k of one block: the part of a panel that stays in the first cache */

/* One form being made. Element (k, n) of B number `phase` is the sum of up to four taps of
 * w[o][channel]. */
struct packing {
    struct device *device;
    const struct kernel_weight *w;
    enum pack_form form;
    enum dtype dtype;
    char *to;
    const char *forward; /* PACK_WINOGRAD: the forward form, where there is one, else NULL */
    int64_t out, c, kh, kw;
    int64_t k, n, panels, steps; /* of one B */
    size_t b_bytes;
};

ALWAYS_INLINE float element(const void *data, int64_t i, enum dtype t)
{
    float wide;
    uint16_t half;
    switch (t) { /* mapped files are not aligned */
    case DTYPE_F32: memcpy(&wide, (const char *)data + i * 4, 4); return wide;
    case DTYPE_BF16: memcpy(&half, (const char *)data + i * 2, 2); return bf16_to_f32(half);
    default: return (float)dtype_get(data, t, i);
    }
}

/* Which of three taps meet the coarse tap t of phase p: enlarged line 2Y + p + i - 1 is coarse line
 * (2Y + p + i - 1) >> 1 = Y - 1 + p + t. */
static bool phase_meets(int p, int t, int i)
{
    return ((p + i + 1) >> 1) - 1 == p - 1 + t;
}

/* B element of the phase forms; small weights times few, so clarity before speed */
static float phase_element(const struct packing *p, int phase, int64_t k, int64_t n)
{
    float sum = 0;
    int64_t inner = p->form == PACK_PHASES ? p->c : p->out;
    int64_t tap = k / inner, ch = k % inner;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            bool meets;
            if (p->form == PACK_PHASES) {
                meets = phase_meets(phase / 2, (int)(tap / 2), i) &&
                        phase_meets(phase % 2, (int)(tap % 2), j);
            } else {
                /* dy line 2Y - 1 + u gets from coarse line Y through fine line 2Y or 2Y + 1, which
                 * is dy line + i - 1: i = 2 - u or 3 - u */
                int u = (int)(tap / 4), v = (int)(tap % 4);
                meets = (i == 2 - u || i == 3 - u) && (j == 2 - v || j == 3 - v);
            }
            if (!meets) continue;
            int64_t o = p->form == PACK_PHASES ? n : ch, c = p->form == PACK_PHASES ? ch : n;
            sum += element(p->w->data, ((o * p->c + c) * 3 + i) * 3 + j, p->w->dtype);
        }
    return sum;
}

ALWAYS_INLINE void put(const struct packing *p, char *panel, int64_t k, int64_t j, float value)
{
    if (p->dtype == DTYPE_F32)
        ((float *)panel)[k * GEMM_NR + j] = value;
    else
        ((uint16_t *)panel)[(k / 2 * GEMM_NR + j) * 2 + k % 2] = f32_to_bf16(value);
}

/* Elements [k0, k1) of out row n in the order of B, converted, into a dense row. */
static void forward_row(const struct packing *p, void *row, int64_t n, int64_t k0, int64_t k1)
{
    const int64_t taps = p->kh * p->kw;
    const enum dtype from = p->w->dtype;
    if (taps == 1) {
        const char *data = (const char *)p->w->data + (size_t)(n * p->c + k0) * dtype_bytes(from);
        dtype_convert(row, p->dtype, data, from, k1 - k0);
        return;
    }
    int64_t tap = k0 / p->c, ch = k0 % p->c;
    for (int64_t k = k0; k < k1;) {
        int64_t stop = k1 - k < p->c - ch ? k1 : k + p->c - ch;
        int64_t at = (n * p->c + ch) * taps + tap;
        for (int64_t i = k - k0; k < stop; k++, i++, at += taps) {
            if (from == DTYPE_BF16 && p->dtype == DTYPE_BF16)
                memcpy((uint16_t *)row + i, (const char *)p->w->data + at * 2, 2);
            else if (from == DTYPE_F32 && p->dtype == DTYPE_F32)
                memcpy((float *)row + i, (const char *)p->w->data + at * 4, 4);
            else
                f_store(row, i, p->dtype, element(p->w->data, at, from));
        }
        ch = 0;
        tap++;
    }
}

/* A panel's columns are rows of the weight: gathered, then turned over word by word. */
static void pack_forward(const struct packing *p, char *panel, int64_t n0, char *memory)
{
    const int64_t size = p->dtype == DTYPE_BF16 ? 2 : 4, pitch = BLOCK * 4 + 64;
    int64_t rows = p->n - n0 < GEMM_NR ? p->n - n0 : GEMM_NR;
    memset(memory, 0, (size_t)(GEMM_NR * pitch));
    for (int64_t k0 = 0; k0 < p->k; k0 += BLOCK) {
        int64_t k1 = k0 + BLOCK < p->k ? k0 + BLOCK : p->k;
        int64_t words = ((k1 - k0) * size + 3) / 4;
        for (int64_t j = 0; j < rows; j++) {
            char *row = memory + j * pitch;
            forward_row(p, row, n0 + j, k0, k1);
            if ((k1 - k0) * size % 4) memset(row + (k1 - k0) * size, 0, 2);
        }
        transpose_words(panel + k0 * size / 4 * GEMM_NR * 4, GEMM_NR * 4, memory, pitch, GEMM_NR,
                        words, false);
    }
}

/* Sums of taps for one phase and coarse tap of an enlarging 3x3 convolution: rows first..last of
 * either axis. */
static void phase_span(int phase, int t, int *first, int *last)
{
    for (*first = 0; !phase_meets(phase, t, *first);) ++*first;
    for (*last = *first; *last < 2 && phase_meets(phase, t, *last + 1);) ++*last;
}

/* One of the four sums of three taps that G = [1 0 0; .5 .5 .5; .5 -.5 .5; 0 0 1] makes. */
ALWAYS_INLINE float winograd_sum(int i, float a, float b, float c)
{
    switch (i) {
    case 0: return a;
    case 1: return 0.5f * (a + b + c);
    case 2: return 0.5f * (a - b + c);
    default: return c;
    }
}

/* U = G g G^T: element (i, j) of each channel's 4x4. In the order of winograd_channel, so that the bits
 * do not depend on which of the two made them. */
static void winograd_row(float *to, const float *from, int64_t channels, int i, int j)
{
    for (int64_t ch = 0; ch < channels; ch++, from += 9) {
        float r[3];
        for (int x = 0; x < 3; x++) r[x] = winograd_sum(i, from[x], from[3 + x], from[6 + x]);
        to[ch] = winograd_sum(j, r[0], r[1], r[2]);
    }
}

/* One tap of B (or one tap of one phase) from a row of [channel][taps] floats. */
static void tap_row(const struct packing *p, float *to, const float *from, int64_t channels,
                    int tap)
{
    const int64_t taps = p->kh * p->kw;
    if (p->form == PACK_FORWARD) {
        for (int64_t i = 0; i < channels; i++) to[i] = from[i * taps + tap];
        return;
    }
    if (p->form == PACK_WINOGRAD) {
        winograd_row(to, from, channels, tap / 4, tap % 4);
        return;
    }
    int y0, y1, x0, x1; /* tap counts phase * 4 + coarse tap */
    phase_span(tap / 8, tap / 2 % 2, &y0, &y1);
    phase_span(tap / 4 % 2, tap % 2, &x0, &x1);
    for (int64_t i = 0; i < channels; i++) {
        float sum = 0;
        for (int y = y0; y <= y1; y++)
            for (int x = x0; x <= x1; x++) sum += from[i * 9 + y * 3 + x];
        to[i] = sum;
    }
}

#define TAP_FLOATS 1024 /* taps times channels that are turned over at a time */

/* A panel of a convolution, and of all phases: channels in blocks, so that the weight is read as it
 * lies. Channel counts are even here: pairs of bfloat16 do not straddle taps. */
static void pack_taps(const struct packing *p, int64_t n0, char *memory)
{
    const int64_t taps = p->kh * p->kw, size = p->dtype == DTYPE_BF16 ? 2 : 4;
    const int out_taps = p->form == PACK_FORWARD ? (int)taps : 16;
    const int out_per_b = p->form == PACK_FORWARD ? (int)taps : p->form == PACK_PHASES ? 4 : 1;
    const int64_t most = taps > 16 ? taps : 16;
    const int64_t block = TAP_FLOATS / most < 2 ? 2 : TAP_FLOATS / most / 2 * 2;
    const int64_t pitch = block * size, rows = p->n - n0 < GEMM_NR ? p->n - n0 : GEMM_NR;
    float *source = (float *)memory, *row = source + block * taps;
    char *turned = (char *)(row + block);
    memset(turned, 0, (size_t)(out_taps * GEMM_NR * pitch));
    for (int64_t c0 = 0; c0 < p->c; c0 += block) {
        int64_t channels = p->c - c0 < block ? p->c - c0 : block;
        for (int64_t j = 0; j < rows; j++) {
            size_t at = (size_t)(((n0 + j) * p->c + c0) * taps) * dtype_bytes(p->w->dtype);
            dtype_convert(source, DTYPE_F32, (const char *)p->w->data + at, p->w->dtype,
                          channels * taps);
            for (int t = 0; t < out_taps; t++) {
                char *to = turned + (t * GEMM_NR + j) * pitch;
                if (size == 4) {
                    tap_row(p, (float *)to, source, channels, t);
                    continue;
                }
                tap_row(p, row, source, channels, t);
                FOR_VECTORS(
                    i, channels, vf_store(to, i, DTYPE_BF16, vf_load(row, i, DTYPE_F32)),
                    vf_store_n(to, i, DTYPE_BF16, vf_load_n(row, i, DTYPE_F32, lanes), lanes));
            }
        }
        for (int t = 0; t < out_taps; t++) {
            char *panel =
                p->to + p->b_bytes * (size_t)(t / out_per_b) + (size_t)(n0 * p->steps) * 4;
            int64_t k = t % out_per_b * p->c + c0;
            transpose_words(panel + k * size / 4 * GEMM_NR * 4, GEMM_NR * 4,
                            turned + t * GEMM_NR * pitch, pitch, GEMM_NR, channels * size / 4,
                            false);
        }
    }
}

static void pack_backward(const struct packing *p, char *panel, int64_t n0)
{
    const int64_t taps = p->kh * p->kw;
    int64_t cols = p->n - n0 < GEMM_NR ? p->n - n0 : GEMM_NR;
    memset(panel, 0, (size_t)(p->steps * GEMM_NR) * 4);
    for (int64_t k = 0; k < p->k; k++) {
        int64_t tap = taps - 1 - k / p->out, o = k % p->out;
        int64_t at = (o * p->c + n0) * taps + tap;
        if (p->w->dtype == DTYPE_F32 && p->dtype == DTYPE_F32)
            for (int64_t j = 0; j < cols; j++)
                memcpy((float *)panel + k * GEMM_NR + j,
                       (const char *)p->w->data + (at + j * taps) * 4, 4);
        else
            for (int64_t j = 0; j < cols; j++)
                put(p, panel, k, j, element(p->w->data, at + j * taps, p->w->dtype));
    }
}

static void pack_phases(const struct packing *p, char *panel, int phase, int64_t n0)
{
    memset(panel, 0, (size_t)(p->steps * GEMM_NR) * 4);
    for (int64_t j = 0; j < GEMM_NR && n0 + j < p->n; j++)
        for (int64_t k = 0; k < p->k; k++) put(p, panel, k, j, phase_element(p, phase, k, n0 + j));
}

/* One channel of a panel's planes: a vector row at `to`, the planes `plane_bytes` apart; taps of
 * `from` lie `pitch` floats apart. */
static void winograd_channel(char *to, size_t plane_bytes, const float *from, int64_t pitch)
{
    for (int v = 0; v < GEMM_NR; v += VL) {
        vf r[4][3];
        for (int x = 0; x < 3; x++) {
            vf tap[3];
            for (int y = 0; y < 3; y++) tap[y] = *(const vf *)(from + (y * 3 + x) * pitch + v);
            r[0][x] = tap[0];
            r[1][x] = 0.5f * (tap[0] + tap[1] + tap[2]);
            r[2][x] = 0.5f * (tap[0] - tap[1] + tap[2]);
            r[3][x] = tap[2];
        }
        for (int i = 0; i < 4; i++) {
            const vf u[4] = {r[i][0], 0.5f * (r[i][0] + r[i][1] + r[i][2]),
                             0.5f * (r[i][0] - r[i][1] + r[i][2]), r[i][2]};
            for (int j = 0; j < 4; j++)
                *(vf *)(to + plane_bytes * (size_t)(i * 4 + j) + v * 4) = u[j];
        }
    }
}

/* The same from rows that are vectors already, those of the forward form. */
static void pack_winograd(const struct packing *p, int64_t index)
{
    const float *from = (const float *)p->forward + index * GEMM_NR * p->c * 9;
    char *to = p->to + (size_t)(index * p->c * GEMM_NR) * 4;
    for (int64_t ch = 0; ch < p->c; ch++)
        winograd_channel(to + ch * GEMM_NR * 4, p->b_bytes, from + ch * GEMM_NR, p->c * GEMM_NR);
}

#define PLANE_BLOCKS 4 /* of UNPACKED_RUN channels, in a task */

struct planes {
    struct device *device;
    const struct unpacked *file;
    char *to;
    size_t plane_bytes;
    int64_t first, end, parts;
};

/* and from the file: some channels of one panel */
static void planes_task(void *context, int64_t task, int worker)
{
    const struct planes *p = context;
    float *memory = (float *)cpu_worker_memory(p->device, worker);
    int64_t n0 = p->first + task / p->parts * GEMM_NR;
    int64_t cols = p->end - n0 < GEMM_NR ? p->end - n0 : GEMM_NR;
    int64_t c0 = task % p->parts * PLANE_BLOCKS * UNPACKED_RUN;
    int64_t c1 = c0 + PLANE_BLOCKS * UNPACKED_RUN < p->file->c ? c0 + PLANE_BLOCKS * UNPACKED_RUN
                                                               : p->file->c;
    char *to = p->to + (size_t)((n0 - p->first) * p->file->c) * 4;
    /* a panel of few columns leaves the second vector alone */
    memset(memory, 0, 9 * UNPACKED_RUN * GEMM_NR * sizeof *memory);
    for (; c0 < c1; c0 += UNPACKED_RUN) {
        unpacked_panel(p->file, memory, DTYPE_F32, c0 * 9, 9 * UNPACKED_RUN, n0, cols);
        for (int64_t i = 0; i < UNPACKED_RUN; i++)
            winograd_channel(to + (c0 + i) * GEMM_NR * 4, p->plane_bytes, memory + i * GEMM_NR,
                             UNPACKED_RUN * GEMM_NR);
    }
}

void pack_planes(struct device *d, void *to, const struct unpacked *file, int64_t first,
                 int64_t end)
{
    struct planes p = {.device = d, .file = file, .to = to, .first = first, .end = end};
    p.plane_bytes = gemm_packed_bytes(file->c, end - first, DTYPE_F32);
    p.parts = (file->c + PLANE_BLOCKS * UNPACKED_RUN - 1) / (PLANE_BLOCKS * UNPACKED_RUN);
    pool_run(cpu_state(d)->pool, (end - first + GEMM_NR - 1) / GEMM_NR * p.parts, planes_task, &p);
}

static void pack_task(void *context, int64_t task, int worker)
{
    const struct packing *p = context;
    int64_t phase = task / p->panels, index = task % p->panels;
    char *panel = p->to + p->b_bytes * (size_t)phase + (size_t)(index * p->steps * GEMM_NR) * 4;
    bool whole_words = p->dtype == DTYPE_F32 || p->c % 2 == 0;
    if (p->form == PACK_WINOGRAD || (p->form == PACK_PHASES && whole_words)) {
        void *memory = cpu_worker_memory(p->device, worker);
        if (phase == 0 && p->form == PACK_WINOGRAD && p->forward)
            pack_winograd(p, index);
        else if (phase == 0)
            pack_taps(p, index * GEMM_NR, memory);
        return;
    }
    switch (p->form) {
    case PACK_FORWARD:
        if (whole_words && p->kh * p->kw > 1 && p->kh * p->kw <= TAP_FLOATS / 2) {
            pack_taps(p, index * GEMM_NR, cpu_worker_memory(p->device, worker));
            break;
        }
        pack_forward(p, panel, index * GEMM_NR, cpu_worker_memory(p->device, worker));
        break;
    case PACK_BACKWARD: pack_backward(p, panel, index * GEMM_NR); break;
    default: pack_phases(p, panel, (int)phase, index * GEMM_NR);
    }
}

static void drop_form(struct packed *packed, enum pack_form form, bool half)
{
    cpu_big_free(packed->form[form][half], packed->bytes[form][half]);
    packed->form[form][half] = NULL;
    packed->bytes[form][half] = 0;
}

static int pack_form(const void **b, struct device *d, struct kernel_weight *w,
                     struct pack_shape shape, enum pack_form form, enum dtype dtype,
                     struct error *err)
{
    bool half = dtype == DTYPE_BF16;
    struct packed *packed = w->packed;
    if (packed && packed->form[form][half] && packed->version[form][half] == w->version &&
        memcmp(&packed->shape[form][half], &shape, sizeof shape) == 0) {
        *b = packed->form[form][half];
        return 0;
    }
    switch (w->dtype) {
    case DTYPE_F32:
    case DTYPE_BF16:
    case DTYPE_F16:
    case DTYPE_F64:
    case DTYPE_F8_E4M3:
    case DTYPE_F8_E5M2: break;
    default:
        return error_set(err, ERR_UNSUPPORTED, "a weight of %s cannot be multiplied with",
                         dtype_name(w->dtype));
    }
    struct packing p = {.device = d, .w = w, .form = form, .dtype = half ? DTYPE_BF16 : DTYPE_F32};
    p.out = shape.out;
    p.c = shape.c;
    p.kh = shape.kh;
    p.kw = shape.kw;
    int copies = 1;
    switch (form) {
    case PACK_FORWARD: p.k = p.c * p.kh * p.kw, p.n = p.out; break;
    case PACK_BACKWARD: p.k = p.out * p.kh * p.kw, p.n = p.c; break;
    case PACK_PHASES: p.k = p.c * 4, p.n = p.out, copies = 4; break;
    case PACK_WINOGRAD: p.k = p.c, p.n = p.out, copies = 16; break;
    default: p.k = p.out * 16, p.n = p.c; break;
    }
    p.panels = (p.n + GEMM_NR - 1) / GEMM_NR;
    p.steps = half ? (p.k + 1) / 2 : p.k;
    p.b_bytes = gemm_packed_bytes(p.k, p.n, p.dtype);
    if (!packed) {
        packed = alloc_zero(1, sizeof *packed);
        w->packed = packed;
    }
    size_t bytes = p.b_bytes * (size_t)copies;
    if (packed->bytes[form][half] != bytes) drop_form(packed, form, half);
    if (form == PACK_WINOGRAD && packed->form[PACK_FORWARD][0] &&
        packed->version[PACK_FORWARD][0] == w->version &&
        memcmp(&packed->shape[PACK_FORWARD][0], &shape, sizeof shape) == 0)
        p.forward = packed->form[PACK_FORWARD][0];
    if (!packed->form[form][half]) packed->form[form][half] = cpu_big_alloc(bytes);
    p.to = packed->form[form][half];
    if (!p.to)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of packed weight", bytes);
    cpu_spread(d, p.to, bytes);
    packed->bytes[form][half] = bytes;
    pool_run(cpu_state(d)->pool, p.panels * copies, pack_task, &p);
    if ((form == PACK_PHASES || form == PACK_WINOGRAD) && !w->changes)
        drop_form(packed, PACK_FORWARD, half);
    if (w->mapped && !w->changes)
        cpu_forget_pages(w->data, (size_t)(p.out * p.c * p.kh * p.kw) * dtype_bytes(w->dtype));
    packed->version[form][half] = w->version;
    packed->shape[form][half] = shape;
    w->packed_version = w->version;
    *b = p.to;
    return 0;
}

/* Packing anew costs about a tenth of keeping: the pages of a kept form must be found and cleared. */
#define KEEP_AFTER 8

/* The file's form made for good, or what was made before; NULL: not yet, or no memory. Keeping is worth
 * while when packing call by call has cost as much. */
static const void *kept_form(struct device *d, struct kernel_weight *w, struct pack_shape shape,
                             enum dtype dtype, const struct unpacked *file, int64_t k, int64_t n)
{
    struct packed *packed = w->packed;
    const bool half = dtype == DTYPE_BF16;
    if (w->changes || (!half && w->dtype != DTYPE_F32)) return NULL; /* twice the file's size */
    if (!packed) w->packed = packed = alloc_zero(1, sizeof *packed);
    void **form = &packed->form[PACK_FORWARD][half];
    bool same = memcmp(&packed->shape[PACK_FORWARD][half], &shape, sizeof shape) == 0;
    if (*form && same && packed->version[PACK_FORWARD][half] == w->version) return *form;
    if (packed->derivative || ++packed->uses[half] <= KEEP_AFTER) return NULL;
    drop_form(packed, PACK_FORWARD, half);
    size_t bytes = gemm_packed_bytes(k, n, dtype);
    *form = cpu_big_alloc(bytes);
    if (!*form) return NULL;
    cpu_spread(d, *form, bytes);
    packed->bytes[PACK_FORWARD][half] = bytes;
    packed->version[PACK_FORWARD][half] = w->version;
    packed->shape[PACK_FORWARD][half] = shape;
    w->packed_version = w->version;
    gemm_pack(d, *form, file, k, n, dtype);
    if (w->mapped) cpu_forget_pages(w->data, (size_t)(k * n) * dtype_bytes(w->dtype));
    return *form;
}

int pack_get(struct pack_b *b, struct device *d, struct kernel_weight *w, struct pack_shape shape,
             enum pack_form form, enum dtype dtype, struct error *err)
{
    *b = (struct pack_b){0};
    const bool planes = form == PACK_WINOGRAD;
    if (!unpacked_suits(w, shape, planes ? PACK_FORWARD : form, dtype))
        return pack_form(&b->packed, d, w, shape, form, dtype, err);
    const bool backward = form == PACK_BACKWARD;
    const int64_t taps = shape.kh * shape.kw;
    const int64_t k = (backward ? shape.out : shape.c) * taps, n = backward ? shape.c : shape.out;
    b->file = (struct unpacked){.data = w->data,
                                .dtype = w->dtype,
                                .out = shape.out,
                                .c = shape.c,
                                .taps = taps,
                                .backward = backward};
    if (planes) return 0;
    if (!backward) {
        b->packed = kept_form(d, w, shape, dtype, &b->file, k, n);
    } else if (!w->changes) {
        struct packed *packed = w->packed;
        if (!packed) w->packed = packed = alloc_zero(1, sizeof *packed);
        bool half = dtype == DTYPE_BF16;
        if (!packed->derivative && unpacked_suits(w, shape, PACK_FORWARD, dtype))
            drop_form(packed, PACK_FORWARD, half);
        packed->derivative = true;
    }
    return b->packed ? 0 : gemm_reserve(d, k, n, dtype, err);
}

int CPU_NAME(cpu_pack_forward)(struct device *d, struct kernel_weight *w,
                               enum dtype activation_dtype, struct error *err);

int CPU_NAME(cpu_pack_forward)(struct device *d, struct kernel_weight *w,
                               enum dtype activation_dtype, struct error *err)
{
    const void *b;
    struct packed *packed = w->packed;
    const enum dtype panels = panel_dtype(activation_dtype);
    bool half = panels == DTYPE_BF16;
    if (packed && (packed->form[PACK_PHASES][half] || packed->form[PACK_WINOGRAD][half])) return 0;
    struct pack_shape shape = {w->dim[0], w->dim[1], w->rank > 2 ? w->dim[2] : 1,
                               w->rank > 3 ? w->dim[3] : 1};
    if (unpacked_suits(w, shape, PACK_FORWARD, panels) || int8_suits(w, shape.c)) return 0;
    return pack_form(&b, d, w, shape, PACK_FORWARD, panels, err);
}
