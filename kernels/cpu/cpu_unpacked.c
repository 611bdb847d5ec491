#include "kernels/cpu/cpu_unpacked.h"

#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_transpose.h"

#define FETCH_AHEAD 768 /* bytes */

bool unpacked_suits(const struct kernel_weight *w, struct pack_shape shape, enum pack_form form,
                    enum dtype dtype)
{
    bool half = dtype == DTYPE_BF16, backward = form == PACK_BACKWARD;
    int64_t taps = shape.kh * shape.kw, inner = backward ? shape.out : shape.c;
    if (form != PACK_FORWARD && !backward) return false;
    switch (w->dtype) {
    case DTYPE_BF16: break;
    case DTYPE_F16:
        /* without an instruction for it converting takes longer than multiplying */
        if (VL == 4 && !backward && !w->changes) return false;
        break;
    case DTYPE_F32:
        if (half && !backward && !w->changes) return false; /* half as large when packed */
        break;
    default: return false;
    }
    if (taps > UNPACKED_TAPS_MAX) return false;
    int64_t run = taps > 1 ? UNPACKED_RUN : 1;
    return inner % (half ? 2 * run : run) == 0;
}

ALWAYS_INLINE int64_t bytes_of(enum dtype t)
{
    return t == DTYPE_F32 ? 4 : 2;
}

/* VL floats of any of the three types */
ALWAYS_INLINE vf widened(const char *from, const enum dtype t)
{
#if VL == 16
    if (t == DTYPE_F16) return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif VL == 8
    if (t == DTYPE_F16) return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#endif
#if VL == 4
    if (t == DTYPE_F16) {
        float wide[VL];
        dtype_convert(wide, DTYPE_F32, from, DTYPE_F16, VL);
        return vf_load(wide, 0, DTYPE_F32);
    }
#endif
    return vf_load(from, 0, t);
}

/* VL words of a panel: floats, or pairs of bfloat16 */
ALWAYS_INLINE vu words(const char *from, const enum dtype t, const enum dtype to)
{
    if (to == DTYPE_F32) return (vu)widened(from, t);
    if (t == DTYPE_BF16) return *(const vu *)from;
    vf low = widened(from, t), high = widened(from + VL * bytes_of(t), t);
#if VL == 16 && defined(__AVX512BF16__)
    return (vu)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#else
    vh half[2] = {vf_to_bf16(low), vf_to_bf16(high)};
    vu both;
    memcpy(&both, half, sizeof both);
    return both;
#endif
}

ALWAYS_INLINE vu words_n(const char *from, int n, const enum dtype t, const enum dtype to)
{
    char whole[VL * 8] = {0};
    memcpy(whole, from, (size_t)(n * bytes_of(t) * (to == DTYPE_F32 ? 1 : 2)));
    return words(whole, t, to);
}

/* VL by VL words whose rows lie `pitch` bytes apart, turned over. */
ALWAYS_INLINE void turned_square(vu block[VL], const char *from, int64_t pitch, const enum dtype t,
                                 const enum dtype to)
{
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) block[i] = words(from + i * pitch, t, to);
    transpose_square(block);
}

ALWAYS_INLINE void turned_part(vu block[VL], const char *from, int64_t pitch, int height, int width,
                               const enum dtype t, const enum dtype to)
{
    for (int i = 0; i < VL; i++)
        block[i] = i < height ? words_n(from + i * pitch, width, t, to) : (vu){0};
    transpose_square(block);
}

/* Rows are far apart and short, which the hardware does not foresee. */
ALWAYS_INLINE void fetch_ahead(const char *from, int64_t pitch)
{
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) __builtin_prefetch(from + i * pitch + FETCH_AHEAD);
}

/* A linear's words [step, step+steps), as they come. */
ALWAYS_INLINE void linear_panel(const struct unpacked *u, char *panel, int64_t step, int64_t steps,
                                int64_t n0, int64_t cols, const enum dtype t, const enum dtype to)
{
    const int64_t word = bytes_of(t) * (to == DTYPE_F32 ? 1 : 2), pitch = u->c * bytes_of(t);
    const char *from = (const char *)u->data + n0 * pitch + step * word;
    for (int64_t n = 0; n < cols; n += VL, from += VL * pitch) {
        int height = cols - n >= VL ? VL : (int)(cols - n);
        for (int64_t s = 0; s < steps; s += VL) {
            int width = steps - s < VL ? (int)(steps - s) : VL;
            char *at = panel + (s * GEMM_NR + n) * 4;
            vu block[VL];
            if (height == VL && width == VL) {
                fetch_ahead(from + s * word, pitch);
                turned_square(block, from + s * word, pitch, t, to);
            } else {
                turned_part(block, from + s * word, pitch, height, width, t, to);
            }
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++)
                if (i < width) *(vu *)(at + i * GEMM_NR * 4) = block[i];
        }
    }
}

/* Of the 2 * taps halves of two channels, side by side in `taps` words: tap t of the first below tap
 * t of the second. */
ALWAYS_INLINE vu tap_pair(const vu *word, int t, const int taps)
{
    vu a = word[t / 2], b = word[(taps + t) / 2];
    if (t % 2)
        a >>= 16;
    else
        a &= 0xffff;
    if ((taps + t) % 2)
        b &= 0xffff0000;
    else
        b <<= 16;
    return a | b;
}

/* Whole blocks of taps * RUN words: those of channel (or pair of channels) i go to steps i, RUN + i,
 * 2 RUN + i ... */
ALWAYS_INLINE void taps_panel(const struct unpacked *u, char *panel, int64_t step, int64_t steps,
                              int64_t n0, int64_t cols, const int taps, const enum dtype t,
                              const enum dtype to)
{
    const int64_t word = bytes_of(t) * (to == DTYPE_F32 ? 1 : 2);
    const int64_t pitch = u->c * taps * bytes_of(t);
    const int size = taps * UNPACKED_RUN;
    const char *from = (const char *)u->data + n0 * pitch + step * word;
    vu turned[UNPACKED_TAPS_MAX * UNPACKED_RUN];
    for (int64_t n = 0; n < cols; n += VL, from += VL * pitch) {
        int height = cols - n >= VL ? VL : (int)(cols - n);
        for (int64_t s = 0; s < steps; s += size) {
            for (int c = 0; c < size; c += VL) {
                const char *source = from + (s + c) * word;
                if (height == VL) {
                    fetch_ahead(source, pitch);
                    turned_square(turned + c, source, pitch, t, to);
                } else {
                    turned_part(turned + c, source, pitch, height, VL, t, to);
                }
            }
            for (int i = 0; i < UNPACKED_RUN; i++) {
                char *to_step = panel + ((s + i) * GEMM_NR + n) * 4;
                const vu *words = turned + i * taps;
#pragma GCC unroll 9
                for (int tap = 0; tap < taps; tap++, to_step += UNPACKED_RUN * GEMM_NR * 4)
                    *(vu *)to_step = to == DTYPE_F32 ? words[tap] : tap_pair(words, tap, taps);
            }
        }
    }
}

/* Rows o (and o + 1, word by word) of `count` elements from `from` on, as words. */
ALWAYS_INLINE void pair_rows(uint32_t *to_words, const char *from, int64_t pitch, int64_t count,
                             const enum dtype t, const enum dtype to)
{
    for (int64_t i = 0; i < count; i += VL) {
        char rest[2][VL * 4];
        const char *a = from + i * bytes_of(t), *b = a + pitch;
        if (count - i < VL) {
            size_t bytes = (size_t)((count - i) * bytes_of(t));
            a = memcpy(memset(rest[0], 0, sizeof rest[0]), a, bytes);
            if (to != DTYPE_F32) b = memcpy(memset(rest[1], 0, sizeof rest[1]), b, bytes);
        }
        if (to == DTYPE_F32) {
            *(vf *)(to_words + i) = widened(a, t);
            continue;
        }
        /* upper halves of floats that have been rounded to bfloat16 */
        vf x = widened(a, t), y = widened(b, t);
        if (t != DTYPE_BF16) x = vf_from_bf16(vf_to_bf16(x)), y = vf_from_bf16(vf_to_bf16(y));
        *(vu *)(to_words + i) = ((vu)x >> 16) | (vu)y;
    }
}

ALWAYS_INLINE void backward_panel(const struct unpacked *u, char *panel, int64_t step,
                                  int64_t steps, int64_t n0, int64_t cols, const enum dtype t,
                                  const enum dtype to)
{
    const int64_t per_step = to == DTYPE_F32 ? 1 : 2, taps = u->taps;
    const int64_t pitch = u->c * taps * bytes_of(t);
    const int64_t run = taps > 1 ? UNPACKED_RUN : steps;
    const char *from = (const char *)u->data + n0 * taps * bytes_of(t);
    _Alignas(64) uint32_t turned[GEMM_NR * UNPACKED_TAPS_MAX + VL];
    if (cols < GEMM_NR) memset(turned, 0, sizeof turned);
    int64_t o = step / taps * per_step; /* blocks are whole, so this is their first output */
    for (int64_t base = 0; base < steps; base += run * taps)
        for (int64_t i = 0; i < run; i++, o += per_step) {
            char *to_step = panel + (base + i) * GEMM_NR * 4;
            if (taps == 1 && cols == GEMM_NR) {
                pair_rows((uint32_t *)to_step, from + o * pitch, pitch, GEMM_NR, t, to);
                continue;
            }
            pair_rows(turned, from + o * pitch, pitch, cols * taps, t, to);
            if (cols < GEMM_NR) /* a last vector may have gone past them */
                memset(turned + cols * taps, 0, (size_t)((GEMM_NR - cols) * taps) * 4);
            /* [column][tap] -> [tap][column], the last tap first */
            transpose_words(to_step + (taps - 1) * run * GEMM_NR * 4, -run * GEMM_NR * 4, turned,
                            taps * 4, GEMM_NR, taps, false);
        }
}

ALWAYS_INLINE void any_panel(const struct unpacked *u, char *panel, int64_t step, int64_t steps,
                             int64_t n0, int64_t cols, const enum dtype t, const enum dtype to)
{
    if (u->backward)
        backward_panel(u, panel, step, steps, n0, cols, t, to);
    else if (u->taps == 1)
        linear_panel(u, panel, step, steps, n0, cols, t, to);
    else if (u->taps == 9)
        taps_panel(u, panel, step, steps, n0, cols, 9, t, to);
    else
        taps_panel(u, panel, step, steps, n0, cols, (int)u->taps, t, to);
}

void unpacked_panel(const struct unpacked *u, void *panel, enum dtype dtype, int64_t step,
                    int64_t steps, int64_t n0, int64_t cols)
{
    bool half = dtype == DTYPE_BF16;
    if (u->dtype == DTYPE_F32)
        half ? any_panel(u, panel, step, steps, n0, cols, DTYPE_F32, DTYPE_BF16)
             : any_panel(u, panel, step, steps, n0, cols, DTYPE_F32, DTYPE_F32);
    else if (u->dtype == DTYPE_BF16)
        half ? any_panel(u, panel, step, steps, n0, cols, DTYPE_BF16, DTYPE_BF16)
             : any_panel(u, panel, step, steps, n0, cols, DTYPE_BF16, DTYPE_F32);
    else
        half ? any_panel(u, panel, step, steps, n0, cols, DTYPE_F16, DTYPE_BF16)
             : any_panel(u, panel, step, steps, n0, cols, DTYPE_F16, DTYPE_F32);
}
