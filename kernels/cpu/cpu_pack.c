#include "kernels/cpu/cpu_pack.h"

#include <stdlib.h>

#include "base/alloc.h"

#define BLOCK 256 /* k of one block: the part of a panel that stays in the first cache */

/* One form being made. Element (k, n) of B number `phase` is the sum of up to four taps of
 * w[o][channel]. */
struct packing {
    const struct kernel_weight *w;
    enum pack_form form;
    enum dtype dtype;
    char *to;
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

ALWAYS_INLINE void pack_columns(const struct packing *p, char *panel, int64_t n0, int64_t k0,
                                int64_t k1, const enum dtype t)
{
    const int64_t taps = p->kh * p->kw;
    for (int64_t j = 0; j < GEMM_NR; j++) {
        int64_t n = n0 + j;
        if (n >= p->n) {
            for (int64_t k = k0; k < k1; k++) put(p, panel, k, j, 0);
        } else if (p->form == PACK_FORWARD) {
            int64_t tap = k0 / p->c, ch = k0 % p->c;
            for (int64_t k = k0; k < k1; k++) {
                put(p, panel, k, j, element(p->w->data, (n * p->c + ch) * taps + tap, t));
                if (++ch == p->c) ch = 0, tap++;
            }
        } else {
            int64_t tap = k0 / p->out, o = k0 % p->out;
            for (int64_t k = k0; k < k1; k++) {
                put(p, panel, k, j, element(p->w->data, (o * p->c + n) * taps + taps - 1 - tap, t));
                if (++o == p->out) o = 0, tap++;
            }
        }
        if (k1 == p->k && p->k % 2 && p->dtype == DTYPE_BF16) put(p, panel, p->k, j, 0);
    }
}

static void pack_task(void *context, int64_t task, int worker)
{
    const struct packing *p = context;
    int64_t phase = task / p->panels, index = task % p->panels;
    char *panel = p->to + p->b_bytes * (size_t)phase + (size_t)(index * p->steps * GEMM_NR) * 4;
    int64_t n0 = index * GEMM_NR;
    if (p->form == PACK_PHASES || p->form == PACK_PHASES_BACKWARD) {
        for (int64_t k = 0; k < p->k; k++)
            for (int64_t j = 0; j < GEMM_NR; j++)
                put(p, panel, k, j, n0 + j < p->n ? phase_element(p, (int)phase, k, n0 + j) : 0);
        for (int64_t j = 0; j < GEMM_NR && p->k % 2 && p->dtype == DTYPE_BF16; j++)
            put(p, panel, p->k, j, 0);
        return;
    }
    for (int64_t k0 = 0; k0 < p->k; k0 += BLOCK) {
        int64_t k1 = k0 + BLOCK < p->k ? k0 + BLOCK : p->k;
        switch (p->w->dtype) {
        case DTYPE_F32: pack_columns(p, panel, n0, k0, k1, DTYPE_F32); break;
        case DTYPE_BF16: pack_columns(p, panel, n0, k0, k1, DTYPE_BF16); break;
        default: pack_columns(p, panel, n0, k0, k1, p->w->dtype);
        }
    }
}

int pack_get(const void **b, struct device *d, struct kernel_weight *w, struct pack_shape shape,
             enum pack_form form, enum dtype dtype, struct error *err)
{
    bool half = dtype == DTYPE_BF16;
    struct packed *packed = w->packed;
    if (packed && packed->form[form][half] && packed->version[form][half] == w->version) {
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
    struct packing p = {.w = w, .form = form, .dtype = half ? DTYPE_BF16 : DTYPE_F32};
    p.out = shape.out;
    p.c = shape.c;
    p.kh = shape.kh;
    p.kw = shape.kw;
    int copies = 1;
    switch (form) {
    case PACK_FORWARD: p.k = p.c * p.kh * p.kw, p.n = p.out; break;
    case PACK_BACKWARD: p.k = p.out * p.kh * p.kw, p.n = p.c; break;
    case PACK_PHASES: p.k = p.c * 4, p.n = p.out, copies = 4; break;
    default: p.k = p.out * 16, p.n = p.c; break;
    }
    p.panels = (p.n + GEMM_NR - 1) / GEMM_NR;
    p.steps = half ? (p.k + 1) / 2 : p.k;
    p.b_bytes = gemm_packed_bytes(p.k, p.n, p.dtype);
    if (!packed) {
        packed = alloc_zero(1, sizeof *packed);
        w->packed = packed;
    }
    if (!packed->form[form][half])
        packed->form[form][half] = cpu_big_alloc(p.b_bytes * (size_t)copies);
    p.to = packed->form[form][half];
    if (!p.to)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of packed weight",
                         p.b_bytes * (size_t)copies);
    pool_run(cpu_state(d)->pool, p.panels * copies, pack_task, &p);
    packed->version[form][half] = w->version;
    w->packed_version = w->version;
    *b = p.to;
    return 0;
}
