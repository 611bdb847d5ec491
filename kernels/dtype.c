#include "kernels/dtype.h"

#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const struct {
    const char *name;
    size_t bytes;
} table[DTYPE_COUNT] = {
#define X(name, text, bytes) {text, bytes},
    DTYPE_TABLE(X)
#undef X
};

size_t dtype_bytes(enum dtype dtype)
{
    return table[dtype].bytes;
}

const char *dtype_name(enum dtype dtype)
{
    return table[dtype].name;
}

bool dtype_find(const char *name, enum dtype *dtype)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(table[i].name, name) != 0) continue;
        *dtype = (enum dtype)i;
        return true;
    }
    return false;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) {
        uint32_t quiet = mantissa ? 0x400000 : 0;
        return float_of(sign | 0x7f800000 | mantissa << 13 | quiet);
    }
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return sign | 0x7c00; /* 65520 and above round to infinity */
    if (magnitude < 0x38800000) {
        /* Subnormal: adding 0.5 leaves the half's 2^-24 steps in the lowest bits of the float, and
         * the addition itself rounds to even. */
        uint32_t sum = bits_of(float_of(magnitude) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23);
    return (uint16_t)(sign | rounded >> 13);
}

/* The same bits one place lower in a half, whose exponent is biased by 8 more; no infinity, one NaN. */
float f8_e4m3_to_f32(uint8_t b)
{
    float half = f16_to_f32((uint16_t)((b & 0x80) << 8 | (b & 0x7f) << 7));
    return (b & 0x7f) == 0x7f ? float_of(0x7fc00000 | (uint32_t)(b & 0x80) << 24) : half * 256;
}

float f8_e5m2_to_f32(uint8_t b)
{
    return f16_to_f32((uint16_t)(b << 8)); /* the upper byte of a half */
}

/* Both 8-bit formats order their finite codes like their values, so the nearest code is found by
 * halving; a tie goes to the even code. Infinity and what lies past the largest code saturate to
 * NaN (E4M3, which has no infinity) or infinity (E5M2). */
static uint8_t f32_to_f8(float value, float (*widen)(uint8_t), int largest, uint8_t above)
{
    uint8_t sign = bits_of(value) >> 31 ? 0x80 : 0;
    float magnitude = fabsf(value);
    if (isnan(value)) return sign | 0x7f;
    float top = widen((uint8_t)largest), step = top - widen((uint8_t)(largest - 1));
    if (magnitude >= top + step / 2) return sign | above;
    int low = 0, high = largest;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (widen((uint8_t)middle) <= magnitude)
            low = middle;
        else
            high = middle - 1;
    }
    if (low < largest) {
        float below = magnitude - widen((uint8_t)low), over = widen((uint8_t)(low + 1)) - magnitude;
        if (over < below || (over == below && (low & 1))) low++;
    }
    return (uint8_t)(sign | low);
}

/* Elements may lie unaligned in a mapped file, so every access copies. */
#define LOAD(type, data, index)                                                                    \
    ({                                                                                             \
        type load_value;                                                                           \
        memcpy(&load_value, (const char *)(data) + (size_t)(index) * sizeof(type), sizeof(type));  \
        load_value;                                                                                \
    })
#define STORE(type, data, index, value)                                                            \
    do {                                                                                           \
        type store_value = (type)(value);                                                          \
        memcpy((char *)(data) + (size_t)(index) * sizeof(type), &store_value, sizeof(type));       \
    } while (0)

double dtype_get(const void *data, enum dtype dtype, int64_t index)
{
    switch (dtype) {
    case DTYPE_F32: return LOAD(float, data, index);
    case DTYPE_F16: return f16_to_f32(LOAD(uint16_t, data, index));
    case DTYPE_BF16: return bf16_to_f32(LOAD(uint16_t, data, index));
    case DTYPE_F64: return LOAD(double, data, index);
    case DTYPE_F8_E4M3: return f8_e4m3_to_f32(LOAD(uint8_t, data, index));
    case DTYPE_F8_E5M2: return f8_e5m2_to_f32(LOAD(uint8_t, data, index));
    case DTYPE_I64: return (double)LOAD(int64_t, data, index);
    case DTYPE_I32: return LOAD(int32_t, data, index);
    case DTYPE_I16: return LOAD(int16_t, data, index);
    case DTYPE_I8: return LOAD(int8_t, data, index);
    case DTYPE_U8: return LOAD(uint8_t, data, index);
    case DTYPE_U16: return LOAD(uint16_t, data, index);
    case DTYPE_U32: return LOAD(uint32_t, data, index);
    case DTYPE_U64: return (double)LOAD(uint64_t, data, index);
    case DTYPE_BOOL: return LOAD(uint8_t, data, index) != 0;
    case DTYPE_COUNT: break;
    }
    return 0;
}

/* Rounds to nearest and stops at the type's ends; NaN gives 0. 2^63 and 2^64 themselves do not fit,
 * hence `above` is exclusive. */
static double whole(double value, double lowest, double above)
{
    if (isnan(value)) return 0;
    value = nearbyint(value);
    if (value < lowest) return lowest;
    return value >= above ? nextafter(above, 0) : value;
}

void dtype_set(void *data, enum dtype dtype, int64_t index, double value)
{
    switch (dtype) {
    case DTYPE_F32: STORE(float, data, index, value); break;
    case DTYPE_F16: STORE(uint16_t, data, index, f32_to_f16((float)value)); break;
    case DTYPE_BF16: STORE(uint16_t, data, index, f32_to_bf16((float)value)); break;
    case DTYPE_F64: STORE(double, data, index, value); break;
    case DTYPE_F8_E4M3:
        STORE(uint8_t, data, index, f32_to_f8((float)value, f8_e4m3_to_f32, 0x7e, 0x7f));
        break;
    case DTYPE_F8_E5M2:
        STORE(uint8_t, data, index, f32_to_f8((float)value, f8_e5m2_to_f32, 0x7b, 0x7c));
        break;
    case DTYPE_I64: STORE(int64_t, data, index, whole(value, -0x1p63, 0x1p63)); break;
    case DTYPE_I32: STORE(int32_t, data, index, whole(value, -0x1p31, 0x1p31)); break;
    case DTYPE_I16: STORE(int16_t, data, index, whole(value, -0x1p15, 0x1p15)); break;
    case DTYPE_I8: STORE(int8_t, data, index, whole(value, -0x1p7, 0x1p7)); break;
    case DTYPE_U8: STORE(uint8_t, data, index, whole(value, 0, 0x1p8)); break;
    case DTYPE_U16: STORE(uint16_t, data, index, whole(value, 0, 0x1p16)); break;
    case DTYPE_U32: STORE(uint32_t, data, index, whole(value, 0, 0x1p32)); break;
    case DTYPE_U64: STORE(uint64_t, data, index, whole(value, 0, 0x1p64)); break;
    case DTYPE_BOOL: STORE(uint8_t, data, index, value != 0); break;
    case DTYPE_COUNT: break;
    }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static int64_t f16_widen_fast(float *to, const char *from,
                                                                  int64_t count)
{
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(from + 2 * i));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
    }
    return i;
}

__attribute__((target("avx,f16c"))) static int64_t f16_narrow_fast(char *to, const float *from,
                                                                   int64_t count)
{
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(to + 2 * i), half);
    }
    return i;
}

static bool have_f16c(void)
{
    return __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
}
#else
static int64_t f16_widen_fast(float *to, const char *from, int64_t count)
{
    return 0;
}
static int64_t f16_narrow_fast(char *to, const float *from, int64_t count)
{
    return 0;
}
static bool have_f16c(void)
{
    return false;
}
#endif

static void widen_f16(float *to, const char *from, int64_t count)
{
    int64_t i = have_f16c() ? f16_widen_fast(to, from, count) : 0;
    for (; i < count; i++) to[i] = f16_to_f32(LOAD(uint16_t, from, i));
}

/* Through halves, a block at a time; see f8_e4m3_to_f32. */
static void widen_f8(float *to, const char *from, enum dtype dtype, int64_t count)
{
    uint16_t half[256];
    for (int64_t at = 0; at < count; at += 256) {
        int64_t n = count - at < 256 ? count - at : 256;
        const uint8_t *code = (const uint8_t *)from + at;
        if (dtype == DTYPE_F8_E5M2) {
            for (int64_t i = 0; i < n; i++) half[i] = (uint16_t)(code[i] << 8);
            widen_f16(to + at, (const char *)half, n);
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            half[i] = (uint16_t)((code[i] & 0x80) << 8 | (code[i] & 0x7f) << 7);
        widen_f16(to + at, (const char *)half, n);
        for (int64_t i = 0; i < n; i++) to[at + i] *= 256;
        for (int64_t i = 0; i < n; i++) {
            if ((code[i] & 0x7f) == 0x7f) to[at + i] = f8_e4m3_to_f32(code[i]);
        }
    }
}

/* Without a branch, so that it becomes vector code. */
static void narrow_bf16(char *to, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = LOAD(uint32_t, from, i);
        uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
        uint32_t quiet = bits | 0x400000;
        uint32_t kept = (bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded;
        STORE(uint16_t, to, i, kept >> 16);
    }
}

/* false: the type is not one of the narrow floats, nothing was done */
static bool widen(float *to, const char *from, enum dtype dtype, int64_t count)
{
    int64_t i = 0;
    switch (dtype) {
    case DTYPE_F32: memcpy(to, from, (size_t)count * 4); return true;
    case DTYPE_F16: widen_f16(to, from, count); return true;
    case DTYPE_BF16:
        for (; i < count; i++) to[i] = bf16_to_f32(LOAD(uint16_t, from, i));
        return true;
    case DTYPE_F8_E4M3:
    case DTYPE_F8_E5M2: widen_f8(to, from, dtype, count); return true;
    case DTYPE_F64:
        for (; i < count; i++) to[i] = (float)LOAD(double, from, i);
        return true;
    default: return false;
    }
}

static void narrow(char *to, enum dtype dtype, const float *from, int64_t count)
{
    int64_t i = 0;
    switch (dtype) {
    case DTYPE_F32: memcpy(to, from, (size_t)count * 4); return;
    case DTYPE_F16:
        if (have_f16c()) i = f16_narrow_fast(to, from, count);
        for (; i < count; i++) STORE(uint16_t, to, i, f32_to_f16(from[i]));
        return;
    case DTYPE_BF16: narrow_bf16(to, from, count); return;
    default:
        for (; i < count; i++) dtype_set(to, dtype, i, from[i]);
    }
}

void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype,
                   int64_t count)
{
    size_t to_bytes = dtype_bytes(to_dtype), from_bytes = dtype_bytes(from_dtype);
    if (to_dtype == from_dtype) {
        if (count > 0) memcpy(to, from, (size_t)count * to_bytes);
        return;
    }
    bool exact_as_float = from_bytes <= 4 && from_dtype != DTYPE_I32 && from_dtype != DTYPE_U32;
    if (to_dtype == DTYPE_BF16 && from_dtype == DTYPE_F32) {
        narrow_bf16(to, from, count);
        return;
    }
    if (to_dtype != DTYPE_F64 && (exact_as_float || to_dtype == DTYPE_F32)) {
        float block[512];
        for (int64_t i = 0; i < count; i += 512) {
            int64_t n = count - i < 512 ? count - i : 512;
            const char *source = (const char *)from + (size_t)i * from_bytes;
            if (!widen(block, source, from_dtype, n)) {
                for (int64_t j = 0; j < n; j++) block[j] = (float)dtype_get(source, from_dtype, j);
            }
            narrow((char *)to + (size_t)i * to_bytes, to_dtype, block, n);
        }
        return;
    }
    for (int64_t i = 0; i < count; i++) dtype_set(to, to_dtype, i, dtype_get(from, from_dtype, i));
}
