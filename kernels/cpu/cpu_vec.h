/*
 * cpu_vec.h - a vector of floats as wide as the instruction set has them.
 *
 * Place    arithmetic of kernels/cpu, compiled once an instruction set. GCC vector extensions carry
 *          the plain operators; what they lack (maximum, select, rounding, halves) is here.
 * Failure  none. Loads and stores need no alignment; the _n forms touch n < VL elements only.
 *
 * A storage dtype (F32 or BF16) is a compile-time constant wherever it reaches this file: kernels
 * are always-inline bodies instantiated by CPU_BY_DTYPE.
 */
#ifndef KERNELS_CPU_CPU_VEC_H
#define KERNELS_CPU_CPU_VEC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/dtype.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(VL * 4), aligned(1), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(1), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4), aligned(1), may_alias));
typedef uint16_t vh __attribute__((vector_size(VL * 2), aligned(1), may_alias));

ALWAYS_INLINE vf vf_set(float x)
{
    vf v = {0};
    return v + x;
}

ALWAYS_INLINE vf vf_max(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi m = a > b;
    return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

ALWAYS_INLINE vf vf_min(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif VL == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    vi m = a < b;
    return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

/* a where x < y, else b */
ALWAYS_INLINE vf vf_where_less(vf x, vf y, vf a, vf b)
{
#if VL == 16
    __mmask16 m = _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_LT_OQ);
    return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
#else
    vi m = x < y;
    return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

/* No lane is NaN. */
ALWAYS_INLINE bool vf_all_below(vf x, vf y)
{
#if VL == 16
    return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_LT_OQ) == 0xffff;
#elif VL == 8
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)y, _CMP_LT_OQ)) == 0xff;
#else
    vi m = x < y;
    return (m[0] & m[1] & m[2] & m[3]) != 0;
#endif
}

ALWAYS_INLINE vf vf_abs(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

ALWAYS_INLINE float vf_sum(vf a)
{
    float part[VL], s = 0;
    memcpy(part, &a, sizeof part);
    for (int n = VL / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    s = part[0];
    return s;
}

ALWAYS_INLINE float vf_highest(vf a)
{
    float part[VL];
    memcpy(part, &a, sizeof part);
    for (int n = VL / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] = part[i] > part[i + n] ? part[i] : part[i + n];
    return part[0];
}

ALWAYS_INLINE vf vf_from_bf16(vh h)
{
#if VL == 16
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif VL == 8
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
    return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}

/* Round to nearest even; NaN stays NaN. */
ALWAYS_INLINE vh vf_to_bf16(vf x)
{
#if VL == 16 && defined(__AVX512BF16__)
    return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
    vu bits = (vu)x;
    vu even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    vu nan = (vu)((bits & 0x7fffffff) > 0x7f800000);
    vu wide = (nan & ((bits >> 16) | 0x40)) | (~nan & even);
#if VL == 16
    return (vh)_mm512_cvtepi32_epi16((__m512i)wide);
#else
    return __builtin_convertvector(wide, vh);
#endif
#endif
}

ALWAYS_INLINE vf vf_load(const void *base, int64_t i, enum dtype t)
{
    if (t == DTYPE_F32) return *(const vf *)((const float *)base + i);
    return vf_from_bf16(*(const vh *)((const uint16_t *)base + i));
}

ALWAYS_INLINE void vf_store(void *base, int64_t i, enum dtype t, vf x)
{
    if (t == DTYPE_F32)
        *(vf *)((float *)base + i) = x;
    else
        *(vh *)((uint16_t *)base + i) = vf_to_bf16(x);
}

/* the first n elements, the rest zero */
ALWAYS_INLINE vf vf_load_n(const void *base, int64_t i, enum dtype t, int n)
{
    if (t == DTYPE_F32) {
#if VL == 16
        return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), (const float *)base + i);
#else
        vf v = {0};
        memcpy(&v, (const float *)base + i, (size_t)n * 4);
        return v;
#endif
    }
#if VL == 16 && defined(__AVX512VL__)
    return vf_from_bf16(
        (vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), (const uint16_t *)base + i));
#else
    vh h = {0};
    memcpy(&h, (const uint16_t *)base + i, (size_t)n * 2);
    return vf_from_bf16(h);
#endif
}

ALWAYS_INLINE void vf_store_n(void *base, int64_t i, enum dtype t, vf x, int n)
{
    if (t == DTYPE_F32) {
#if VL == 16
        _mm512_mask_storeu_ps((float *)base + i, (__mmask16)((1u << n) - 1), (__m512)x);
#else
        memcpy((float *)base + i, &x, (size_t)n * 4);
#endif
        return;
    }
    vh h = vf_to_bf16(x);
#if VL == 16 && defined(__AVX512VL__)
    _mm256_mask_storeu_epi16((uint16_t *)base + i, (__mmask16)((1u << n) - 1), (__m256i)h);
#else
    memcpy((uint16_t *)base + i, &h, (size_t)n * 2);
#endif
}

/* One element at a time, for tails that are not worth a mask. */
ALWAYS_INLINE float f_load(const void *base, int64_t i, enum dtype t)
{
    return t == DTYPE_F32 ? ((const float *)base)[i] : bf16_to_f32(((const uint16_t *)base)[i]);
}

ALWAYS_INLINE void f_store(void *base, int64_t i, enum dtype t, float x)
{
    if (t == DTYPE_F32)
        ((float *)base)[i] = x;
    else
        ((uint16_t *)base)[i] = f32_to_bf16(x);
}

/* Pointer to element i. */
ALWAYS_INLINE void *at(const void *base, int64_t i, enum dtype t)
{
    return (char *)base + i * (t == DTYPE_F32 ? 4 : 2);
}

/*
 * for_lanes: runs `body` with a full vector count of lanes, then once with the tail.
 * Inside, `i` is the first element and `lanes` how many count.
 */
#define FOR_VECTORS(i, count, full, tail)                                                          \
    do {                                                                                           \
        int64_t i = 0;                                                                             \
        for (; i + VL <= (count); i += VL) {                                                       \
            full;                                                                                  \
        }                                                                                          \
        if (i < (count)) {                                                                         \
            const int lanes = (int)((count)-i);                                                    \
            tail;                                                                                  \
        }                                                                                          \
    } while (0)

/* Calls an always-inline body with the dtype as a literal. */
#define CPU_BY_DTYPE(dtype, function, ...)                                                         \
    do {                                                                                           \
        if ((dtype) == DTYPE_F32)                                                                  \
            function(__VA_ARGS__, DTYPE_F32);                                                      \
        else                                                                                       \
            function(__VA_ARGS__, DTYPE_BF16);                                                     \
    } while (0)

#endif
